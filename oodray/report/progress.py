"""What one sees while a run goes on: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from rich import progress as rich_progress
from rich.console import Console
from rich.table import Column
from rich.text import Text

from oodray.report.words import duration_text, one_line, rate_text

if TYPE_CHECKING:
    from types import TracebackType

    from oodray.job.units import UnitDone

SECONDS_BETWEEN_LINES = 10
"""Where there is no terminal, a line is printed at most this often."""

MOST_WARNINGS = 5
"""Errors and warnings of images that are printed; later ones are only counted."""


class Progress:
    """Shows how far a run is, as a context manager.

    Args:
        total: images of the run.
        done: images that earlier sessions finished.
        console: where to print, usually stderr.
        clock: seconds from any start.
    """

    def __init__(
        self, total: int, done: int = 0, *, console: Console, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total = total
        self._before = done
        self._console = console
        self._clock = clock
        self._ok = self._failed = self._doubtful = self._warned = 0
        self._started = self._updated = self._first = clock()
        self._in_first_unit, self._phase = 0, ""
        self._display: _LiveLine | _PlainLines = (
            _LiveLine(self, console) if console.is_interactive else _PlainLines(self, console, clock)
        )

    @property
    def total(self) -> int:
        """Images of the run."""
        return self._total

    @property
    def done(self) -> int:
        """Images that are finished, in all sessions, failed ones included."""
        return self._before + self._ok + self._failed

    def __enter__(self) -> Self:
        self._started = self._updated = self._clock()
        self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # With a terminal that has been closed, what is raised already says so.
        with contextlib.nullcontext() if error is None else contextlib.suppress(OSError):
            self._display.stop()

    def update(self, unit: UnitDone) -> None:
        """Count a finished unit, and warn of its errors."""
        self._ok += unit.ok
        self._failed += unit.failed
        self._updated = self._clock()
        if not self._in_first_unit:
            self._first, self._in_first_unit = self._updated, self._ok + self._failed
        self._doubtful += len(unit.warnings)
        for text in [*unit.errors, *unit.warnings][: MOST_WARNINGS - self._warned]:
            self._warned += 1
            _print_line(self._console, f"warning: {one_line(text)}", style="yellow")
        self._display.refresh()

    def phase_begins(self, name: str) -> None:
        """Name a phase that comes after the last image; see `oodray.phases.PhaseListener`."""
        self._phase = name

    def phase_ends(self, name: str, seconds: float) -> None:  # noqa: ARG002 - the log has them
        """See `oodray.phases.PhaseListener`."""
        self._phase = ""

    def note(self, line: str) -> None:
        """Print a line above the progress."""
        _print_line(self._console, line)

    def summary(self) -> str:
        """The state in words, as `120/600 images, 3 failed, 4.1 images/s, 1:57 left`.

        Speed and time left come from the images of this session, and from the moment at which the first ones were
        done: before it, Ray and the network were starting.
        """
        parts = [f"{self.done}/{self.total} images"]
        if self._failed:
            parts.append(f"{self._failed} failed")
        if self._doubtful:
            parts.append(f"{self._doubtful} with a warning")
        return ", ".join([*parts, *self._speed(), *([self._phase] if self._phase else [])])

    def _speed(self) -> list[str]:
        left = self.total - self.done
        if left and not self._in_first_unit:
            return [f"the workers start, {duration_text(self._clock() - self._started)}"]
        seconds = self._updated - self._first
        rate = (self._ok + self._failed - self._in_first_unit) / seconds if seconds > 0 else 0
        speed = [f"{rate_text(rate)} images/s"] if rate else []
        if not left:
            return [*speed, f"in {duration_text(self._updated - self._started)}"] if self._in_first_unit else []
        if not rate:
            return [f"the first after {duration_text(self._first - self._started)}"]
        # Between two units the time left runs down instead of standing still.
        seconds_left = left / rate - (self._clock() - self._updated)
        return [*speed, f"{duration_text(max(0, seconds_left))} left"]


class _LiveLine:
    """One line that is redrawn in place."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress = progress
        self._live = rich_progress.Progress(
            rich_progress.BarColumn(bar_width=30),
            _SummaryColumn(progress),
            console=console,
            refresh_per_second=4,
        )
        self._task = self._live.add_task("", total=progress.total, completed=progress.done)

    def start(self) -> None:
        self._live.start()

    def refresh(self) -> None:
        self._live.update(self._task, completed=self._progress.done)

    def stop(self) -> None:
        self._live.stop()


class _SummaryColumn(rich_progress.ProgressColumn):
    """The summary, anew at every redraw, so that the time left runs down."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self._progress = progress

    def render(self, task: rich_progress.Task) -> Text:  # noqa: ARG002 - the interface is rich's
        return Text(self._progress.summary())


class _PlainLines:
    """A line now and then, and a last one."""

    def __init__(self, progress: Progress, console: Console, clock: Callable[[], float]) -> None:
        self._progress = progress
        self._console = console
        self._clock = clock
        self._printed: float | None = None
        self._last = ""

    def start(self) -> None:
        """Nothing is known yet."""

    def refresh(self) -> None:
        now = self._clock()
        if self._printed is None or now - self._printed >= SECONDS_BETWEEN_LINES:
            self._printed = now
            self._print()

    def stop(self) -> None:
        self._print()

    def _print(self) -> None:
        line = self._progress.summary()
        if line != self._last:
            self._last = line
            _print_line(self._console, line)


def _print_line(console: Console, line: str, style: str = "") -> None:
    # A Text is printed as it is, brackets too. A style of `print` itself would colour the live line with it.
    console.print(Text(line, style=style), soft_wrap=True)
