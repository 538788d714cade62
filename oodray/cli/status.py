"""`oodray status`."""

from __future__ import annotations

from oodray.cli.terminal import Out
from oodray.report.terminal import console


def status(out: Out) -> None:
    """How far a run is: done, failed and left, images per second, the most frequent errors."""
    from oodray.report.tables import status_table
    from oodray.results.folder import ResultsFolder
    from oodray.results.status import read_status

    console().print(status_table(read_status(ResultsFolder(out))))
