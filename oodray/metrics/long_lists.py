"""Long lists of numbers, cut into ranges that are sorted one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 2**20
"""Entries of long lists that are sorted at once."""


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
