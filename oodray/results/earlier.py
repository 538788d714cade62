"""Rows as earlier versions of oodray wrote them, read as those of today."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
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

_LATER = ("maps", "classes")
"""Columns that are new since."""

TALLIES_BEFORE_SCALES = pa.list_(_TALLY)
"""Up to version 0.1.0, where the keys of every score were those of its float16."""

TALLIES_BEFORE_LISTS = pa.list_(
    pa.struct(
        [
            ("score", pa.string()),
            ("scale", pa.string()),
            ("keys", pa.list_(pa.uint32())),
            ("labels", pa.list_(pa.uint8())),
            ("counts", pa.list_(pa.int64())),
        ]
    )
)
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
    if field.name == "tallies" and _with_nulls(field.type) in (TALLIES_BEFORE_SCALES, TALLIES_BEFORE_LISTS):
        return True
    return bool(_with_nulls(field.type).equals(_with_nulls(RESULT_SCHEMA.field(field.name).type)))


def _with_nulls(kind: pa.DataType) -> pa.DataType:
    """A type whose lists may hold nulls, as those of files did before version 0.2."""
    if isinstance(kind, pa.ListType):
        return pa.list_(_with_nulls(kind.value_type))
    if isinstance(kind, pa.StructType):
        return pa.struct([(field.name, _with_nulls(field.type)) for field in kind])
    return kind


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
    lists: Any = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if name == "tallies":
        lists = _filled_up(lists)
    return cast("pa.Array[Any]", _without_nulls(lists, target))


def _filled_up(tallies: pa.ListArray[Any]) -> pa.ListArray[Any]:
    """Tallies with the fields that they lack: those without a scale are of float16."""
    values = cast("pa.StructArray", tallies.flatten())
    parts: dict[str, pa.Array[Any]] = {
        "scale": pa.array([Float16().name] * len(values), pa.string()),
        "packed": pa.nulls(len(values), pa.large_binary()),
    }
    parts |= {field.name: values.field(field.name) for field in values.type}
    parts["keys"] = parts["keys"].cast(pa.list_(pa.uint32()))
    return _list_like(tallies, pa.StructArray.from_arrays(list(parts.values()), [*parts]))


def _without_nulls(array: Any, target: pa.DataType) -> Any:
    """The same lists and structs, of types that say that there are no nulls in them. No number is copied."""
    if isinstance(target, pa.ListType):
        return _list_like(array, _without_nulls(array.flatten(), target.value_type), target)
    if isinstance(target, pa.StructType):
        return pa.StructArray.from_arrays(
            [_without_nulls(array.field(f.name), f.type) for f in target], fields=[*target]
        )
    return array


def _list_like(lists: pa.ListArray[Any], entries: pa.Array[Any], kind: pa.DataType | None = None) -> pa.ListArray[Any]:
    """Lists as long as others, null where these are, of other entries."""
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, entries, type=kind, mask=lists.is_null())
