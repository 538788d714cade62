"""Work in threads: on all items, or never far ahead of who takes the results, where memory must not grow."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

_Item = TypeVar("_Item")
_Done = TypeVar("_Done")


def in_threads(work: Callable[[_Item], _Done], items: Sequence[_Item], threads: int) -> list[_Done]:
    """The results of work on items, in their order, of so many at a time; this thread does it where that is one.

    >>> in_threads(str.upper, "abc", threads=2)
    ['A', 'B', 'C']
    """
    if threads < 2 or len(items) < 2:
        return [work(item) for item in items]
    # What is noticed meanwhile reaches whoever listens, see `oodray.datasets.remarks`.
    context = copy_context()
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda item: context.copy().run(work, item), items))


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
