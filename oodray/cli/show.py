"""`oodray show`."""

from __future__ import annotations

from typing import Annotated

import typer

from oodray.cli.terminal import Out


def show(
    out: Out,
    image_id: Annotated[str | None, typer.Argument(metavar="[IMAGE_ID]", help="Without it: the extremes.")] = None,
) -> None:
    """Draw image, label, clusters, ratio and mask side by side, as PNG files under OUT/pictures."""
    from oodray.report.pictures import write_pictures
    from oodray.results.folder import ResultsFolder

    for path in write_pictures(ResultsFolder(out), image_id):
        typer.echo(path)
