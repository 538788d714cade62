"""`oodray export`."""

from __future__ import annotations

from typing import Annotated

import typer

from oodray.cli.terminal import Out
from oodray.report.terminal import console, note


def export(
    out: Out,
    to: Annotated[str, typer.Option(metavar="DIR", help="The folder to write to; none of its other files is changed.")],
    format: Annotated[
        str,
        typer.Option(
            help="png, coco, yolo-seg, labelme, geojson, fiftyone, smiyc, fishyscapes, ade-ood or hf: docs/report.md."
        ),
    ],
    score: Annotated[
        str, typer.Option(help="The score whose map is written, in formats that have one; ratio is always stored.")
    ] = "ratio",
) -> None:
    """Write masks, regions and scores as files of other programs. The same command continues."""
    from oodray.export.writing import export_run
    from oodray.results.folder import ResultsFolder

    done = export_run(ResultsFolder(out), to, format, score=score)
    there = done.images - done.written
    rest = f", {there} were there" if there else ""
    note(console(), f"{done.written} images, {done.files} files in {to}{rest}")
