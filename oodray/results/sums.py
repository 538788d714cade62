"""Rows of results added up, one table after the other: the counts that all metrics of a run follow from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oodray.errors import ResultsError
from oodray.method.rule import Rule, exceeds
from oodray.metrics.adding import DenseCounts, Runs
from oodray.metrics.cells import Cells
from oodray.metrics.evaluation import Totals
from oodray.metrics.id_quality import IdTally
from oodray.metrics.pixel_counts import PixelCounts
from oodray.metrics.scales import Float32, Keys, Scale, scale_named
from oodray.metrics.score_counts import RunningCounts, ScoreCounts
from oodray.metrics.tally import IGNORE, IN_DISTRIBUTION, OOD, Tally, first_key_at_least
from oodray.records import from_arrow
from oodray.results.cells import cells_of, entries, has_labels, keys_of_labels, whole
from oodray.results.packed_keys import unpack
from oodray.results.rows import OK, ClassCounts

COLUMNS = ["status", "clusters", "tallies", "classes"]
"""Of the rows, what is read to add them up."""

_INSIDE, _OUTSIDE, _NOT_JUDGED = 0, 1, -1


class RowSums:
    """The counts of rows of results.

    Args:
        rule: the setting at which clusters are judged; None where there are none, as with imported scores.
        compiled: see `DenseCounts`.
    """

    def __init__(self, rule: Rule | None, *, compiled: bool = False) -> None:
        self._rule, self._compiled = rule, compiled
        self._images, self._failed = 0, 0
        self._scores = ScoreSums(compiled=compiled)
        self._masks = DenseCounts(compiled=compiled)
        self._clusters: list[NDArray[np.int64]] = []
        self._classes: list[IdTally] = []

    def add(self, table: pa.Table) -> None:
        """Add rows, of which the table has `COLUMNS`; labels need not have been read, see `read_to_count`.

        Raises:
            ResultsError: the keys of a score are of a scale that is not known.
        """
        images = int(np.count_nonzero(table["status"].to_numpy() == OK))
        self._images += images
        self._failed += table.num_rows - images
        self._scores.add(table["tallies"])
        if self._rule is not None:
            self._add_clusters(table["clusters"], self._rule)
            classes = [*self._classes, *_classes(table["classes"])]
            self._classes = [IdTally.sum(classes)] if classes else []

    def _add_clusters(self, column: pa.ChunkedArray[Any], rule: Rule) -> None:
        structs = entries(column)
        keys, counts, runs = _tallies_of(structs)
        pixels = structs.field("pixels").to_numpy(zero_copy_only=False)
        of_run, below = runs.pixels(keys, counts, first_key_at_least(rule.tau), compiled=self._compiled)
        unsure = _by_owner(runs, below, len(structs))
        ood, ind = (
            _by_owner(runs, np.where(runs.labels == label, of_run, 0), len(structs)) for label in (OOD, IN_DISTRIBUTION)
        )
        judged = structs.field("k").to_numpy(zero_copy_only=False) == rule.k
        group = np.where(exceeds(unsure, pixels, rule.ood_ratio), _INSIDE, _OUTSIDE)
        self._masks.add(runs, np.where(judged, group, _NOT_JUDGED)[runs.owner], keys, counts)
        self._clusters.append(np.stack([unsure, pixels, ood, ind])[:, judged])

    def total(self) -> Totals:
        """The counts of what was added so far.

        Raises:
            ResultsError: the keys of a score are of two scales.
        """
        return Totals(
            images=self._images,
            failed=self._failed,
            scores=self._scores.total(),
            inside=Tally.of_dense(self._masks.pixels(_INSIDE)),
            outside=Tally.of_dense(self._masks.pixels(_OUTSIDE)),
            clusters=np.concatenate([np.zeros((4, 0), np.int64), *self._clusters], axis=1),
            classes=self._classes[0] if self._classes else None,
        )


class ScoreSums:
    """The pixels of each score by key and label, of `tallies` columns of result rows."""

    def __init__(self, *, compiled: bool = False) -> None:
        self._number: dict[tuple[str, str | None], int] = {}
        self._scales: list[Scale] = []
        self._dense = DenseCounts(compiled=compiled)
        self._exact: defaultdict[int, RunningCounts] = defaultdict(RunningCounts)

    def add(self, column: pa.ChunkedArray[Any]) -> None:
        """Add the tallies of rows.

        Raises:
            ResultsError: the keys of a score are of two scales, or of one that is not known.
        """
        structs = entries(column)
        number = self._numbered(structs)
        is_exact = np.array([isinstance(scale, Float32) for scale in self._scales], np.bool_)[number]
        if is_exact.any():
            self._add_exact(structs, number, is_exact)
        if not is_exact.all():
            keys, counts, runs = _tallies_of(structs)
            self._dense.add(runs, np.where(is_exact, -1, number)[runs.owner], keys, counts)

    def _numbered(self, structs: Any) -> NDArray[np.intp]:
        """Of which score and scale each tally is, by a number."""
        names = zip(_texts(structs, "score"), _texts(structs, "scale"), strict=True)
        numbers = np.array([self._number.setdefault(name, len(self._number)) for name in names], np.intp)
        self._scales += [_scale(scale) for _, scale in list(self._number)[len(self._scales) :]]
        return numbers

    def _add_exact(self, structs: Any, number: NDArray[np.intp], chosen: NDArray[np.bool_]) -> None:
        """Add tallies of keys of 32 bits: those of a table become one list before they are kept."""
        cells = cells_of(structs)
        of_table: defaultdict[int, RunningCounts] = defaultdict(RunningCounts)
        packed = structs.field("packed")
        for tally in np.flatnonzero(chosen).tolist():
            of = int(number[tally])
            if packed[tally].is_valid:
                of_table[of].add(PixelCounts(self._scales[of], [unpack(packed[tally].as_buffer())]))
            else:
                part = _cells_of_one(cells, tally)
                of_table[of].add(ScoreCounts.of(self._scales[of], part.keys, part.labels, part.counts))
        for of, running in of_table.items():
            self._exact[of].add(running.total())

    def total(self) -> dict[str, ScoreCounts]:
        """The counts of each score.

        Raises:
            ResultsError: the keys of a score are of two scales.
        """
        found: defaultdict[str, RunningCounts] = defaultdict(RunningCounts)
        for (score, _), number in self._number.items():
            if number in self._exact:
                found[score].add(self._exact[number].total())
            else:
                dense = self._dense.pixels(number, (OOD, IN_DISTRIBUTION, IGNORE))
                found[score].add(ScoreCounts.of_dense(self._scales[number], dense))
        return {score: running.total() for score, running in found.items()}


def score_counts(column: pa.ChunkedArray[Any]) -> dict[str, ScoreCounts]:
    """The `tallies` column of result rows: the labelled pixels of each score, over all rows.

    Raises:
        ResultsError: the keys of a score are of two scales, or of one that is not known.
    """
    sums = ScoreSums()
    sums.add(column)
    return sums.total()


def score_counts_by_row(column: pa.ChunkedArray[Any]) -> list[dict[str, ScoreCounts]]:
    """The `tallies` column of result rows: by row, the pixels of each score.

    Raises:
        ResultsError: the keys of a score are of a scale that is not known.
    """
    rows = whole(column)
    return [score_counts(pa.chunked_array([rows.slice(row, 1)])) for row in range(len(rows))]


def _tallies_of(structs: Any) -> tuple[Keys, NDArray[np.int64], Runs]:
    """Keys and counts of all cells of structs that hold a tally each, and their runs.

    Raises:
        ResultsError: tallies have another number of keys than of counts, or than they say.
    """
    keys, counts = (structs.field(name).flatten().to_numpy(zero_copy_only=False) for name in ("keys", "counts"))
    if has_labels(structs):
        lengths = structs.field("keys").value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        labels = structs.field("labels").flatten().to_numpy(zero_copy_only=False)
        runs = Runs.of(lengths, labels)
    else:
        runs = Runs.of_labels(keys_of_labels(structs))
    # The loops that add them rely on it.
    if runs.lengths.min(initial=0) < 0 or not runs.lengths.sum() == len(keys) == len(counts):
        raise ResultsError(
            f"tallies of this run have {len(keys)} keys and {len(counts)} counts, and say that they have "
            f"{runs.lengths.sum()}: a file of results was changed. Delete it and run again to remake it"
        )
    return keys, counts, runs


def _by_owner(runs: Runs, numbers: NDArray[np.int64], owners: int) -> NDArray[np.int64]:
    """The sum of a number of each run, by tally."""
    sums = np.zeros(owners, np.int64)
    np.add.at(sums, runs.owner, numbers)
    return sums


def _cells_of_one(cells: Cells, tally: int) -> Cells:
    first, end = np.searchsorted(cells.owner, (tally, tally + 1)).tolist()
    part = slice(first, end)
    return Cells(cells.owners, cells.owner[part], cells.keys[part], cells.labels[part], cells.counts[part])


def _scale(name: str | None) -> Scale:
    try:
        return scale_named(name)
    except ValueError as error:
        raise ResultsError(str(error)) from None


def _texts(structs: pa.StructArray, name: str) -> NDArray[Any]:
    """A column of texts; all None where the results are older than the column."""
    if structs.type.get_field_index(name) < 0:
        return np.full(len(structs), None, object)
    return np.asarray(structs.field(name).to_numpy(zero_copy_only=False), object)


def _classes(column: pa.ChunkedArray[Any]) -> Iterator[IdTally]:
    """What the network made of true classes in some rows."""
    structs = entries(column)
    return (counts.tally() for counts in from_arrow(ClassCounts, structs)) if len(structs) else iter(())
