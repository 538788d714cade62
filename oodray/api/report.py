"""The report of a run, with maps that its network computes again where they are asked for."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from oodray.api.maps import kept_maps, recomputed_maps
from oodray.report.page.document import Written, write_report
from oodray.report.page.selection import MOST_DRAWN
from oodray.report.terminal import note, silent_console
from oodray.results.folder import ResultsFolder
from oodray.storage.place import Place, storage_path

if TYPE_CHECKING:
    from rich.console import Console

_SECONDS_BETWEEN_LINES = 10


def write_run_report(
    out: str | Place,
    page: str | Path | None = None,
    *,
    images: int = MOST_DRAWN,
    bootstrap: int | None = None,
    recompute: bool = False,
    terminal: Console | None = None,
) -> Written:
    """Write the HTML page of a run, finished or not.

    Args:
        out: the results folder.
        page: the HTML file; by default `report.html` in the results folder.
        images: how many to draw.
        bootstrap: resamples for the intervals; None decides by the number of images.
        recompute: run the network again on the images that are drawn, for the maps of all scores and of the classes.
        terminal: gets lines of progress.

    Raises:
        ResultsError: there are no results, or `recompute` is asked of imported scores.
        ModelError: the network to recompute with is not there.
        RunError: the page cannot be written.
    """
    folder = ResultsFolder(out)
    folder.read_run()
    target = folder.report if page is None else storage_path(page)
    lines = _Lines(terminal or silent_console())
    maps = recomputed_maps(folder) if recompute else kept_maps(folder)
    return write_report(folder, target, most=images, resamples=bootstrap, maps=maps, on_image=lines.update)


class _Lines:
    """A line every so many seconds."""

    def __init__(self, terminal: Console) -> None:
        self._terminal = terminal
        self._last = time.monotonic()

    def update(self, done: int, of: int) -> None:
        if time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            note(self._terminal, f"{done}/{of} images drawn")
