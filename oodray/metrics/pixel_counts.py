"""Pixels by key of a score whose values mostly differ: sorted lists of keys, where `ScoreCounts` has a cell for each.

A map of float32 has nearly as many values as pixels. Counting pixels by value then takes 28 bytes for each, a list of
keys four; and lists of many images become one by sorting it. Everything that is measured is the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.metrics.curve import Curve
from oodray.metrics.frames import Frame
from oodray.metrics.long_lists import blocks, sorted_together
from oodray.metrics.pixel_curve import curve_of_pixels
from oodray.metrics.scales import Float32, Keys, Scale
from oodray.metrics.score_counts import ScoreCounts
from oodray.metrics.tally import IGNORE, IN_DISTRIBUTION, OOD, label_ranks

Keys32 = NDArray[np.uint32]
Cells32 = tuple[Keys32, NDArray[np.uint8], NDArray[np.int64]]

_PLACES = 2**19
"""More than a finite float16 can be."""


@dataclass(frozen=True, eq=False)
class PixelKeys:
    """The keys of pixels by label: ascending, each as often as pixels have it.

    Attributes:
        ood: `(n,)`, of OoD pixels.
        ind: `(n,)`, of in-distribution pixels.
        ignored: `(n,)`, of ignored pixels.
    """

    ood: Keys32
    ind: Keys32
    ignored: Keys32

    @classmethod
    def of(cls, keys: Keys32, labels: NDArray[np.uint8]) -> PixelKeys:
        """The keys of pixels, in arrays of one shape.

        Raises:
            ValueError: a label is unknown, or shapes differ.
        """
        if keys.shape != labels.shape:
            raise ValueError(f"keys of shape {keys.shape} do not match labels of shape {labels.shape}")
        found = [keys[labels == label] for label in (OOD, IN_DISTRIBUTION, IGNORE)]
        if sum(map(len, found)) < keys.size:
            unknown = np.setdiff1d(labels, (IN_DISTRIBUTION, OOD, IGNORE))
            raise ValueError(f"unknown labels {', '.join(map(str, unknown))}; decode them to 0, 1 and 255 first")
        for part in found:
            part.sort()
        return cls(*found)

    @classmethod
    def join(cls, parts: Sequence[PixelKeys]) -> PixelKeys:
        """Those of all parts."""
        if len(parts) == 1:
            return parts[0]
        return cls(*(sorted_together([getattr(part, name) for part in parts]) for name in ("ood", "ind", "ignored")))

    @property
    def pixels(self) -> int:
        """How many there are."""
        return len(self.ood) + len(self.ind) + len(self.ignored)

    @property
    def count_of_cells(self) -> int:
        """How many `cells` has."""
        lists = (self.ood, self.ind, self.ignored)
        return sum(int(np.count_nonzero(keys[1:] != keys[:-1])) + min(len(keys), 1) for keys in lists)

    def cells(self) -> Cells32:
        """Keys, labels and counts as a tally stores them, ascending by (label, key).

        >>> PixelKeys(*(np.array(keys, np.uint32) for keys in ([7, 9, 9], [3], []))).cells()
        (array([3, 7, 9], dtype=uint32), array([0, 1, 1], dtype=uint8), array([1, 1, 2]))
        """
        found = [(label, *_counted(keys)) for label, keys in ((0, self.ind), (1, self.ood), (255, self.ignored))]
        return (
            np.concatenate([keys for _, keys, _ in found]),
            np.repeat(np.array([label for label, _, _ in found], np.uint8), [len(keys) for _, keys, _ in found]),
            np.concatenate([counts for _, _, counts in found]),
        )

    def without(self, other: PixelKeys) -> PixelKeys:
        """These less others, which are part of them."""
        return PixelKeys(_less(self.ood, other.ood), _less(self.ind, other.ind), _less(self.ignored, other.ignored))


def cells_of_grid(keys: Keys32, labels: NDArray[np.uint8]) -> Cells32 | None:
    """Cells as of `PixelKeys.cells`, of keys that are multiples of a power of two and lie near each other.

    None of other keys. Those of numbers that were rounded to float16 are such: counting takes half the time of sorting.

    >>> cells_of_grid(np.array([48, 16, 48], np.uint32), np.array([1, 0, 1], np.uint8))
    (array([16, 48], dtype=uint32), array([0, 1], dtype=uint8), array([1, 2]))
    """
    bits = int(np.bitwise_or.reduce(keys, axis=None))
    shift = max((bits & -bits).bit_length() - 1, 0)
    first = int(keys.min(initial=2**32 - 1)) >> shift
    places = (int(keys.max(initial=0)) >> shift) - first + 1
    if not 0 < places <= _PLACES:
        return None
    cells = (keys >> np.uint32(shift)).astype(np.intp)
    cells += (label_ranks(labels) * places) - first
    counts = np.bincount(cells.ravel())
    there = np.flatnonzero(counts)
    rank, place = np.divmod(there, places)
    found = np.array((IN_DISTRIBUTION, OOD, IGNORE), np.uint8)[rank]
    return ((place + first) << shift).astype(np.uint32), found, counts[there]


class PixelCounts(ScoreCounts):
    """`ScoreCounts` of sorted keys: what is asked of them is found in the lists.

    Attributes:
        scale: of the keys.
        parts: the keys of some images each; as one once they were joined.

    >>> keys = np.array([3, 7, 9], np.uint32)
    >>> parts = PixelKeys(keys[2:], keys[1:2], keys[:0]), PixelKeys(keys[::2], keys[:0], keys[:0])
    >>> counts = PixelCounts(Float32(), parts)
    >>> counts.keys.tolist(), counts.ood.tolist(), counts.labelled_pixels()
    ([3, 7, 9], [1, 0, 2], (3, 1))
    """

    parts: list[PixelKeys]

    def __init__(self, scale: Scale, parts: Sequence[PixelKeys]) -> None:
        # Those of a frozen dataclass cannot be assigned; its columns are properties here.
        vars(self).update(scale=scale, parts=[*parts])

    def __reduce__(self) -> tuple[type[PixelCounts], tuple[Any, ...]]:
        """Between processes the keys travel, and nothing that was found of them."""
        return PixelCounts, (self.scale, self.parts)

    @property
    def pixels(self) -> PixelKeys:
        """The keys of all parts."""
        if len(self.parts) > 1:
            # A new list, as another thread may go through the old one.
            vars(self)["parts"] = [PixelKeys.join(self.parts)]
        return self.parts[0]

    @cached_property
    def by_key(self) -> ScoreCounts:
        """The same counts by distinct key, which take seven times the memory: made where somebody asks for columns."""
        return ScoreCounts.of(self.scale, *self.pixels.cells())

    @property
    def keys(self) -> Keys:
        """See `ScoreCounts`."""
        return self.by_key.keys

    @property
    def ood(self) -> NDArray[np.int64]:
        """See `ScoreCounts`."""
        return self.by_key.ood

    @property
    def ind(self) -> NDArray[np.int64]:
        """See `ScoreCounts`."""
        return self.by_key.ind

    @property
    def ignored(self) -> NDArray[np.int64]:
        """See `ScoreCounts`."""
        return self.by_key.ignored

    @property
    def total(self) -> int:
        """All pixels, ignored ones too."""
        return sum(part.pixels for part in self.parts)

    def plus(self, others: Sequence[ScoreCounts]) -> ScoreCounts:
        """All counts as one: as lists, unless most pixels are counted by cells, of which there are fewer then."""
        lists = [self, *(part for part in others if isinstance(part, PixelCounts))]
        cells = [part for part in others if not isinstance(part, PixelCounts)]
        if sum(part.total for part in lists) < sum(map(_pixels_of, cells)):
            return super().plus(others)
        return PixelCounts(self.scale, [*(keys for part in lists for keys in part.parts), *map(_keys_of, cells)])

    def without(self, others: Sequence[ScoreCounts]) -> ScoreCounts:
        """See `ScoreCounts`."""
        lists = [other for other in others if isinstance(other, PixelCounts)]
        if len(lists) < len(others):
            return super().without(others)
        less = [keys for other in lists for keys in other.parts]
        return PixelCounts(self.scale, [self.pixels.without(PixelKeys.join(less))]) if less else self

    def labelled_pixels(self) -> tuple[int, int]:
        """See `ScoreCounts`."""
        return sum(len(part.ood) for part in self.parts), sum(len(part.ind) for part in self.parts)

    def curve(self) -> Curve:
        """See `ScoreCounts`; here `rows` counts the scores of OoD pixels alone."""
        return self._curve

    @cached_property
    def _curve(self) -> Curve:
        return curve_of_pixels(*self._ood_keys, len(self.pixels.ood), self.pixels.ind)

    def value(self, row: int) -> float:
        """The score of a row of the curve."""
        keys, _ = self._ood_keys
        place = len(keys) - 1 - row
        return float(self.scale.scores(keys[place : place + 1])[0])

    @cached_property
    def _ood_keys(self) -> tuple[Keys32, NDArray[np.int64]]:
        return _distinct(self.pixels.ood)

    def limits(self) -> tuple[float, float] | None:
        """See `ScoreCounts`."""
        ends = [keys[[0, -1]] for part in self.parts for keys in (part.ood, part.ind) if len(keys)]
        if not ends:
            return None
        low, high = self.scale.scores(np.array([np.min(ends), np.max(ends)], np.uint32)).tolist()
        return low, high

    def largest_tie(self) -> float:
        """See `ScoreCounts`."""
        labelled = sum(self.labelled_pixels())
        if not labelled:
            return 0.0
        curve, largest = self._curve, _longest_run(self.pixels.ind)
        for block in blocks(len(curve.found)):
            tied = curve.gains(block) + curve.alarms[block] - curve.alarms_before[block]
            largest = max(largest, int(tied.max()))
        return largest / labelled

    def frame(self, *, rounded: bool = False) -> Frame:
        """See `ScoreCounts`."""
        if not rounded or not isinstance(self.scale, Float32):
            return super().frame(rounded=rounded)
        scores, first = _float16_steps()
        lists = (self.pixels.ood, self.pixels.ind)
        ends = [keys[[0, -1]] for keys in lists if len(keys)]
        low, high = np.searchsorted(first, [np.min(ends), np.max(ends)], side="right") - 1 if ends else (0, 0)
        scores, first = scores[low : high + 1], first[low : high + 1]
        ood, ind = (np.diff(np.searchsorted(keys, first), append=len(keys)) for keys in lists)
        there = np.flatnonzero((ood > 0) | (ind > 0))
        return Frame(scores[there], ood[there], ind[there])


@lru_cache(maxsize=1)
def _float16_steps() -> tuple[NDArray[np.float64], Keys32]:
    """The float16 that are finite, ascending, and of each the key of the first float32 that is rounded to it."""
    bits = np.arange(0x7C00, dtype=np.uint16).view(np.float16)
    values = np.concatenate([-bits[:0:-1], bits])
    middles = ((values[1:].astype(np.float32) + values[:-1].astype(np.float32)) / 2).astype(np.float32)
    first = Float32().keys(middles).astype(np.uint32) + (middles.astype(np.float16) != values[1:])
    return values.astype(np.float64), np.concatenate([[0], first]).astype(np.uint32)


def _counted(ascending: Keys32) -> tuple[Keys32, NDArray[np.int64]]:
    """The distinct keys of a list, and how often each is there."""
    keys, first = _distinct(ascending)
    return keys, np.diff(first, append=len(ascending))


def _distinct(ascending: Keys32) -> tuple[Keys32, NDArray[np.int64]]:
    """The distinct keys of a list, and where each comes first."""
    first = np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]])[: len(ascending)])
    return ascending[first], first


def _less(keys: Keys32, others: Keys32) -> Keys32:
    """An ascending list without the entries of another, which are part of it."""
    place = np.searchsorted(keys, others) + np.arange(len(others)) - np.searchsorted(others, others)
    kept = np.ones(len(keys), np.bool_)
    kept[place] = False
    return keys[kept]


def _longest_run(ascending: Keys32) -> int:
    """How often the key is there that is there most often."""

    def has_run(length: int) -> bool:
        starts = len(ascending) - length + 1
        return any((ascending[length - 1 :][block] == ascending[block]).any() for block in blocks(starts))

    least, most = 0, 1
    while has_run(most):
        least, most = most, 2 * most
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if has_run(middle) else (least, middle)
    return least


def _pixels_of(counts: ScoreCounts) -> int:
    return int(counts.ood.sum() + counts.ind.sum() + counts.ignored.sum())


def _keys_of(counts: ScoreCounts) -> PixelKeys:
    keys = counts.keys.astype(np.uint32)
    return PixelKeys(*(np.repeat(keys, column) for column in (counts.ood, counts.ind, counts.ignored)))
