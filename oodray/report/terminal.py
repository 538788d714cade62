"""Consoles that take tables and progress, and the lines beside the results: notes and warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console(*, stderr: bool = False) -> Console:
    """A terminal, or a file, that takes rich's tables."""
    from rich.console import Console

    return Console(stderr=stderr)


def silent_console() -> Console:
    """One that prints nothing, and leaves what others print alone."""
    from rich.console import Console

    # A live line would catch the prints of the caller's own program.
    return Console(stderr=True, quiet=True, force_interactive=False)


def note(terminal: Console, line: str) -> None:
    """A line as it is."""
    terminal.print(line, markup=False, highlight=False, soft_wrap=True)


def warn(terminal: Console, text: str) -> None:
    """A line that stands out."""
    terminal.print(f"warning: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)
