"""The tallies of result rows as flat arrays: from the nested columns of Arrow to `oodray.metrics.cells`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oodray.method.rule import Rule, exceeds
from oodray.metrics.cells import Cells
from oodray.metrics.tally import first_key_at_least
from oodray.results.rows import KEYS_OF_LABELS


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

    def unsure(self, tau: float) -> NDArray[np.int64]:
        """Pixels of each cluster whose confidence is below tau."""
        return self.cells.pixels_by_owner(self.cells.keys < first_key_at_least(tau))

    def ood(self, rule: Rule) -> NDArray[np.bool_]:
        """Whether each cluster, of any K, is OoD at the tau and T of a rule."""
        return exceeds(self.unsure(rule.tau), self.pixels, rule.ood_ratio)

    def labelled(self, label: int) -> NDArray[np.int64]:
        """Pixels of each cluster that have a label."""
        return self.cells.pixels_by_owner(self.cells.labels == label)


def clusters_of(column: pa.ChunkedArray[Any]) -> Clusters:
    """The `clusters` column of result rows."""
    structs, row = flattened(column)
    names = ("k", "cluster", "pixels", "ratio")
    fields = {name: structs.field(name).to_numpy(zero_copy_only=False) for name in names}
    return Clusters(row=row, cells=cells_of(structs), **fields)


def cells_of(structs: Any) -> Cells:
    """The cells of structs that hold a tally each: `keys`, `counts`, and `labels` or how many keys have each."""
    keys, owner = flattened(structs.field("keys"))
    counts = structs.field("counts").flatten().to_numpy(zero_copy_only=False)
    labels = structs.field("labels").flatten().to_numpy() if has_labels(structs) else _repeated_labels(structs)
    return Cells(len(structs), owner, keys.to_numpy(zero_copy_only=False), labels, counts)


def has_labels(structs: Any) -> bool:
    """Whether the label of each key was read; see `oodray.results.reading.read_to_count`."""
    return bool(structs.type.get_field_index("labels") >= 0)


def keys_of_labels(structs: Any) -> NDArray[np.int32]:
    """How many keys of each tally have each label, `(t, 3)`, in the order of `KEYS_OF_LABELS`."""
    return np.stack([structs.field(name).to_numpy(zero_copy_only=False) for name in KEYS_OF_LABELS], axis=1)


def _repeated_labels(structs: Any) -> NDArray[np.uint8]:
    counts = keys_of_labels(structs)
    labels = np.array(list(KEYS_OF_LABELS.values()), np.uint8)
    return np.repeat(np.tile(labels, len(counts)), counts.reshape(-1))


def flattened(column: pa.ChunkedArray[Any] | pa.Array[Any]) -> tuple[Any, NDArray[np.intp]]:
    """The elements of all lists, and the index of the list that each is from; null is an empty list."""
    lists = cast("pa.ListArray[Any]", whole(column) if isinstance(column, pa.ChunkedArray) else column)
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    return lists.flatten(), np.repeat(np.arange(len(lists)), lengths)


def entries(column: pa.ChunkedArray[Any]) -> Any:
    """The elements of all lists."""
    return whole(column).flatten()


def whole(column: pa.ChunkedArray[Any]) -> Any:
    """All chunks as one array; a single one is not copied."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
