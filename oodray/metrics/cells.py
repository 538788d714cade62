"""Many tallies as four flat arrays, for whatever counts over all of them at once.

A *cell* is one row of one tally: the pixels that have one key and one label there. The tallies of a file, or of a
whole run, lie one after the other, and each cell names the tally that owns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oodray.metrics.tally import Tally


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of many tallies; `n` is the number of cells.

    Attributes:
        owners: number of tallies; some may have no cell.
        owner: `(n,)`, the tally of each cell, 0..owners-1; in any order.
        keys: `(n,)`, integers in the order of what they stand for: uint16, see `oodray.metrics.tally.score_keys`, or
            uint32.
        labels: `(n,)` uint8.
        counts: `(n,)` int64, the pixels of each cell.

    >>> keys, labels, counts = np.array([7, 9, 7], np.uint16), np.array([0, 1, 1], np.uint8), np.array([4, 5, 6])
    >>> cells = Cells(2, np.array([0, 0, 1]), keys, labels, counts)
    >>> cells.pixels_by_owner(cells.labels == 1), cells.below([8, 9]).tolist()
    (array([5, 6]), [[4, 6], [4, 6]])
    """

    owners: int
    owner: NDArray[np.intp]
    keys: NDArray[np.uint16] | NDArray[np.uint32]
    labels: NDArray[np.uint8]
    counts: NDArray[np.int64]

    @classmethod
    def join(cls, parts: Sequence[Cells]) -> Cells:
        """The cells of all parts; the tallies of a part come after those of the parts before it."""
        if len(parts) == 1:
            return parts[0]
        ends = np.cumsum([part.owners for part in parts], dtype=np.intp)
        starts = [0, *ends[:-1]]
        return cls(
            int(ends[-1]),
            np.concatenate([part.owner + start for part, start in zip(parts, starts, strict=True)]),
            *(np.concatenate([getattr(part, name) for part in parts]) for name in ("keys", "labels", "counts")),
        )

    def where(self, chosen: NDArray[np.bool_]) -> Cells:
        """The chosen cells alone, owned by the same tallies; `chosen` is `(n,)`."""
        return Cells(self.owners, self.owner[chosen], self.keys[chosen], self.labels[chosen], self.counts[chosen])

    def of_owners(self, chosen: NDArray[np.bool_]) -> Cells:
        """The cells of the chosen tallies, which are counted anew from 0; `chosen` is `(owners,)`."""
        number = np.cumsum(chosen) - 1
        left = self.where(chosen[self.owner])
        return Cells(int(np.count_nonzero(chosen)), number[left.owner], left.keys, left.labels, left.counts)

    def tally(self, chosen: NDArray[np.bool_]) -> Tally:
        """The tally of all chosen cells together; `chosen` is `(n,)`."""
        return Tally.from_arrays(self.keys[chosen], self.labels[chosen], self.counts[chosen])

    def pixels_by_owner(self, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Pixels in the chosen cells of each tally, `(owners,)`; `chosen` is `(n,)`."""
        # Floats of 64 bits hold whole numbers up to 2**53, which are more pixels than any tally has.
        return np.bincount(self.owner[chosen], self.counts[chosen], minlength=self.owners).astype(np.int64)

    def below(self, keys: Sequence[int]) -> NDArray[np.int32]:
        """Pixels of each tally whose key is smaller than each of `keys`, whatever their label.

        Args:
            keys: ascending, such as `first_key_at_least` of several values of tau.

        Returns:
            `(len(keys), owners)`; a tally has at most 2**31 - 1 pixels.
        """
        # A cell lies below every one of the keys from this one on.
        first = np.searchsorted(np.asarray(keys), self.keys, side="right")
        found = np.bincount(
            first * self.owners + self.owner, weights=self.counts, minlength=(len(keys) + 1) * self.owners
        )
        return np.cumsum(found.reshape(len(keys) + 1, self.owners)[:-1], axis=0).astype(np.int32)
