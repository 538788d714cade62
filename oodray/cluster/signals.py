"""Signals that ask a command to stop: Ctrl-C, the SIGTERM of a machine that will be taken away, a terminal that closes.

All of them raise KeyboardInterrupt, so that whatever was begun is left in order: the lease given back, Ray shut down.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Stop:
    """What asked a command to stop last, `SIGINT` before anything did."""

    number: int = signal.SIGINT


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """For the length of the block, SIGTERM and SIGHUP do what Ctrl-C does; what is ignored, as with nohup, stays so."""
    stop = Stop()

    def interrupt(number: int, _: FrameType | None) -> None:
        stop.number = number
        raise KeyboardInterrupt

    with handlers_restored():
        if _in_main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, interrupt)
        yield stop


@contextlib.contextmanager
def handlers_restored() -> Iterator[None]:
    """Whatever the block does to the signals that stop a command is undone at its end: Ray takes SIGTERM for itself."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    try:
        yield
    finally:
        if _in_main_thread():
            for number, handler in before.items():
                if handler is not None:  # one that was not set from Python, and cannot be
                    signal.signal(number, handler)


@contextlib.contextmanager
def noted() -> Iterator[threading.Event]:
    """An event that is set on a signal that stops: a KeyboardInterrupt inside a callback of Ray's gets lost."""
    stopped = threading.Event()
    with handlers_restored():
        if _in_main_thread():
            for number in STOPPING:
                _note(number, stopped)
        yield stopped


def _note(number: signal.Signals, stopped: threading.Event) -> None:
    handler = signal.getsignal(number)
    if not callable(handler):
        return

    def note(received: int, frame: FrameType | None) -> None:
        stopped.set()
        handler(received, frame)

    signal.signal(number, note)


def _in_main_thread() -> bool:
    """Python lets no other thread set a handler."""
    return threading.current_thread() is threading.main_thread()
