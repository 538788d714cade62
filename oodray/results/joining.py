"""Which units share a file, a wave of them, and how it is written: see `oodray.results.waves`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from oodray.results.encoding import rows_writer
from oodray.results.names import Wave
from oodray.results.reading import CLOSED_KEY, ClosedWave, read_rows
from oodray.results.sums import RowSums
from oodray.storage.place import Place, concurrently
from oodray.storage.remote import is_remote

PARTS_AT_ONCE = 8
"""Files of units that are read at a time, where they lie in an object store."""

UNITS_OF_A_WAVE = 512
"""Units of a file, which have about as many pixels each: about 128 MB of 4,096 images of a megapixel at 30 KB, and as
much of 65,536 that are small."""

LABELLED_UNITS_OF_A_WAVE = 128
"""The same where images have labels, and with them tallies of 100 to 300 KB."""

BYTES_OF_A_GROUP = 2**23
"""In memory, of a row group of a file, which is read at once: it ends with the unit that reaches this."""


def waves_of(manifest: pa.Table) -> list[Wave]:
    """The waves of a run.

    >>> waves_of(pa.table({"unit": [0, 0, 1], "label_uri": [None, None, "a.png"]}))
    [Wave(first=0, last=1)]
    """
    if not manifest.num_rows:
        return []
    has_labels = manifest["label_uri"].null_count < manifest.num_rows
    most = LABELLED_UNITS_OF_A_WAVE if has_labels else UNITS_OF_A_WAVE
    waves: list[Wave] = []
    for unit in np.unique(manifest["unit"].to_numpy()).tolist():
        if waves and waves[-1].last == unit - 1 and len(waves[-1]) < most:
            waves[-1] = Wave(waves[-1].first, unit)
        else:
            waves.append(Wave(unit, unit))
    return waves


def outside(manifest: pa.Table, waves: list[Wave]) -> pa.Table:
    """The images that are in none of some waves."""
    units = manifest["unit"].to_numpy()
    inside = np.zeros(len(units), bool)
    for wave in waves:
        inside |= (units >= wave.first) & (units <= wave.last)
    return manifest.filter(pa.array(~inside))


def join(parts: list[Place], wave: Wave, target: Path, sums: RowSums | None = None) -> None:
    """Write the rows of some files into one; those of a unit stay together in a row group.

    Args:
        parts: the files.
        wave: that they make.
        target: the file to write.
        sums: what the rows are added to as they pass by.
    """
    in_store = is_remote(parts[0])
    times = concurrently(lambda part: part.stat().st_mtime, parts, in_store)
    rows_of_parts = []
    group: list[pa.Table] = []
    size = 0
    with rows_writer(target) as writer:
        for part in _tables(parts, in_store):
            group.append(part)
            if sums is not None:
                sums.add(part)
            rows_of_parts.append(part.num_rows)
            size += part.nbytes
            if size >= BYTES_OF_A_GROUP:
                _write_group(writer, group)
                size = 0
        _write_group(writer, group)
        first = times.index(min(times))
        closed = ClosedWave(wave.first, wave.last, min(times), max(times), rows_of_parts[first])
        writer.add_key_value_metadata({CLOSED_KEY: json.dumps(asdict(closed))})


def _tables(parts: list[Place], in_store: bool) -> Iterator[pa.Table]:
    for start in range(0, len(parts), PARTS_AT_ONCE):
        yield from concurrently(lambda part: read_rows([part]), parts[start : start + PARTS_AT_ONCE], in_store)


def _write_group(writer: pq.ParquetWriter, group: list[pa.Table]) -> None:
    if group:
        table = pa.concat_tables(group)
        writer.write_table(table, row_group_size=max(1, table.num_rows))
    group.clear()
