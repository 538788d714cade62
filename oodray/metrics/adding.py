"""Very many tallies added up in place: what is added is touched once, and nothing else is.

The cells of tallies lie one after the other, as the rows of a file hold them. In a tally they ascend by label, so cells
of one label are neighbours: what is known of a label is looked up once for all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.compiled import compiled
from oodray.metrics.scales import Keys
from oodray.metrics.tally import IGNORE, IN_DISTRIBUTION, KEY_COUNT, OOD, label_ranks

LABELS = (IN_DISTRIBUTION, OOD, IGNORE)
"""In the order of `label_ranks`."""


@dataclass(frozen=True, eq=False)
class Runs:
    """Cells of tallies in runs: neighbours of one tally that have one label. All attributes are `(r,)`.

    Attributes:
        starts: the first cell of each run.
        lengths: how many cells it has.
        owner: its tally.
        labels: its label.

    >>> runs = Runs.of(np.array([3, 0, 1]), np.array([0, 0, 1, 1], np.uint8))
    >>> runs.starts.tolist(), runs.owner.tolist(), runs.labels.tolist()
    ([0, 2, 3], [0, 0, 2], [0, 1, 1])
    >>> runs.pixels(np.array([5, 7, 7, 5], np.uint16), np.array([1, 2, 3, 4]), key=7)
    (array([3, 3, 4]), array([1, 0, 4]))
    """

    starts: NDArray[np.intp]
    lengths: NDArray[np.intp]
    owner: NDArray[np.intp]
    labels: NDArray[np.uint8]

    @classmethod
    def of(cls, lengths: NDArray[np.integer[Any]], labels: NDArray[np.uint8]) -> Runs:
        """The runs of tallies that have so many cells each; `labels` are those of all cells."""
        ends = np.cumsum(lengths, dtype=np.intp)
        begins = np.zeros(len(labels), np.bool_)
        begins[(ends - lengths)[np.asarray(lengths) > 0]] = True
        begins[1:] |= labels[1:] != labels[:-1]
        starts = np.flatnonzero(begins)
        owner = np.searchsorted(ends, starts, side="right")
        return cls(starts, np.diff(starts, append=len(labels)), owner, labels[starts])

    @classmethod
    def of_labels(cls, cells: NDArray[np.integer[Any]]) -> Runs:
        """The runs of tallies that have so many cells of each of `LABELS`, `(t, 3)`, which ascend by label.

        >>> runs = Runs.of_labels(np.array([[2, 1, 0], [0, 0, 0], [0, 1, 0]]))
        >>> runs.starts.tolist(), runs.owner.tolist(), runs.labels.tolist()
        ([0, 2, 3], [0, 0, 2], [0, 1, 1])
        """
        owner, rank = np.nonzero(cells)
        lengths = cells[owner, rank].astype(np.intp)
        return cls(np.cumsum(lengths) - lengths, lengths, owner, np.array(LABELS, np.uint8)[rank])

    def pixels(
        self, keys: Keys, counts: NDArray[np.int64], key: int, *, compiled: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pixels of each run, `(r,)`: all, and those whose key is smaller than one.

        Args:
            keys: of all cells.
            counts: of all cells.
            key: the one.
            compiled: as of `DenseCounts`.
        """
        if not len(self.starts):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        if compiled:
            found: tuple[NDArray[np.int64], NDArray[np.int64]] = _pixels_loop()(self.lengths, keys, counts, key)
            return found
        return np.add.reduceat(counts, self.starts), np.add.reduceat(counts * (keys < key), self.starts)


class DenseCounts:
    """Pixels by label and key of 16 bits, of a few groups of tallies: 1.5 MiB a group, however much is added.

    Args:
        compiled: whether a loop that numba has compiled adds: it takes half the time, and a second or two to load.

    >>> counts = DenseCounts()
    >>> runs = Runs.of(np.array([2, 1]), np.array([0, 1, 1], np.uint8))
    >>> counts.add(runs, np.array([0, 0, 1]), np.array([7, 9, 9]), np.array([5, 6, 8]))
    >>> counts.pixels(0)[:, [7, 9]].tolist(), counts.pixels(1, [OOD])[0, 9].item()
    ([[5, 0], [0, 6], [0, 0]], 8)
    """

    def __init__(self, *, compiled: bool = False) -> None:
        self._pixels = np.zeros((0, len(LABELS), KEY_COUNT), np.int64)
        self._add = _adding_loop() if compiled else _add

    def add(
        self,
        runs: Runs,
        group: NDArray[np.intp],
        keys: Keys,
        counts: NDArray[np.int64],
    ) -> None:
        """Add cells.

        Args:
            runs: of the cells.
            group: `(r,)`, that each run counts for; of negative ones nothing is counted.
            keys: of all cells.
            counts: of all cells.

        Raises:
            ValueError: a label is unknown, or a key has more than 16 bits.
        """
        more = int(group.max(initial=-1)) + 1 - len(self._pixels)
        if more > 0:
            self._pixels = np.concatenate([self._pixels, np.zeros((more, *self._pixels.shape[1:]), np.int64)])
        begin = np.where(group < 0, -1, (group * len(LABELS) + label_ranks(runs.labels)) * KEY_COUNT)
        if not self._add(self._pixels.reshape(-1), begin, runs.lengths, keys, counts):
            raise ValueError(f"a key is not below {KEY_COUNT}")

    def pixels(self, group: int, labels: Sequence[int] = LABELS) -> NDArray[np.int64]:
        """Pixels of a group by label and key, `(len(labels), KEY_COUNT)`; none of one that nothing was added to."""
        if group >= len(self._pixels):
            return np.zeros((len(labels), KEY_COUNT), np.int64)
        found: NDArray[np.int64] = self._pixels[group, label_ranks(np.array(labels, np.uint8))]
        return found


def load_loops() -> None:
    """Load the compiled loops, before threads do: each would make its own."""
    _adding_loop()
    _pixels_loop()


def _add(
    pixels: NDArray[np.int64],
    begin: NDArray[np.intp],
    lengths: NDArray[np.intp],
    keys: Keys,
    counts: NDArray[np.int64],
) -> bool:
    """Add counts of runs of cells to pixels, of each run from a place on; none of runs whose place is negative.

    False where a key has more than 16 bits; pixels are of no use then.
    """
    counted = begin >= 0
    if not counted.all():
        of_cells = np.repeat(counted, lengths)
        begin, lengths, keys, counts = begin[counted], lengths[counted], keys[of_cells], counts[of_cells]
    if keys.max(initial=0) >= KEY_COUNT:
        return False
    places = np.repeat(begin, lengths)
    places += keys
    np.add.at(pixels, places, counts)
    return True


@functools.cache
def _adding_loop() -> Callable[..., bool]:
    """`_add` as a loop."""

    def add(pixels: Any, begin: Any, lengths: Any, keys: Any, counts: Any) -> bool:  # pragma: no cover
        # Places without a sign: of others numba asks whether they count from the end, and takes twice the time.
        cell = np.uint64(0)
        known = True
        for run in range(len(begin)):
            end = cell + np.uint64(lengths[run])
            if begin[run] >= 0:
                first = np.uint64(begin[run])
                for at in range(cell, end):
                    if keys[at] < KEY_COUNT:
                        pixels[first + np.uint64(keys[at])] += counts[at]
                    else:
                        known = False
            cell = end
        return known

    return compiled(add)


@functools.cache
def _pixels_loop() -> Callable[..., Any]:
    """`Runs.pixels` as a loop."""

    def pixels(lengths: Any, keys: Any, counts: Any, key: Any) -> Any:  # pragma: no cover
        of_run, below = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
        cell = np.uint64(0)
        for run in range(len(lengths)):
            end = cell + np.uint64(lengths[run])
            whole = part = np.int64(0)
            for at in range(cell, end):
                whole += counts[at]
                part += counts[at] if keys[at] < key else np.int64(0)
            of_run[run], below[run] = whole, part
            cell = end
        return of_run, below

    return compiled(pixels)
