"""`oodray calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oodray.cli.options import with_settings
from oodray.report.terminal import console, note
from oodray.settings import Settings


@with_settings
def calibrate(
    settings: Settings,
    *,
    out: Annotated[Path | None, typer.Option(help="Results folder; by default runs/calibrate-DATASET-ROOT.")] = None,
    quantile: Annotated[
        float, typer.Option(min=0, max=0.999, help="Share of in-distribution pixels that may be unsure.")
    ] = 0.05,
    config_out: Annotated[
        Path | None, typer.Option(help="YAML file to write model and tau to, for `oodray run --config`.")
    ] = None,
) -> None:
    """Estimate tau on in-distribution images, and tell the false alarms of each T there."""
    from oodray.api.calibrate import calibrate as estimate
    from oodray.report.tables import calibration_tables

    calibration = estimate(settings, quantile=quantile, out=out, config_out=config_out)
    terminal = console()
    for table in calibration_tables(calibration):
        terminal.print(table)
    if config_out is not None:
        note(terminal, f"config in {config_out}")
        note(terminal, f"next: oodray run --config {config_out} --dataset NAME --root DIR")
    else:
        networks = " ".join(f"--model {model}" for model in settings.get("model", ["MODEL"]))
        note(terminal, f"next: oodray run --dataset NAME --root DIR {networks} --tau {calibration.tau}")
