"""Phases of a command: what takes seconds says so here, and whoever listens shows it, or notes it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Protocol


class PhaseListener(Protocol):
    """Hears of phases, which may lie inside of each other, or beside each other in several threads."""

    def phase_begins(self, name: str) -> None:
        """A phase begins."""

    def phase_ends(self, name: str, seconds: float) -> None:
        """It ends, or is left by an error."""


_LISTENERS: ContextVar[tuple[PhaseListener, ...]] = ContextVar("oodray_phases", default=())


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """The time inside of the block is a phase with a name, such as `"starting Ray"`."""
    listeners, since = _LISTENERS.get(), time.monotonic()
    for listener in listeners:
        listener.phase_begins(name)
    try:
        yield
    finally:
        seconds = time.monotonic() - since
        for listener in listeners:
            listener.phase_ends(name, seconds)


@contextlib.contextmanager
def heard_by(*listeners: PhaseListener) -> Iterator[None]:
    """Have listeners hear of the phases of this thread, and of threads that get a copy of its context.

    >>> class Print:
    ...     def phase_begins(self, name):
    ...         print(name)
    ...
    ...     def phase_ends(self, name, seconds):
    ...         print("done:", name)
    >>> with heard_by(Print()), phase("starting Ray"):
    ...     pass
    starting Ray
    done: starting Ray
    """
    token = _LISTENERS.set(listeners)
    try:
        yield
    finally:
        _LISTENERS.reset(token)
