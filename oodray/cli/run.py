"""`oodray run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from oodray.cli.terminal import console, print_evaluation


def run(
    dataset: Annotated[str | None, typer.Option(help="Name of the dataset, see `oodray datasets`.")] = None,
    root: Annotated[str | None, typer.Option(help="The dataset's own folder.")] = None,
    out: Annotated[Path | None, typer.Option(help="Results folder; by default runs/DATASET.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; options win over it.")] = None,
    model: Annotated[
        str | None, typer.Option(help="A model's name, an mmsegmentation config (.py), or package.module:factory.")
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Weights for --model.")] = None,
    k: Annotated[int | None, typer.Option("--k", help="Clusters per image.")] = None,
    tau: Annotated[float | None, typer.Option(help="Pixels with a smaller max-logit are unsure.")] = None,
    ood_ratio: Annotated[
        float | None, typer.Option(help="T: clusters with a larger share of unsure pixels are OoD.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the K-Means.")] = None,
    normalize_features: Annotated[
        bool | None, typer.Option("--normalize-features/--raw-features", help="L2-normalise before clustering.")
    ] = None,
    kmeans_backend: Annotated[str | None, typer.Option(help="auto, torch, cuml or sklearn.")] = None,
    n_init: Annotated[int | None, typer.Option(help="Restarts of the K-Means.")] = None,
    scores: Annotated[str | None, typer.Option(help="Scores to evaluate, comma-separated; by default all.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images of one size that the network sees at once.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of each worker.")] = None,
    workers: Annotated[int | None, typer.Option(help="Workers with a network; by default one per GPU.")] = None,
    gpus_per_worker: Annotated[float | None, typer.Option(help="GPUs of each worker; 0 is the CPU.")] = None,
    ray_address: Annotated[str | None, typer.Option(help="Ray cluster to join; RAY_ADDRESS does the same.")] = None,
) -> None:
    """Segment and cluster every image of a dataset, write masks and tallies, print AP and FPR95."""
    options: dict[str, Any] = {name: value for name, value in locals().items() if name not in ("out", "config")}
    if scores is not None:
        options["scores"] = tuple(name.strip() for name in scores.split(","))

    from oodray.config import read_settings
    from oodray.job.plan import make_plan
    from oodray.job.results import ResultsFolder
    from oodray.job.run import images_done, start_or_continue
    from oodray.job.run import run as run_plan
    from oodray.report.progress import Progress

    errors = console(stderr=True)
    named = dataset or (read_settings(config).get("dataset") if config is not None else None)
    folder = ResultsFolder(out or Path("runs") / str(named))
    plan = make_plan(options, config, folder)
    for warning in plan.warnings:
        errors.print(f"warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    start_or_continue(plan, folder)
    with Progress(total=plan.manifest.num_rows, done=images_done(plan, folder), console=errors) as progress:
        evaluation = run_plan(plan, folder, progress.update)
    print_evaluation(evaluation, folder.path)
