"""`oodray report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oodray.cli.terminal import Out
from oodray.report.terminal import console, note


def report(
    out: Out,
    page: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.html", help="The page; by default OUT/report.html.")
    ] = None,
    images: Annotated[
        int, typer.Option(min=1, help="Images to draw: of more, those with the highest scores and the worst errors.")
    ] = 600,
    bootstrap: Annotated[
        int | None,
        typer.Option(
            min=0, help="Draw the images anew so many times, for intervals; by default 200, up to 1000 images."
        ),
    ] = None,
    recompute: Annotated[
        bool,
        typer.Option("--recompute", help="Run the network again on the images that are drawn, for maps of all scores."),
    ] = False,
) -> None:
    """Write one HTML page with everything that a run found; it needs no network and no server."""
    from oodray.api.report import write_run_report

    terminal = console(stderr=True)
    written = write_run_report(out, page, images=images, bootstrap=bootstrap, recompute=recompute, terminal=terminal)
    typer.echo(written.page)
    if written.pictures is not None:
        note(terminal, f"pictures in {written.pictures}: keep the folder beside the page")
