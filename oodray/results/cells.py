"""The tallies of result rows as flat arrays: from the nested columns of Arrow to `oodray.metrics.cells`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oodray.errors import ResultsError
from oodray.method.rule import Rule, exceeds
from oodray.metrics.cells import Cells
from oodray.metrics.pixel_counts import PixelCounts, PixelKeys
from oodray.metrics.scales import Float32, Scale, scale_named
from oodray.metrics.score_counts import RunningCounts, ScoreCounts
from oodray.metrics.tally import IN_DISTRIBUTION, KEY_COUNT, OOD, first_key_at_least
from oodray.results.packed_keys import unpack

_ROWS = np.full(256, 2 * KEY_COUNT, np.int32)
"""By label, where its row of dense counts begins: OoD, in-distribution, ignored."""
_ROWS[OOD], _ROWS[IN_DISTRIBUTION] = 0, KEY_COUNT


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
    structs, row = _flatten(column)
    names = ("k", "cluster", "pixels", "ratio")
    fields = {name: structs.field(name).to_numpy(zero_copy_only=False) for name in names}
    return Clusters(row=row, cells=_cells(structs), **fields)


def score_counts(column: pa.ChunkedArray[Any]) -> dict[str, ScoreCounts]:
    """The `tallies` column of result rows: the labelled pixels of each score, over all rows.

    Raises:
        ResultsError: the keys of a score are of two scales, or of one that is not known.
    """
    structs, _ = _flatten(column)
    named = [*zip(_texts(structs, "score"), _texts(structs, "scale"), strict=True)]
    number = {name: index for index, name in enumerate(dict.fromkeys(named))}
    scales = [_scale(scale) for _, scale in number]
    kind = np.array([number[name] for name in named], np.intp)
    running: defaultdict[str, RunningCounts] = defaultdict(RunningCounts)
    if any(isinstance(scale, Float32) for scale in scales):
        cells = _cells(structs)
        for index, ((score, _), scale) in enumerate(zip(number, scales, strict=True)):
            chosen = kind == index
            exact = isinstance(scale, Float32)
            for part in _by_image(cells, chosen) if exact else [cells.where(chosen[cells.owner])]:
                keys = part.keys if exact else part.keys.astype(np.uint16)
                if len(keys):
                    running[score].add(ScoreCounts.of(scale, keys, part.labels, part.counts))
        for tally, pixels in _packed(structs):
            score, _ = named[tally]
            running[score].add(PixelCounts(scales[kind[tally]], [pixels]))
    else:
        for (score, _), counts in zip(number, _counts_of_each(structs, kind, scales), strict=True):
            running[score].add(counts)
    return {score: counts.total() for score, counts in running.items()}


def score_counts_by_row(column: pa.ChunkedArray[Any]) -> list[dict[str, ScoreCounts]]:
    """The `tallies` column of result rows: by row, the pixels of each score.

    Raises:
        ResultsError: the keys of a score are of a scale that is not known.
    """
    rows = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return [score_counts(pa.chunked_array([rows.slice(row, 1)])) for row in range(len(rows))]


def _by_image(cells: Cells, chosen: NDArray[np.bool_]) -> Iterator[Cells]:
    """The cells of each of some tallies, which follow one another: those of scores that all differ are many."""
    for tally in np.flatnonzero(chosen).tolist():
        first, end = np.searchsorted(cells.owner, (tally, tally + 1)).tolist()
        part = slice(first, end)
        yield Cells(cells.owners, cells.owner[part], cells.keys[part], cells.labels[part], cells.counts[part])


def _packed(structs: pa.StructArray) -> Iterator[tuple[int, PixelKeys]]:
    """The tallies that are stored as lists of pixels, and their keys."""
    column = structs.field("packed")
    for tally in np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False)).tolist():
        yield tally, unpack(column[tally].as_buffer())


def _scale(name: str | None) -> Scale:
    try:
        return scale_named(name)
    except ValueError as error:
        raise ResultsError(str(error)) from None


def _counts_of_each(structs: Any, kind: NDArray[np.intp], scales: Sequence[Scale]) -> list[ScoreCounts]:
    """The counts of several scores with keys of 16 bits, in one pass; `kind` says of which one each tally is."""
    lists = structs.field("keys")
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    place = np.repeat((kind * 3 * KEY_COUNT).astype(np.int32), lengths)
    place += _ROWS[structs.field("labels").flatten().to_numpy(zero_copy_only=False)]
    place += lists.flatten().to_numpy(zero_copy_only=False).astype(np.int32)
    counts = structs.field("counts").flatten().to_numpy(zero_copy_only=False)
    # Floats of 64 bits hold whole numbers up to 2**53, which are more pixels than a million images have.
    dense = np.bincount(place, counts, minlength=len(scales) * 3 * KEY_COUNT).astype(np.int64)
    each = dense.reshape(len(scales), 3, KEY_COUNT)
    return [ScoreCounts.of_dense(scale, of_scale) for scale, of_scale in zip(scales, each, strict=True)]


def _texts(structs: pa.StructArray, name: str) -> NDArray[Any]:
    """A column of texts; all None where the results are older than the column."""
    if structs.type.get_field_index(name) < 0:
        return np.full(len(structs), None, object)
    return np.asarray(structs.field(name).to_numpy(zero_copy_only=False), object)


def _cells(structs: Any) -> Cells:
    keys, owner = _flatten(structs.field("keys"))
    values = [keys, structs.field("labels").flatten(), structs.field("counts").flatten()]
    return Cells(len(structs), owner, *(array.to_numpy(zero_copy_only=False) for array in values))


def _flatten(column: pa.ChunkedArray[Any] | pa.Array[Any]) -> tuple[Any, NDArray[np.intp]]:
    """The elements of all lists, and the index of the list that each is from; null is an empty list."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    lists = cast("pa.ListArray[Any]", array)
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    return lists.flatten(), np.repeat(np.arange(len(lists)), lengths)
