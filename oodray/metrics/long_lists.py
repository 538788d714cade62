"""Long lists of numbers: cut into ranges that are sorted one at a time, and into blocks that a cache holds.

New memory costs a process more than most of what is done with it, so that nothing as long as a list is made on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 2**20
"""Entries of long lists that are sorted at once."""

_BLOCK = 2**14
_IN_CACHE = 2**18


def blocks(count: int) -> Iterator[slice]:
    """The parts of a list of so many entries, one after the other.

    >>> [*blocks(20_000)]
    [slice(0, 16384, None), slice(16384, 20000, None)]
    """
    return (slice(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK))


def sorted_together(ascending: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The entries of ascending lists as one.

    >>> sorted_together([np.array([1, 3]), np.array([2, 3])]).tolist()
    [1, 2, 3, 3]
    """
    whole = np.empty(sum(map(len, ascending)), np.result_type(*ascending))
    edges = range_edges(ascending, _IN_CACHE)
    places = [[0, *np.searchsorted(values, edges).tolist(), len(values)] for values in ascending]
    start = 0
    for index in range(len(edges) + 1):
        parts = [values[place[index] : place[index + 1]] for values, place in zip(ascending, places, strict=True)]
        end = start + sum(map(len, parts))
        np.concatenate(parts, out=whole[start:end])
        whole[start:end].sort()
        start = end
    return whole


def range_edges(ascending: Sequence[NDArray[Any]], at_once: int = AT_ONCE) -> list[Any]:
    """Values that cut ascending lists into ranges of about `at_once` entries of all together; none where they are few.

    >>> range_edges([np.arange(8), np.arange(4, 12)], at_once=4)
    [4, 6, 8]
    """
    ranges = sum(map(len, ascending)) // at_once
    if ranges < 2:
        return []
    step = max(1, at_once // 64)
    drawn = np.sort(np.concatenate([values[::step] for values in ascending]))
    return sorted(set(drawn[np.arange(1, ranges) * len(drawn) // ranges].tolist()))
