"""Rows as earlier versions of oodray wrote them, read as those of today."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pyarrow as pa

from oodray.metrics.scales import Float16
from oodray.results.rows import KEYS_OF_LABELS, RESULT_SCHEMA

_LATER = ("maps", "classes")
"""Columns that are new since."""

_LATER_IN = {"clusters": frozenset(KEYS_OF_LABELS), "tallies": frozenset({"scale", "packed", *KEYS_OF_LABELS})}
"""Fields of the entries of columns that are new since."""

_KEYS_BEFORE_SCALES = pa.list_(pa.uint16())
"""Of scores up to version 0.1.0, where the keys of every score were those of its float16."""


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
    kind, today = _with_nulls(field.type), _with_nulls(RESULT_SCHEMA.field(field.name).type)
    if kind.equals(today):
        return True
    there, wanted = _fields_of_entries(kind), _fields_of_entries(today)
    if "scale" not in there and there.get("keys") == _KEYS_BEFORE_SCALES:
        there["keys"] = wanted.get("keys", _KEYS_BEFORE_SCALES)
    lacking = wanted.keys() - there.keys()
    return bool(there) and lacking <= _LATER_IN.get(field.name, set()) and there.items() <= wanted.items()


def _fields_of_entries(kind: pa.DataType) -> dict[str, pa.DataType]:
    """The types of the fields of the structs in a list; none of any other type."""
    if isinstance(kind, pa.ListType) and isinstance(kind.value_type, pa.StructType):
        return {field.name: field.type for field in kind.value_type}
    return {}


def _with_nulls(kind: pa.DataType) -> pa.DataType:
    """A type whose lists may hold nulls, as those of files did before version 0.2."""
    if isinstance(kind, pa.ListType):
        return pa.list_(_with_nulls(kind.value_type))
    if isinstance(kind, pa.StructType):
        return pa.struct([(field.name, _with_nulls(field.type)) for field in kind])
    return kind


def as_today(table: pa.Table, columns: list[str], *, labels: bool = True) -> pa.Table:
    """Some columns of rows of a known schema, as they would be written today.

    Args:
        table: those of the columns that its file has.
        columns: the names, in the order that is asked for.
        labels: whether clusters and tallies have the label of each key, and how many keys have each; else either is
            enough.
    """
    arrays = [_column(table, name, labels=labels) for name in columns]
    if not labels:
        return pa.Table.from_arrays(arrays, names=columns)
    return pa.Table.from_arrays(arrays, schema=pa.schema([RESULT_SCHEMA.field(name) for name in columns]))


def _column(table: pa.Table, name: str, *, labels: bool) -> pa.ChunkedArray[Any] | pa.Array[Any]:
    target = RESULT_SCHEMA.field(name).type
    if name not in table.column_names:
        absent: pa.Array[Any] = pa.nulls(table.num_rows, target)
        return absent
    column: pa.ChunkedArray[Any] = table[name]
    if column.type.equals(target) or (not labels and _is_enough_to_count(column.type, target)):
        return column
    lists: Any = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if name in _LATER_IN:
        lists = _filled_up(lists, target.value_type)
    return cast("pa.Array[Any]", _without_nulls(lists, target))


def _is_enough_to_count(kind: pa.DataType, today: pa.DataType) -> bool:
    """Whether tallies lack nothing, but either the labels of their keys or how many keys have each."""
    there, wanted = _fields_of_entries(kind), _fields_of_entries(today)
    return wanted.keys() - there.keys() in ({"labels"}, {*KEYS_OF_LABELS}) and there.items() <= wanted.items()


def _filled_up(lists: pa.ListArray[Any], today: pa.StructType) -> pa.ListArray[Any]:
    """Clusters or tallies with the fields that they lack: those without a scale are of float16."""
    values = cast("pa.StructArray", lists.flatten())
    parts: dict[str, pa.Array[Any]] = {field.name: values.field(field.name) for field in values.type}
    if "packed" in today.names:
        parts.setdefault("scale", pa.array([Float16().name] * len(values), pa.string()))
        parts.setdefault("packed", pa.nulls(len(values), pa.large_binary()))
        parts["keys"] = parts["keys"].cast(pa.list_(pa.uint32()))
    if not KEYS_OF_LABELS.keys() <= parts.keys():
        parts |= _keys_of_labels(parts["labels"])
    return _list_like(lists, pa.StructArray.from_arrays([parts[name] for name in today.names], today.names))


def _keys_of_labels(lists: Any) -> dict[str, pa.Array[Any]]:
    """How many keys of each tally have each label, from the labels of all keys."""
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    labels = lists.flatten().to_numpy(zero_copy_only=False)
    owner = np.repeat(np.arange(len(lists)), lengths)
    return {
        name: pa.array(np.bincount(owner[labels == label], minlength=len(lists)), pa.int32())
        for name, label in KEYS_OF_LABELS.items()
    }


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
