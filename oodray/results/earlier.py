"""Rows as earlier versions of oodray wrote them, read as those of today."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pyarrow as pa

from oodray.metrics.scales import Float16
from oodray.results.rows import RESULT_SCHEMA

TALLIES = cast("pa.ListType[pa.StructType]", RESULT_SCHEMA.field("tallies").type)

_TALLY = pa.struct(
    [
        ("score", pa.string()),
        ("keys", pa.list_(pa.uint16())),
        ("labels", pa.list_(pa.uint8())),
        ("counts", pa.list_(pa.int64())),
    ]
)

_LATER = ("maps", "classes")
"""Columns that are new since."""

TALLIES_BEFORE_SCALES = pa.list_(_TALLY)
"""Up to version 0.1.0, where the keys of every score were those of its float16."""

TALLIES_BEFORE_LISTS = pa.list_(pa.struct([field for field in TALLIES.value_type if field.name != "packed"]))
"""Before version 0.2, where all pixels were counted by key."""


def is_known(schema: pa.Schema) -> bool:
    """Whether rows of a schema can be read: those of today, or as an earlier version wrote them.

    >>> is_known(RESULT_SCHEMA), is_known(RESULT_SCHEMA.remove(RESULT_SCHEMA.get_field_index("maps")))
    (True, True)
    >>> is_known(RESULT_SCHEMA.remove(RESULT_SCHEMA.get_field_index("unit")))
    False
    """
    if not {*RESULT_SCHEMA.names} - {*_LATER} <= {*schema.names} <= {*RESULT_SCHEMA.names}:
        return False
    return all(_is_known(field) for field in schema)


def _is_known(field: pa.Field[Any]) -> bool:
    if field.name == "tallies" and field.type in (TALLIES_BEFORE_SCALES, TALLIES_BEFORE_LISTS):
        return True
    return bool(field.type.equals(RESULT_SCHEMA.field(field.name).type))


def as_today(table: pa.Table, columns: list[str]) -> pa.Table:
    """Some columns of rows of a known schema, as they would be written today.

    Args:
        table: those of the columns that its file has.
        columns: the names, in the order that is asked for.
    """
    schema = pa.schema([RESULT_SCHEMA.field(name) for name in columns])
    return pa.Table.from_arrays([_column(table, name) for name in columns], schema=schema)


def _column(table: pa.Table, name: str) -> pa.ChunkedArray[Any] | pa.Array[Any]:
    target = RESULT_SCHEMA.field(name).type
    if name not in table.column_names:
        absent: pa.Array[Any] = pa.nulls(table.num_rows, target)
        return absent
    column: pa.ChunkedArray[Any] = table[name]
    if column.type.equals(target):
        return column
    return _filled_up(cast("pa.ListArray[Any]", column.combine_chunks()), cast("pa.ListType[Any]", target))


def _filled_up(tallies: pa.ListArray[Any], target: pa.ListType[Any]) -> pa.ListArray[Any]:
    """Tallies with the fields that they lack: those without a scale are of float16."""
    values = cast("pa.StructArray", tallies.flatten())
    absent: dict[str, Any] = {
        "scale": pa.array([Float16().name] * len(values), pa.string()),
        "packed": pa.nulls(len(values)),
    }
    fields = list(cast("pa.StructType", target.value_type))
    parts = {field.name: values.field(field.name) for field in values.type}
    struct = pa.StructArray.from_arrays([(absent | parts)[f.name].cast(f.type) for f in fields], fields=fields)
    lengths = [length or 0 for length in tallies.value_lengths().to_pylist()]
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, struct, type=target, mask=tallies.is_null())
