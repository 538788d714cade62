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
    _write(folder, unit, table_of(ResultRow, rows))


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
    _write(folder, unit, merged.combine_chunks())


def _write(folder: ResultsFolder, unit: int, table: pa.Table) -> None:
    try:
        write_rows(table, folder.part(unit))
    except RunError:
        # Below the name of a closed wave, which is a file, nothing can be written.
        wave = folder.wave_of(unit)
        if wave is None or folder.is_open(wave):
            raise
