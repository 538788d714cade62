"""How the files of results are encoded: keys and counts ascend or are small, and most bytes are theirs."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from oodray.results.rows import RESULT_SCHEMA, TALLIES
from oodray.storage.atomic import replacing
from oodray.storage.place import Place

_DELTAS = tuple(f"{column}.list.element.{name}.list.element" for column in TALLIES for name in ("keys", "counts"))
_REPEATED = (
    *(f"{column}.list.element.labels.list.element" for column in TALLIES),
    *("tallies.list.element.score", "tallies.list.element.scale", "dataset", "status", "error", "warning"),
)

ENCODING: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 3,
    "column_encoding": dict.fromkeys(_DELTAS, "DELTA_BINARY_PACKED"),
    "use_dictionary": list(_REPEATED),
}
"""Differences, packed into bits, then zstd: half the bytes of Parquet's own choice where images have labels, and faster
to read (benchmarks/RESULTS-METRICS.md)."""


def write_rows(table: pa.Table, target: Place) -> None:
    """Write rows of results as a file that appears whole or not at all.

    Raises:
        RunError: if it cannot be written.
    """
    with replacing(target) as temporary:
        pq.write_table(table, temporary, **ENCODING)


def rows_writer(target: Any) -> pq.ParquetWriter:
    """A writer of many groups of rows."""
    return pq.ParquetWriter(target, RESULT_SCHEMA, **ENCODING)
