"""Work in threads that is never far ahead of who takes its results, so that memory does not grow with the work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

_Item = TypeVar("_Item")
_Done = TypeVar("_Done")


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
