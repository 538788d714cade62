"""`oodray calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from oodray.cli import options as shared
from oodray.cli.terminal import console, note, stream_plan


def calibrate(
    dataset: shared.Dataset = None,
    root: shared.Root = None,
    allow_outside_root: shared.AllowOutsideRoot = None,
    out: Annotated[Path | None, typer.Option(help="Results folder; by default runs/calibrate-DATASET.")] = None,
    model: shared.Model = None,
    checkpoint: shared.Checkpoint = None,
    feature_stage: shared.FeatureStage = None,
    features: shared.Features = None,
    quantile: Annotated[
        float, typer.Option(min=0, max=0.999, help="Share of in-distribution pixels that may be unsure.")
    ] = 0.05,
    config_out: Annotated[
        Path | None, typer.Option(help="YAML file to write model and tau to, for `oodray run --config`.")
    ] = None,
    dtype: shared.DType = None,
    k: shared.K = None,
    seed: shared.Seed = None,
    normalize_features: shared.NormalizeFeatures = None,
    kmeans_backend: shared.KmeansBackend = None,
    n_init: shared.NInit = None,
    batch_size: shared.BatchSize = None,
    threads: shared.Threads = None,
    workers: shared.Workers = None,
    gpus_per_worker: shared.GpusPerWorker = None,
    wait: shared.Wait = None,
    ray_address: shared.RayAddress = None,
) -> None:
    """Estimate tau on in-distribution images, and tell the false alarms of each T there."""
    options: dict[str, Any] = {
        name: value for name, value in locals().items() if name not in ("out", "quantile", "config_out")
    }
    options |= shared.worker_settings(options.pop("workers"))

    from oodray.analysis.calibration import PROVISIONAL_TAU, check_in_distribution, write_config
    from oodray.analysis.calibration import calibrate as calibrate_run
    from oodray.datasets.layouts import get_layout
    from oodray.errors import ConfigError
    from oodray.job.plan import make_plan
    from oodray.report.tables import calibration_tables
    from oodray.results.folder import ResultsFolder

    if dataset is None:
        raise ConfigError("no dataset given: pass --dataset NAME, see `oodray datasets`")
    check_in_distribution(get_layout(dataset))
    folder = ResultsFolder(out or Path("runs") / f"calibrate-{dataset}")
    # No pixel scores: the clusters' tallies answer everything.
    plan = make_plan(options | {"tau": PROVISIONAL_TAU, "scores": ("ratio",)}, None, folder, on_wait=note)
    stream_plan(plan, folder)
    calibration = calibrate_run(folder, quantile)
    terminal = console()
    for table in calibration_tables(calibration):
        terminal.print(table)
    if config_out is not None:
        write_config(
            config_out,
            calibration,
            settings={"model": plan.config.model, "checkpoint": plan.config.checkpoint},
            model_sha256=plan.model_sha256,
            dataset=plan.layout.name,
        )
        terminal.print(f"config in {config_out}", markup=False, highlight=False, soft_wrap=True)
