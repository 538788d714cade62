"""Writing the files of finished units: each appears whole, or not at all."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from oodray.records import table_of
from oodray.results.folder import ResultsFolder, write_table
from oodray.results.reading import read_rows
from oodray.results.rows import ResultRow


def write_part(folder: ResultsFolder, unit: int, rows: Sequence[ResultRow]) -> None:
    """Write the rows of a unit.

    Raises:
        RunError: they cannot be written.
    """
    write_table(table_of(ResultRow, rows), folder.part(unit))


def add_to_part(folder: ResultsFolder, unit: int, rows: Sequence[ResultRow]) -> None:
    """Write rows of a unit that has a file, which keeps its rows of other images.

    Raises:
        ResultsError: the file cannot be read.
        RunError: it cannot be written.
    """
    computed = pa.array([row.image_id for row in rows])
    there = read_rows([folder.part(unit)])
    kept = there.filter(pa.compute.invert(pa.compute.is_in(there["image_id"], computed)))
    # A manifest ascends by image.
    merged = pa.concat_tables([kept, table_of(ResultRow, rows)]).sort_by("image_id")
    write_table(merged.combine_chunks(), folder.part(unit))
