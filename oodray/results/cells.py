"""The nested tallies of result rows as flat numpy arrays, for whatever counts over many images at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oodray.method.rule import exceeds
from oodray.metrics.tally import Tally, first_key_at_least


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of many tallies, one after the other.

    Attributes:
        owner: `(n,)`, the tally that each cell belongs to.
        keys: `(n,)` uint16.
        labels: `(n,)` uint8.
        counts: `(n,)` int64.
    """

    owner: NDArray[np.intp]
    keys: NDArray[np.uint16]
    labels: NDArray[np.uint8]
    counts: NDArray[np.int64]

    def tally(self, chosen: NDArray[np.bool_]) -> Tally:
        """The tally of all chosen cells together; `chosen` is `(n,)`."""
        return Tally.from_arrays(self.keys[chosen], self.labels[chosen], self.counts[chosen])

    def pixels_by_owner(self, owners: int, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Pixels in the chosen cells of each of `owners` tallies: `(owners,)` int64."""
        pixels = np.zeros(owners, np.int64)
        np.add.at(pixels, self.owner[chosen], self.counts[chosen])
        return pixels


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters of many images; the attributes but `cells` are `(c,)`.

    Attributes:
        row: the row of the cluster's image.
        k: the number of clusters asked for.
        cluster: its id.
        pixels: how many it has, ignored ones too.
        ratio: share of them that was unsure at the run's tau.
        cells: tallies of confidence, each owned by a cluster, by its index here.
    """

    row: NDArray[np.intp]
    k: NDArray[np.int16]
    cluster: NDArray[np.int16]
    pixels: NDArray[np.int64]
    ratio: NDArray[np.float64]
    cells: Cells

    def unsure(self, key: int) -> NDArray[np.int64]:
        """Pixels of each cluster whose confidence has a smaller key."""
        return self.cells.pixels_by_owner(len(self.row), self.cells.keys < key)

    def ood(self, tau: float, ood_ratio: float) -> NDArray[np.bool_]:
        """Whether each cluster is OoD."""
        return exceeds(self.unsure(first_key_at_least(tau)), self.pixels, ood_ratio)

    def labelled(self, label: int) -> NDArray[np.int64]:
        """Pixels of each cluster that have a label."""
        return self.cells.pixels_by_owner(len(self.row), self.cells.labels == label)


def clusters_of(column: pa.ChunkedArray) -> Clusters:
    """The `clusters` column of result rows."""
    structs, row = _flatten(column)
    names = ("k", "cluster", "pixels", "ratio")
    fields = {name: structs.field(name).to_numpy(zero_copy_only=False) for name in names}
    return Clusters(row=row, cells=_cells(structs), **fields)


def score_cells(column: pa.ChunkedArray) -> tuple[NDArray[Any], Cells]:
    """The `tallies` column of result rows: the score of each tally, and the cells."""
    structs, _ = _flatten(column)
    return structs.field("score").to_numpy(zero_copy_only=False), _cells(structs)


def _cells(structs: pa.StructArray) -> Cells:
    keys, owner = _values(structs.field("keys"))
    labels, _ = _values(structs.field("labels"))
    counts, _ = _values(structs.field("counts"))
    return Cells(owner, keys, labels, counts)


def _values(lists: pa.ListArray) -> tuple[NDArray[Any], NDArray[np.intp]]:
    values, owner = _flatten(lists)
    return values.to_numpy(zero_copy_only=False), owner


def _flatten(lists: pa.ChunkedArray | pa.ListArray) -> tuple[Any, NDArray[np.intp]]:
    """The elements of all lists, and the index of the list that each is from; null is an empty list."""
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.combine_chunks()
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    return lists.flatten(), np.repeat(np.arange(len(lists)), lengths)
