"""`oodray fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from oodray.cli.options import with_settings
from oodray.report.terminal import console, note
from oodray.settings import Settings


@with_settings
def fit(
    settings: Settings,
    *,
    out: Annotated[Path, typer.Option(help="Folder of the fit.")],
    scores: Annotated[
        str, typer.Option(help="Scores to fit, comma-separated; by default all that the network allows.")
    ] = "",
    labels: Annotated[
        Literal["predicted", "true"], typer.Option(help="Whose classes the statistics go by.")
    ] = "predicted",
    bank: Annotated[int, typer.Option(min=1, help="Feature vectors to keep; all where images have fewer.")] = 100_000,
    images: Annotated[int | None, typer.Option(min=1, help="Images to take, drawn at random; by default all.")] = None,
    bank_dims: Annotated[
        int | None,
        typer.Option(min=1, help="Principal components to search neighbours in; by default all dimensions."),
    ] = None,
    bank_coreset: Annotated[
        int | None,
        typer.Option(min=1, help="Vectors that cover the bank, to search neighbours among; by default all of it."),
    ] = None,
    quantile: Annotated[
        float, typer.Option(min=0, max=0.999, help="Share of in-distribution pixels that may be unsure, for tau.")
    ] = 0.05,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; options win over it.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Remove the fit that the folder holds, and start anew.")] = False,
) -> None:
    """Gather statistics of in-distribution images, for scores that need them, and tau."""
    from oodray.analysis.calibration import Calibration, FalseAlarms
    from oodray.api.fit import start
    from oodray.report.tables import calibration_tables
    from oodray.scores.fitted.settings import FitSettings

    found = start(
        settings,
        out=out,
        scores=scores or (),
        chosen=FitSettings(labels=labels, bank=bank, bank_dims=bank_dims, bank_coreset=bank_coreset),
        images=images,
        quantile=quantile,
        config=config,
        overwrite=overwrite,
        own_process=True,
    )
    terminal = console()
    of_tau = found.content["calibration"]
    alarms = [FalseAlarms(**row) for row in of_tau["false_alarms"]]
    for table in calibration_tables(Calibration(**{**of_tau, "false_alarms": alarms})):
        terminal.print(table)
    note(terminal, f"{found.content['vectors']:,} feature vectors; scores: {', '.join(found.names)}")
    note(terminal, f"fit in {found.folder.path}")
