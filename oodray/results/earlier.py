"""Rows as earlier versions of oodray wrote them, read as those of today."""

from __future__ import annotations

import pyarrow as pa

from oodray.metrics.scales import Float16
from oodray.results.rows import RESULT_SCHEMA

_TALLY = pa.struct(
    [
        ("score", pa.string()),
        ("keys", pa.list_(pa.uint16())),
        ("labels", pa.list_(pa.uint8())),
        ("counts", pa.list_(pa.int64())),
    ]
)

BEFORE_SCALES = pa.schema(
    [
        pa.field("tallies", pa.list_(_TALLY)) if field.name == "tallies" else field
        for field in RESULT_SCHEMA
        if field.name != "maps"
    ]
)
"""Up to version 0.1.0: the keys of every score were those of its float16, and a run kept no maps."""

KNOWN_SCHEMAS = (RESULT_SCHEMA, BEFORE_SCALES)
"""Of the files that can be read, today's first."""


def as_today(table: pa.Table, columns: list[str]) -> pa.Table:
    """Some columns of rows that have one of `KNOWN_SCHEMAS`, as they would be written today.

    Args:
        table: those of the columns that its file has.
        columns: the names, in the order that is asked for.
    """
    return pa.table({name: _column(table, name) for name in columns}, pa.schema([*map(RESULT_SCHEMA.field, columns)]))


def _column(table: pa.Table, name: str) -> pa.ChunkedArray | pa.Array:
    target = RESULT_SCHEMA.field(name).type
    if name not in table.column_names:
        return pa.nulls(table.num_rows, target)
    column = table[name]
    return column if column.type.equals(target) else _with_scales(column.combine_chunks(), target)


def _with_scales(tallies: pa.ListArray, target: pa.ListType) -> pa.ListArray:
    """Tallies of float16, with the scale that today's name."""
    values = tallies.flatten()
    parts = {name: values.field(name) for name in ("score", "keys", "labels", "counts")}
    parts["scale"] = pa.array([Float16().name] * len(values), pa.string())
    fields = list(target.value_type)
    struct = pa.StructArray.from_arrays([parts[field.name].cast(field.type) for field in fields], fields=fields)
    lengths = pa.compute.fill_null(pa.compute.list_value_length(tallies), 0)
    offsets = pa.array([0, *pa.compute.cumulative_sum(lengths).to_pylist()], pa.int32())
    return pa.ListArray.from_arrays(offsets, struct, type=target, mask=tallies.is_null())
