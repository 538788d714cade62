"""Work in threads.

`in_threads` takes all items. `map_ahead` stays close to who takes the results, so that memory does not grow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from contextvars import copy_context
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

_Item = TypeVar("_Item")
_Done = TypeVar("_Done")


def in_threads(
    work: Callable[[_Item], _Done], items: Sequence[_Item], threads: int, *, daemon: bool = False
) -> list[_Done]:
    """Does the work on all items, and returns the results in their order.

    At most `threads` items are worked on at a time. With one thread, or one item, the calling thread does the work.
    After an error, or a signal, no further item is begun.

    Args:
        work: what to do.
        items: all of them.
        threads: the most of them.
        daemon: whether a process may end before an item is done that was begun, as where work waits for a network.

    >>> in_threads(str.upper, "abc", threads=2)
    ['A', 'B', 'C']
    """
    if threads < 2 or len(items) < 2:
        return [work(item) for item in items]
    results: list[Future[_Done]] = [Future() for _ in items]
    waiting = deque(zip(results, items, strict=True))
    done: SimpleQueue[Future[_Done]] = SimpleQueue()

    def take() -> None:
        with suppress(IndexError):  # none is left
            while True:
                result, item = waiting.popleft()
                try:
                    result.set_result(work(item))
                except BaseException as error:  # whatever it is, it belongs to who waits
                    result.set_exception(error)
                    waiting.clear()
                done.put(result)

    for _ in range(min(threads, len(items))):
        # What is noticed meanwhile reaches whoever listens, see `oodray.datasets.remarks`.
        Thread(target=copy_context().run, args=(take,), daemon=daemon).start()
    try:
        for _ in items:
            # `Future.result` waits in Python: a signal may find its lock released there, and RuntimeError is raised.
            done.get().result()
    finally:
        waiting.clear()
    return [result.result() for result in results]


def map_ahead(threads: Executor, work: Callable[[_Item], _Done], items: Iterable[_Item], ahead: int) -> Iterator[_Done]:
    """The results of work on items, in their order, as of `threads.map`, which takes all items at once.

    Here no more than `ahead` items are taken beyond the one whose result is waited for.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(2) as threads:
    ...     print(*map_ahead(threads, str.upper, "abc", ahead=1))
    A B C
    """
    waiting: deque[Future[_Done]] = deque()
    for item in items:
        waiting.append(threads.submit(work, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
