"""What one sees while a run starts: the phases that pass, with their seconds."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from oodray.report.terminal import note

if TYPE_CHECKING:
    from types import TracebackType

TOLD_SECONDS = 0.5
"""Shorter phases are not told."""


class Phases:
    """Shows phases, as a context manager: a line that is redrawn in a terminal, a line for each phase elsewhere.

    Args:
        console: where to print, usually stderr.
        clock: seconds from any start.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._began: dict[str, float] = {}
        self._ends = contextlib.ExitStack()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        self._console = self._ends.enter_context(_of_its_own(self._console))
        if self._console.is_interactive and not self._console.quiet:
            self._live = Live(
                console=self._console,
                get_renderable=self._line,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.nullcontext() if error is None else contextlib.suppress(OSError), self._ends:
            if self._live is not None:
                self._live.stop()

    def note(self, line: str) -> None:
        """Print a line above that of the phases."""
        note(self._console, line)

    def phase_begins(self, name: str) -> None:
        """See `oodray.phases.PhaseListener`."""
        self._began[name] = self._clock()

    def phase_ends(self, name: str, seconds: float) -> None:
        """See `oodray.phases.PhaseListener`."""
        self._began.pop(name, None)
        if seconds >= TOLD_SECONDS:
            self.note(f"{name}: {seconds:.1f} s")

    def _line(self) -> Text:
        now, began = self._clock(), dict(self._began)  # another thread may begin one
        return Text(", ".join(f"{name} ... {now - since:.0f} s" for name, since in began.items()), style="dim")


@contextlib.contextmanager
def _of_its_own(console: Console) -> Iterator[Console]:
    """A console with a file of its own, as standard error leads elsewhere while Ray starts."""
    try:
        file = os.fdopen(os.dup(console.file.fileno()), "w", encoding=console.encoding)
    except (OSError, ValueError):  # no file of the system, or a closed one
        yield console
        return
    with file:
        yield Console(file=file, quiet=console.quiet)
