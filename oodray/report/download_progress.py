"""What one sees while a file is downloaded: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from rich import progress as rich_progress
from rich.console import Console

if TYPE_CHECKING:
    from types import TracebackType

SECONDS_BETWEEN_LINES = 10
"""Where there is no terminal, a line is printed at most this often."""


class DownloadProgress:
    """Shows how much of a file is here, as a context manager; nothing until the first bytes are.

    Args:
        name: of the file.
        console: where to print, usually stderr.
        clock: seconds from any start.
    """

    def __init__(self, name: str, *, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._console = console
        self._clock = clock
        self._printed = -float("inf")
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.DownloadColumn(),
            rich_progress.TransferSpeedColumn(),
            rich_progress.TimeRemainingColumn(),
            console=console,
            disable=not console.is_interactive,
        )
        self._task: rich_progress.TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:  # one that never started prints a line end in old versions of rich
            self._bar.stop()

    def update(self, done: int, total: int | None) -> None:
        """Show that `done` bytes of `total` are here."""
        if self._console.is_interactive:
            if self._task is None:
                self._bar.start()
                self._task = self._bar.add_task(self._name, total=total)
            self._bar.update(self._task, completed=done, total=total)
        elif self._clock() - self._printed >= SECONDS_BETWEEN_LINES or done == total:
            self._printed = self._clock()
            of = "" if total is None else f" of {total / 1e6:.1f}"
            line = f"{self._name}: {done / 1e6:.1f}{of} MB"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
