"""`oodray evaluate`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oodray.cli.terminal import Out, print_evaluation, print_json
from oodray.errors import ConfigError
from oodray.report.terminal import console, note

if TYPE_CHECKING:
    from oodray.analysis.components import Report
    from oodray.analysis.evaluation import Evaluation
    from oodray.analysis.instances import InstanceReport
    from oodray.results.folder import ResultsFolder


def _not_a_folder(track: str | None) -> str | None:
    """Refuse a results folder in the place of a track: `--components` was to have its default, and took the folder."""
    from oodray.analysis.components import AUTO
    from oodray.metrics.components import LIMITS

    if track is None or track in {AUTO, *LIMITS} or not ("/" in track or Path(track).exists()):
        return track
    raise ConfigError(
        f"--components took {track} for the name of a track, which are {', '.join(LIMITS)}. To have that of the "
        f"dataset, name the folder first: `oodray evaluate {shlex.quote(track)} --components`"
    )


def _is_ray_worth_it() -> bool:
    """Whether Ray reads large runs: it runs, or this machine has more cores than threads of this process would use."""
    from oodray.analysis.totals import MOST_THREADS
    from oodray.cluster.session import Session
    from oodray.cluster.shares import usable_cores

    return usable_cores() > MOST_THREADS or not Session().starts_its_own()


def evaluate(
    out: Out,
    like: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure as an evaluator does, too: smiyc, fishyscapes, ade-ood, ood-metrics, pebal, bravo, "
            "mask2anomaly, rba, torch-uncertainty, pytorch-ood or issu. Can be repeated."
        ),
    ] = None,
    pooling: Annotated[str | None, typer.Option(help="dataset: pool all pixels; image: mean over images.")] = None,
    ap_rule: Annotated[str | None, typer.Option(help="Area of the AP: step or trapezoid.")] = None,
    fpr_rule: Annotated[
        str | None, typer.Option(help="Where the FPR is read: >=, >, nearest, nearest-last or linear.")
    ] = None,
    tpr: Annotated[float | None, typer.Option(help="Read the FPR at this TPR, too.")] = None,
    lacking: Annotated[
        str | None,
        typer.Option(
            help="Images without OoD or without in-distribution pixels: keep, drop, drop-without-ood or refuse."
        ),
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Draw the images anew so many times, for confidence intervals.")
    ] = 0,
    further: Annotated[
        bool, typer.Option("--further", help="Further numbers: TPR at 5% FPR, AUPR-in, AUTC, of images, and others.")
    ] = False,
    components: Annotated[
        str | None,
        typer.Option(
            help="Metrics of connected regions, too; the smallest that count are those of anomaly, obstacle or issu, "
            "by default those of the dataset's own benchmark.",
            callback=_not_a_folder,
        ),
    ] = None,
    instances: Annotated[
        bool, typer.Option("--instances", help="Instance AP and AP50 of connected regions, too, as OoDIS.")
    ] = False,
    instance_labels: Annotated[
        Path | None, typer.Option(help="Folder of NAME_instanceIds.png, which tell objects apart, for --instances.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Of every score, for --components and --instances; by default that of its best F1."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Compute the metrics of a run again, from its files alone; with options, under further conventions."""
    from oodray.analysis.components import AUTO, evaluate_components, track_of
    from oodray.analysis.evaluation import evaluate_run
    from oodray.analysis.files import CountedFiles
    from oodray.analysis.instances import evaluate_instances, instance_labels_of
    from oodray.analysis.mapped_run import MappedRun
    from oodray.api.run import conventions
    from oodray.job.imported_maps import imported_maps
    from oodray.metrics.components import limits_named
    from oodray.report.components import components_tables
    from oodray.report.instances import instances_table
    from oodray.results.folder import ResultsFolder

    if threshold is not None and components is None and not instances:
        raise ConfigError("--threshold belongs to --components and --instances: pass one of them, too")
    if instance_labels is not None and not instances:
        raise ConfigError("--instance-labels belongs to --instances: pass --instances, too")
    rules = {"pooling": pooling, "ap_rule": ap_rule, "fpr_rule": fpr_rule, "tpr": tpr, "lacking": lacking}
    asked = conventions(like, rules)
    folder = ResultsFolder(out)
    # What cannot be done is said before anything is computed.
    folder.read_run()
    limits = None if components is None else limits_named(track_of(folder) if components == AUTO else components)
    ids = instance_labels_of(folder, instance_labels) if instances else None
    read_map = imported_maps(folder) if limits is not None or instances else None
    files = CountedFiles.of(folder)
    on_ray = _is_ray_worth_it()
    evaluation = evaluate_run(folder, asked, bootstrap, further=further, on_ray=on_ray, files=files)
    report, found = None, None
    if limits is not None or ids is not None:
        run = MappedRun.of(folder, threshold, read_map, files)
        report = None if limits is None else evaluate_components(run, limits, on_ray=on_ray)
        found = None if ids is None else evaluate_instances(run, ids, on_ray=on_ray)
    if as_json:
        print_json(_as_json(folder, evaluation, report, found))
        return
    print_evaluation(evaluation, folder.path, files)
    if report is not None and limits is not None:
        for table in components_tables(report, limits):
            console().print(table)
        note(console(), f"regions in {folder.components}")
    if found is not None:
        console().print(instances_table(found))
        note(console(), f"instances in {folder.instances}")


def _as_json(
    folder: ResultsFolder, evaluation: Evaluation, report: Report | None, found: InstanceReport | None
) -> dict[str, Any]:
    """What the tables say, as plain values."""
    from dataclasses import asdict

    from oodray.analysis.components import summary_table
    from oodray.analysis.evaluation import metrics_table
    from oodray.analysis.instances import instance_table

    content = folder.read_run()
    return {
        "out": str(folder.path),
        "dataset": content["config"]["dataset"],
        "model": content.get("model"),
        "images": evaluation.images,
        "failed": evaluation.failed,
        "left": evaluation.left,
        "lacking": evaluation.lacking,
        "rule": None if evaluation.rule is None else asdict(evaluation.rule),
        "scores": metrics_table(folder, evaluation).to_pylist(),
        "class_names": list(evaluation.class_names),
        "id_quality": None if evaluation.id_quality is None else asdict(evaluation.id_quality),
        "mask": None if evaluation.rule is None else asdict(evaluation.mask),
        "components": None if report is None else summary_table(report).to_pylist(),
        "instances": None if found is None else instance_table(found).to_pylist(),
    }
