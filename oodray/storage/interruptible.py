"""Calls into libraries that wait in C++: Ctrl-C and SIGTERM end the wait, and so does a limit."""

from __future__ import annotations

import errno
import math
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TypeVar

Result = TypeVar("Result")


class NoAnswerError(OSError):
    """A call took longer than it may."""


def interruptible(call: Callable[[], Result], seconds: float = math.inf) -> Result:
    """What a call gives; it is left behind in a thread of its own where it takes longer, or a signal comes.

    Raises:
        NoAnswerError: the call takes longer than `seconds`.

    >>> interruptible(lambda: 6 * 7)
    42
    """
    future: Future[Result] = Future()
    done: SimpleQueue[None] = SimpleQueue()
    # Not one of a pool: Python waits for those before it ends.
    threading.Thread(target=_resolve, args=(future, call, done), daemon=True, name="request").start()
    try:
        # Not `future.result`, which waits in Python: a signal may find its lock released, and RuntimeError is raised.
        done.get(timeout=None if math.isinf(seconds) else max(0.0, seconds))
    except Empty:
        raise NoAnswerError(errno.ETIMEDOUT, "no answer in time") from None
    return future.result()


def _resolve(future: Future[Result], call: Callable[[], Result], done: SimpleQueue[None]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # whatever it is, it belongs to who waits
        future.set_exception(error)
    done.put(None)
