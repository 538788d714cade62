"""Pixels by key of a score: what its curve and its histogram are made of, added up over images and files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.errors import ResultsError
from oodray.metrics.curve import Curve
from oodray.metrics.frames import Frame
from oodray.metrics.long_lists import range_edges
from oodray.metrics.scales import Float16, Float32, Keys, Scale
from oodray.metrics.tally import IN_DISTRIBUTION, KEY_COUNT, OOD, Tally

# A cell of keys of 32 bits in one number: the key, then a row for its label, then its pixels, sorts by key in one go.
_KEY_PLACE, _ROW_PLACE = np.uint64(2), np.uint64(30)  # the key's is that among key and row
_COUNT = np.uint64(2**30 - 1)


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
            return cls.of_dense(scale, dense)
        return cls._of_cells(scale, _packed(keys, row, counts))

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
    def _of_cells(cls, scale: Scale, cells: NDArray[np.uint64]) -> ScoreCounts:
        """Cells of keys of 32 bits, packed, in any order."""
        cells = np.sort(cells)
        counts = (cells & _COUNT).astype(np.int64)
        cells >>= _ROW_PLACE
        first = _firsts(cells)
        if len(first) < len(cells):
            cells, counts = cells[first], np.add.reduceat(counts, first)
        keys = (cells >> _KEY_PLACE).astype(np.uint32)
        first = _firsts(keys)
        rank = np.zeros(len(keys), np.intp)
        rank[first[1:]] = 1
        totals = np.zeros((3, len(first)), np.int64)
        totals[(cells & np.uint64(3)).astype(np.intp), np.cumsum(rank, out=rank)] = counts
        return cls(scale, keys[first], *totals)

    def _cells(self) -> NDArray[np.uint64]:
        """What `_of_cells` takes."""
        rows = (self.ood, self.ind, self.ignored)
        places = [np.flatnonzero(counts) for counts in rows]
        return np.concatenate(
            [
                _packed(self.keys[place], np.full(len(place), row), counts[place])
                for row, (place, counts) in enumerate(zip(places, rows, strict=True))
            ]
        )

    @classmethod
    def of_dense(cls, scale: Scale, dense: NDArray[np.int64]) -> ScoreCounts:
        """Pixels of every key of 16 bits, `(3, KEY_COUNT)`: OoD, in-distribution and ignored ones."""
        keys = np.flatnonzero(dense.any(0))
        return cls(scale, keys.astype(np.uint16), *dense[:, keys])

    def plus(self, others: Sequence[ScoreCounts]) -> ScoreCounts:
        """These counts and others of keys of 32 bits."""
        return _merged(self.scale, [self, *others])

    def without(self, others: Sequence[ScoreCounts]) -> ScoreCounts:
        """These counts less those of others, which are part of them.

        >>> counts = ScoreCounts.of_tally(Tally.from_arrays([3, 9], [0, 1], [2, 1]))
        >>> counts.without([ScoreCounts.of_tally(Tally.from_arrays([3], [0], [2]))]).keys.tolist()
        [9]
        """
        if not others:
            return self
        columns = [column.copy() for column in (self.ood, self.ind, self.ignored)]
        for other in others:
            place = np.searchsorted(self.keys, other.keys)
            for column, less in zip(columns, (other.ood, other.ind, other.ignored), strict=True):
                column[place] -= less
        left = np.flatnonzero(sum(columns))
        return ScoreCounts(self.scale, self.keys[left], *(column[left] for column in columns))

    def _between(self, first: int, end: int) -> ScoreCounts:
        """The counts of some of the keys, by their places."""
        part = slice(first, end)
        return ScoreCounts(self.scale, self.keys[part], self.ood[part], self.ind[part], self.ignored[part])

    def scores(self) -> NDArray[np.float64]:
        """A score that has the key, for each of `keys`."""
        return self.scale.scores(self.keys)

    def labelled(self) -> ScoreCounts:
        """The keys that have a labelled pixel."""
        chosen = (self.ood > 0) | (self.ind > 0)
        if chosen.all():
            return self
        return ScoreCounts(self.scale, self.keys[chosen], self.ood[chosen], self.ind[chosen], self.ignored[chosen])

    def labelled_pixels(self) -> tuple[int, int]:
        """OoD and in-distribution pixels."""
        return int(self.ood.sum()), int(self.ind.sum())

    def curve(self) -> Curve:
        """The curve of the labelled pixels."""
        return Curve.of(*self.ranked())

    def value(self, row: int) -> float:
        """The score of a row of the curve: one of those that a labelled pixel has, the highest being 0."""
        found = self.labelled()
        place = len(found.keys) - 1 - row
        return float(found.scale.scores(found.keys[place : place + 1])[0])

    def limits(self) -> tuple[float, float] | None:
        """The lowest and the highest score of a labelled pixel; None where there is none."""
        found = self.labelled()
        if not len(found.keys):
            return None
        low, high = found.scale.scores(found.keys[[0, -1]]).tolist()
        return low, high

    def frame(self, *, rounded: bool = False) -> Frame:  # noqa: ARG002
        """The labelled pixels by score; `rounded`: scores may be rounded to float16, as that is done to them anyway."""
        found = self.labelled()
        return Frame(found.scores(), found.ood, found.ind)

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

    Keys of 16 bits take 1.5 MiB, however many counts are added. Keys of 32 bits take 28 bytes for each that counts
    were added of, or 4 for each pixel, see `oodray.metrics.pixel_counts`.
    """

    def __init__(self) -> None:
        self._scale: Scale | None = None
        self._dense: NDArray[np.int64] | None = None
        self._parts: list[ScoreCounts] = []

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
        if not isinstance(counts.scale, Float32):
            if self._dense is None:
                self._dense = np.zeros((3, KEY_COUNT), np.int64)
            self._dense[:, counts.keys] += (counts.ood, counts.ind, counts.ignored)
            return
        self._parts.append(counts)

    def total(self) -> ScoreCounts:
        """The sum of what was added so far."""
        assert self._scale is not None, "counts are added before they are asked for"
        if self._dense is not None:
            return ScoreCounts.of_dense(self._scale, self._dense)
        if len(self._parts) > 1:
            # Lists of pixels know how cells are added to them, cells do not.
            first, *others = sorted(self._parts, key=lambda part: type(part) is ScoreCounts)
            self._parts = [first.plus(others)]
        return self._parts[0]


def _merged(scale: Scale, parts: Sequence[ScoreCounts]) -> ScoreCounts:
    """The sum of counts of keys of 32 bits, a range of keys at a time: what is sorted at once stays small."""
    edges = [0, *range_edges([part.keys for part in parts])]
    places = [[*np.searchsorted(part.keys, edges).tolist(), len(part.keys)] for part in parts]
    found = []
    for index in range(len(edges)):
        cells = [
            part._between(place[index], place[index + 1])._cells() for part, place in zip(parts, places, strict=True)
        ]
        found.append(ScoreCounts._of_cells(scale, np.concatenate(cells)))
    columns: list[Any] = [
        np.concatenate([getattr(part, name) for part in found]) for name in ("keys", "ood", "ind", "ignored")
    ]
    return ScoreCounts(scale, *columns)


def _packed(keys: Keys, rows: NDArray[np.intp], counts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Cells of keys of 32 bits, each in one number; one with too many pixels for that in several."""
    if len(counts) and counts.max() > int(_COUNT):
        times = -(-counts // int(_COUNT))
        last = counts - (times - 1) * int(_COUNT)
        ends = np.cumsum(times) - 1
        keys, rows = np.repeat(keys, times), np.repeat(rows, times)
        counts = np.full(len(keys), int(_COUNT), np.int64)
        counts[ends] = last
    cells = keys.astype(np.uint64) << _KEY_PLACE
    cells |= rows.astype(np.uint64)
    cells <<= _ROW_PLACE
    cells |= counts.astype(np.uint64)
    return cells


def _firsts(ascending: NDArray[Any]) -> NDArray[np.intp]:
    """Where each distinct value of an ascending list comes first."""
    return np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]])[: len(ascending)])
