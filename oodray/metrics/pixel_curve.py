"""The curve of sorted lists of keys, block by block: nothing as long as a list is made on the way but the curve."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oodray.metrics.curve import Curve
from oodray.metrics.long_lists import blocks


def curve_of_pixels(keys: NDArray[np.uint32], first: NDArray[np.int64], ood: int, ind: NDArray[np.uint32]) -> Curve:
    """The curve of OoD and in-distribution pixels; its `rows` count the keys of OoD pixels alone.

    Args:
        keys: `(g,)`, the distinct keys of OoD pixels, ascending.
        first: `(g,)`, where each of them comes first in the ascending list of the keys of all OoD pixels.
        ood: how many OoD pixels there are.
        ind: the keys of all in-distribution pixels, ascending.

    >>> keys, ind = np.array([3, 9], np.uint32), np.array([1, 3, 3, 5], np.uint32)
    >>> curve = curve_of_pixels(keys, np.array([0, 2]), 3, ind)
    >>> curve.found.tolist(), curve.alarms.tolist(), curve.alarms_before.tolist()
    ([1, 3], [0, 3], [0, 1])
    """
    count = len(keys)
    found = ood - first[::-1]
    alarms, before = np.empty_like(found), np.empty_like(found)
    end = 0
    # The keys ascend, and a curve begins with the highest.
    for block in blocks(count):
        wanted = keys[block]
        start, end = end, int(np.searchsorted(ind, wanted[-1], side="right"))
        among = ind[start:end]  # those of `ind` that lie above the last block, up to the end of this one
        below = np.searchsorted(among, wanted)
        to = slice(count - block.stop, count - block.start)
        alarms[to] = len(ind) - start - below[::-1]
        if len(among):
            tied = np.flatnonzero(among[below.clip(max=len(among) - 1)] == wanted)
            below[tied] = np.searchsorted(among, wanted[tied], side="right")
        before[to] = len(ind) - start - below[::-1]
    return Curve(found, alarms, before, range(count), len(ind), _kept(found, alarms, before))


def _kept(found: NDArray[np.int64], alarms: NDArray[np.int64], before: NDArray[np.int64]) -> NDArray[np.bool_]:
    """See `Curve`. The next score is that of the next OoD pixels where no in-distribution pixel lies between."""
    kept = np.ones(len(found), np.bool_)
    for block in blocks(len(found) - 1):
        following = slice(block.start + 1, block.stop + 1)
        ood = np.diff(found[block.start : block.stop + 1], prepend=found[block.start - 1] if block.start else 0)
        ind = alarms[block.start : block.stop + 1] - before[block.start : block.stop + 1]
        kept[block] = (before[following] != alarms[block]) | (ood[1:] != ood[:-1]) | (ind[1:] != ind[:-1])
    kept[:1] |= before[:1] == 0
    return kept
