"""`oodray status`."""

from __future__ import annotations

from typing import Annotated

import typer

from oodray.cli.terminal import Out, print_json
from oodray.report.terminal import console


def status(
    out: Out, as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False
) -> None:
    """How far a run is: done, failed and left, images per second, the most frequent errors."""
    from oodray.report.tables import status_table
    from oodray.results.folder import ResultsFolder
    from oodray.results.status import read_status

    found = read_status(ResultsFolder(out))
    if as_json:
        print_json(found.as_plain())
    else:
        console().print(status_table(found))
