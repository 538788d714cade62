"""Pixels by key of a score: what its curve and its histogram are made of, added up over images and files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oodray.errors import ResultsError
from oodray.metrics.scales import Float16, Keys, Scale
from oodray.metrics.tally import IGNORE, IN_DISTRIBUTION, KEY_COUNT, OOD, Tally

_KEY_BITS = 32
_LABEL_OF_OOD = np.uint64(1 << _KEY_BITS)


@dataclass(frozen=True, eq=False)
class ScoreCounts:
    """OoD, in-distribution and ignored pixels of each distinct key, ascending.

    Attributes:
        scale: of the keys.
        keys: `(n,)`, ascending, each once; uint32 of the scale float32, else uint16.
        ood: `(n,)` int64.
        ind: `(n,)` int64.
        ignored: `(n,)` int64.

    >>> counts = ScoreCounts.of(Float16(), np.array([9, 7, 9, 3], np.uint16), np.array([1, 0, 0, 255], np.uint8),
    ...                         np.array([2, 5, 1, 8]))
    >>> counts.keys.tolist(), counts.ood.tolist(), counts.ind.tolist()
    ([3, 7, 9], [0, 0, 2], [0, 5, 1])
    """

    scale: Scale
    keys: Keys
    ood: NDArray[np.int64]
    ind: NDArray[np.int64]
    ignored: NDArray[np.int64]

    @classmethod
    def of(cls, scale: Scale, keys: Keys, labels: NDArray[np.uint8], counts: NDArray[np.int64]) -> ScoreCounts:
        """Cells of any tallies, in any order and repeated: each has a key, a label and its pixels."""
        row = np.select([labels == OOD, labels == IN_DISTRIBUTION], [0, 1], 2)
        if keys.dtype == np.uint16:
            dense = np.zeros((3, KEY_COUNT), np.int64)
            np.add.at(dense, (row, keys), counts)
            return cls._of_dense(scale, dense)
        distinct, rank = np.unique(keys, return_inverse=True)
        totals = np.zeros((3, len(distinct)), np.int64)
        np.add.at(totals, (row, rank), counts)
        return cls(scale, distinct, *totals)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScoreCounts):
            return NotImplemented
        return (
            self.scale == other.scale
            and np.array_equal(self.keys, other.keys)
            and np.array_equal(self.ood, other.ood)
            and np.array_equal(self.ind, other.ind)
            and np.array_equal(self.ignored, other.ignored)
        )

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def of_tally(cls, tally: Tally, scale: Scale | None = None) -> ScoreCounts:
        """The pixels of a tally, by default of one whose keys are those of float16."""
        return cls.of(scale or Float16(), tally.keys, tally.labels, tally.counts)

    @classmethod
    def _of_dense(cls, scale: Scale, dense: NDArray[np.int64]) -> ScoreCounts:
        keys = np.flatnonzero(dense.any(0))
        return cls(scale, keys.astype(np.uint16), *dense[:, keys])

    def scores(self) -> NDArray[np.float64]:
        """A score that has the key, for each of `keys`."""
        return self.scale.scores(self.keys)

    def labelled(self) -> ScoreCounts:
        """The keys that have a labelled pixel."""
        chosen = (self.ood > 0) | (self.ind > 0)
        return ScoreCounts(self.scale, self.keys[chosen], self.ood[chosen], self.ind[chosen], self.ignored[chosen])

    def ranked(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """OoD and in-distribution pixels of each key that has one, the highest first: what a curve is taken from."""
        found = self.labelled()
        return found.ood[::-1], found.ind[::-1]

    def quantile(self, share: float) -> float:
        """The largest score with at most `share` of the pixels, of all labels, strictly below it.

        >>> ScoreCounts.of_tally(Tally.of(Float16().keys(np.arange(100, dtype=np.float32)), np.zeros(100, np.uint8))
        ...                     ).quantile(0.05)
        5.0
        """
        up_to = np.cumsum(self.ood + self.ind + self.ignored)
        place = int(np.searchsorted(up_to, share * up_to[-1], side="right"))
        return float(self.scale.scores(self.keys[place : place + 1])[0])

    def largest_tie(self) -> float:
        """Share of the labelled pixels that have the key that most of them have; 0 where there is none.

        >>> ScoreCounts.of_tally(Tally.from_arrays([3, 3, 9], [0, 1, 1], [2, 1, 1])).largest_tie()
        0.75
        """
        pixels = self.ood + self.ind
        return float(pixels.max() / pixels.sum()) if pixels.any() else 0.0


class RunningCounts:
    """A sum of counts of one score that are added one after the other.

    Keys of 16 bits take 1.5 MiB, however many counts are added. Keys of 32 bits take 28 bytes for each distinct one.
    """

    def __init__(self) -> None:
        self._scale: Scale | None = None
        self._dense: NDArray[np.int64] | None = None
        self._sorted: list[ScoreCounts] = []

    def add(self, counts: ScoreCounts) -> None:
        """Add counts.

        Raises:
            ResultsError: their keys are those of another scale.
        """
        if self._scale is None:
            self._scale = counts.scale
        if self._scale != counts.scale:
            raise ResultsError(
                f"the tallies of one score have keys of two scales, {self._scale.name} and {counts.scale.name}: "
                "they are of two runs with different statistics; evaluate them in folders of their own"
            )
        if counts.keys.dtype == np.uint16:
            if self._dense is None:
                self._dense = np.zeros((3, KEY_COUNT), np.int64)
            self._dense[:, counts.keys] += (counts.ood, counts.ind, counts.ignored)
            return
        self._sorted.append(counts)
        # The sizes stay those of a binary number's digits: each cell is merged a logarithm of times.
        while len(self._sorted) > 1 and len(self._sorted[-2].keys) <= 2 * len(self._sorted[-1].keys):
            self._sorted.append(_merged(self._sorted.pop(), self._sorted.pop()))

    def total(self) -> ScoreCounts:
        """The sum of what was added so far."""
        assert self._scale is not None, "counts are added before they are asked for"
        if self._dense is not None:
            return ScoreCounts._of_dense(self._scale, self._dense)
        while len(self._sorted) > 1:
            self._sorted.append(_merged(self._sorted.pop(), self._sorted.pop()))
        return self._sorted[0]


def _merged(first: ScoreCounts, second: ScoreCounts) -> ScoreCounts:
    """The sum of two whose keys ascend: a stable sort of two ascending runs is one pass over them."""
    if not len(first.keys) or not len(second.keys):
        return first if len(first.keys) else second
    keys = np.concatenate([first.keys, second.keys])
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    columns = (
        np.add.reduceat(np.concatenate([getattr(first, name), getattr(second, name)])[order], starts)
        for name in ("ood", "ind", "ignored")
    )
    return ScoreCounts(first.scale, keys[starts], *columns)


def count_keys(keys: Keys, labels: NDArray[np.uint8]) -> tuple[Keys, NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels by (key, label), ascending by (label, key), from the keys and labels of pixels in arrays of one shape.

    Returns:
        Keys, labels and counts, as a tally stores them.

    Raises:
        ValueError: a label is unknown, or shapes differ.

    >>> count_keys(np.array([[7, 9], [7, 3]], np.uint32), np.array([[1, 1], [1, 255]], np.uint8))
    (array([7, 9, 3], dtype=uint32), array([  1,   1, 255], dtype=uint8), array([2, 1, 1]))
    """
    if keys.dtype == np.uint16:
        tally = Tally.of(keys.astype(np.uint16, copy=False), labels)
        return tally.keys, tally.labels, tally.counts
    if keys.shape != labels.shape:
        raise ValueError(f"keys of shape {keys.shape} do not match labels of shape {labels.shape}")
    unknown = np.setdiff1d(labels, (IN_DISTRIBUTION, OOD, IGNORE))
    if unknown.size:
        raise ValueError(f"unknown labels {', '.join(map(str, unknown))}; decode them to 0, 1 and 255 first")
    cells, counts = np.unique(labels.ravel().astype(np.uint64) * _LABEL_OF_OOD + keys.ravel(), return_counts=True)
    found = (cells >> np.uint64(_KEY_BITS)).astype(np.uint8)
    return cells.astype(np.uint32), found, counts.astype(np.int64)
