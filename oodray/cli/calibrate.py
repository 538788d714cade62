"""`oodray calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oodray.cli.options import with_settings
from oodray.cli.terminal import console, note, stream_plan
from oodray.settings import Settings


@with_settings
def calibrate(
    settings: Settings,
    *,
    out: Annotated[Path | None, typer.Option(help="Results folder; by default runs/calibrate-DATASET.")] = None,
    quantile: Annotated[
        float, typer.Option(min=0, max=0.999, help="Share of in-distribution pixels that may be unsure.")
    ] = 0.05,
    config_out: Annotated[
        Path | None, typer.Option(help="YAML file to write model and tau to, for `oodray run --config`.")
    ] = None,
) -> None:
    """Estimate tau on in-distribution images, and tell the false alarms of each T there."""
    from oodray.analysis.calibration import PROVISIONAL_TAU, check_in_distribution, write_config
    from oodray.analysis.calibration import calibrate as calibrate_run
    from oodray.datasets.layouts import get_layout
    from oodray.errors import ConfigError
    from oodray.job.plan import make_plan
    from oodray.report.tables import calibration_tables
    from oodray.results.folder import ResultsFolder

    dataset = settings.get("dataset")
    if dataset is None:
        raise ConfigError("no dataset given: pass --dataset NAME, see `oodray datasets`")
    check_in_distribution(get_layout(dataset))
    folder = ResultsFolder(out or Path("runs") / f"calibrate-{dataset}")
    # No pixel scores: the clusters' tallies answer everything.
    plan = make_plan({**settings, "tau": PROVISIONAL_TAU, "scores": ("ratio",)}, None, folder, on_wait=note)
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
