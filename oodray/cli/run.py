"""`oodray run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from oodray.cli import options as shared
from oodray.cli.terminal import note, print_evaluation, stream_plan

NOT_SETTINGS = ("out", "config", "retry_errors", "overwrite")


def run(
    dataset: shared.Dataset = None,
    root: shared.Root = None,
    allow_outside_root: shared.AllowOutsideRoot = None,
    out: Annotated[Path | None, typer.Option(help="Results folder; by default runs/DATASET.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; options win over it.")] = None,
    model: shared.Model = None,
    checkpoint: shared.Checkpoint = None,
    feature_stage: shared.FeatureStage = None,
    features: shared.Features = None,
    dtype: shared.DType = None,
    k: shared.K = None,
    tau: Annotated[float | None, typer.Option(help="Pixels with a smaller max-logit are unsure.")] = None,
    ood_ratio: Annotated[
        float | None, typer.Option(help="T: clusters with a larger share of unsure pixels are OoD.")
    ] = None,
    seed: shared.Seed = None,
    normalize_features: shared.NormalizeFeatures = None,
    kmeans_backend: shared.KmeansBackend = None,
    n_init: shared.NInit = None,
    scores: Annotated[str | None, typer.Option(help="Scores to evaluate, comma-separated; by default all.")] = None,
    sweep_k: Annotated[
        str | None, typer.Option(help="Values of K to cluster for `oodray sweep`: 3:10, or 3,5,8; --k gives the mask.")
    ] = None,
    confidence_bits: Annotated[
        int | None, typer.Option(help="12 makes the tallies for sweeps ten times smaller, and no longer exact.")
    ] = None,
    batch_size: shared.BatchSize = None,
    threads: shared.Threads = None,
    workers: shared.Workers = None,
    gpus_per_worker: shared.GpusPerWorker = None,
    wait: shared.Wait = None,
    image_timeout: Annotated[
        float | None, typer.Option(help="Seconds an image may take before it is given up; 0 is for ever.")
    ] = None,
    ray_address: shared.RayAddress = None,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Try images with an error again.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew where OUT holds a run.")] = False,
) -> None:
    """Segment and cluster every image of a dataset, write masks and tallies, print AP and FPR95."""
    options: dict[str, Any] = {name: value for name, value in locals().items() if name not in NOT_SETTINGS}
    if scores is not None:
        options["scores"] = tuple(name.strip() for name in scores.split(","))

    options |= shared.worker_settings(options.pop("workers"))

    from oodray.config import read_settings
    from oodray.job.plan import make_plan
    from oodray.ranges import whole_range
    from oodray.results.folder import ResultsFolder

    if sweep_k is not None:
        options["sweep_k"] = whole_range(sweep_k)
    named = dataset or (read_settings(config).get("dataset") if config is not None else None)
    folder = ResultsFolder(out or Path("runs") / str(named))
    plan = make_plan(options, config, folder, on_wait=note)
    print_evaluation(stream_plan(plan, folder, retry_errors=retry_errors, overwrite=overwrite), folder.path)
