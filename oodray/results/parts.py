"""Writing the files of finished units: each appears whole, or not at all."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from oodray.errors import RunError
from oodray.records import table_of
from oodray.results.encoding import write_rows
from oodray.results.folder import ResultsFolder
from oodray.results.reading import read_unit
from oodray.results.rows import ResultRow


def write_part(folder: ResultsFolder, unit: int, rows: Sequence[ResultRow]) -> None:
    """Write the rows of a unit, unless its wave is closed: they were there then, and a task of Ray's was repeated.

    Raises:
        RunError: they cannot be written.
    """
    try:
        write_rows(table_of(ResultRow, rows), folder.part(unit))
    except RunError:
        # Below the name of a closed wave, which is a file, nothing can be written.
        if not _is_closed(folder, unit):
            raise


def add_to_part(folder: ResultsFolder, unit: int, rows: Sequence[ResultRow]) -> None:
    """Write rows of a unit that has a file, which keeps its rows of other images.

    Raises:
        ResultsError: the file cannot be read.
        RunError: it cannot be written.
    """
    computed = pa.array([row.image_id for row in rows])
    there = read_unit(folder, unit)
    kept = there.filter(pa.compute.invert(pa.compute.is_in(there["image_id"], computed)))
    # A manifest ascends by image.
    merged = pa.concat_tables([kept, table_of(ResultRow, rows)]).sort_by("image_id")
    try:
        write_rows(merged.combine_chunks(), folder.part(unit))
    except RunError:
        # As in `write_part`, if a task was repeated; else rows would be lost.
        if not _is_closed(folder, unit) or not _all_as(there, rows):
            raise


def _is_closed(folder: ResultsFolder, unit: int) -> bool:
    wave = folder.wave_of(unit)
    return wave is not None and not folder.is_open(wave)


def _all_as(there: pa.Table, rows: Sequence[ResultRow]) -> bool:
    """Whether images are there with the outcome that rows of them have."""
    outcome = dict(zip(there["image_id"].to_pylist(), there["status"].to_pylist(), strict=True))
    return all(outcome.get(row.image_id) == row.status for row in rows)
