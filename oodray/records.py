"""Records: dataclasses whose fields name their Arrow types, so that what crosses a border is declared once.

A record is a frozen dataclass. Python and mypy see its fields; Arrow sees the struct that `struct_of` derives from the
same annotations. Arrays of pixels travel as bytes, and are shaped again by the record's own `height` and `width`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from types import UnionType
from typing import Annotated, Any, ClassVar, Protocol, TypeVar, cast, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Int8 = Annotated[int, pa.int8()]
Int16 = Annotated[int, pa.int16()]
Int32 = Annotated[int, pa.int32()]
Int64 = Annotated[int, pa.int64()]


@dataclass(frozen=True)
class Pixels:
    """Says of an array in a record that it has one value, or one for each channel, for every pixel.

    Attributes:
        dtype: of the values.
        channels: of an array `(height, width, channels)`; None for an array `(height, width)`.
    """

    dtype: type[np.generic]
    channels: int | None = None


RgbPixels = Annotated[NDArray[np.uint8], Pixels(np.uint8, 3)]
BytePixels = Annotated[NDArray[np.uint8], Pixels(np.uint8)]
Int16Pixels = Annotated[NDArray[np.int16], Pixels(np.int16)]
UInt16Pixels = Annotated[NDArray[np.uint16], Pixels(np.uint16)]
Float16Pixels = Annotated[NDArray[np.float16], Pixels(np.float16)]


def _list_of(entry: pa.DataType) -> pa.ListType[Any]:
    """Lists without nulls: long ones are read from Parquet in two thirds of the time of lists that could have some."""
    return pa.list_(pa.field("item", entry, nullable=False))


UInt8List = Annotated[NDArray[np.uint8], _list_of(pa.uint8())]
UInt32List = Annotated[NDArray[np.uint32], _list_of(pa.uint32())]
UInt16List = Annotated[NDArray[np.uint16], _list_of(pa.uint16())]
Int64List = Annotated[NDArray[np.int64], _list_of(pa.int64())]
Float64List = Annotated[NDArray[np.float64], _list_of(pa.float64())]


class IsRecord(Protocol):
    """A dataclass of which every field has an Arrow type."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


Record = TypeVar("Record", bound=IsRecord)

_PLAIN: dict[Any, pa.DataType] = {str: pa.string(), float: pa.float64(), bool: pa.bool_(), bytes: pa.binary()}


def struct_of(record: type[IsRecord]) -> pa.StructType:
    """The Arrow struct of a record: its fields, in their order.

    >>> @dataclass(frozen=True)
    ... class Cluster:
    ...     k: Int16
    ...     ratio: float | None
    >>> struct_of(Cluster)
    StructType(struct<k: int16, ratio: double>)
    """
    return pa.struct([(name, _arrow_type(hint)) for name, hint in _hints(record).items()])


def schema_of(record: type[IsRecord]) -> pa.Schema:
    """The schema of a table with a row for each record."""
    return pa.schema(list(struct_of(record)))


def to_arrow(record: type[Record], values: Sequence[Record]) -> pa.StructArray:
    """Records as an Arrow array. Every array of pixels is copied once.

    Raises:
        pyarrow.ArrowException: a value is not of the type that its field names.
    """
    return _to_arrow(record, values, struct_of(record))


def _to_arrow(record: type[Record], values: Sequence[Record], struct: pa.StructType) -> pa.StructArray:
    columns = [_column([getattr(value, name) for value in values], hint) for name, hint in _hints(record).items()]
    return pa.StructArray.from_arrays(columns, fields=list(struct))


def from_arrow(record: type[Record], array: pa.StructArray) -> list[Record]:
    """The records of an Arrow array. Arrays of pixels are views of its memory, and cannot be written to."""
    hints = _hints(record)
    columns = {name: _values(array.field(name), hint) for name, hint in hints.items()}
    for name, hint in hints.items():
        pixels = _marker(hint, Pixels)
        if pixels is not None:
            columns[name] = list(map(_shaped(pixels), columns[name], columns["height"], columns["width"]))
    return [record(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def table_of(record: type[Record], values: Sequence[Record]) -> pa.Table:
    """A table with a row for each record."""
    return pa.Table.from_batches([pa.RecordBatch.from_struct_array(to_arrow(record, values))], schema_of(record))


def extended(record: type[Record], source: object, **more: Any) -> Record:
    """A record with the fields that it shares with another one, and more.

    >>> @dataclass(frozen=True)
    ... class Listed:
    ...     image_id: str
    >>> @dataclass(frozen=True)
    ... class Decoded(Listed):
    ...     seconds: float
    >>> extended(Decoded, Listed("a"), seconds=0.5)
    Decoded(image_id='a', seconds=0.5)
    """
    shared = {name: getattr(source, name) for name in _hints(record) if name not in more and hasattr(source, name)}
    return record(**shared, **more)


@functools.cache
def _hints(record: type[IsRecord]) -> dict[str, Any]:
    """The annotation of each field, without `None`."""
    hints = get_type_hints(record, include_extras=True)
    return {field.name: _without_none(hints[field.name]) for field in fields(record)}


def _without_none(hint: Any) -> Any:
    if isinstance(hint, UnionType) or (get_origin(hint) is not Annotated and type(None) in get_args(hint)):
        [hint] = [choice for choice in get_args(hint) if choice is not type(None)]
    return hint


@functools.cache
def _marker(hint: Any, kind: type[Any]) -> Any:
    """What an annotation says beside the Python type, if it is of a kind."""
    return next((extra for extra in get_args(hint)[1:] if isinstance(extra, kind)), None)


@functools.cache
def _listed(hint: Any) -> Any:
    """The record that an annotation `list[record]` names; None for any other."""
    item = get_args(hint)[0] if get_origin(hint) is list else None
    return item if hasattr(item, "__dataclass_fields__") else None


@functools.cache
def _arrow_type(hint: Any) -> pa.DataType:
    if get_origin(hint) is Annotated:
        # Pixels of many images can exceed the 2 GiB that 32-bit offsets reach.
        return pa.large_binary() if _marker(hint, Pixels) else _marker(hint, pa.DataType)
    if get_origin(hint) is list:
        item = _listed(hint)
        return _list_of(_arrow_type(get_args(hint)[0]) if item is None else _entry_of(item))
    return _PLAIN[hint]


def _entry_of(record: type[IsRecord]) -> pa.StructType:
    """The struct of a record in a list: null is only what may be None."""
    hints = get_type_hints(record, include_extras=True)
    return pa.struct(
        [field.with_nullable(_without_none(hints[field.name]) != hints[field.name]) for field in struct_of(record)]
    )


def _column(values: list[Any], hint: Any) -> pa.Array[Any]:
    item = _listed(hint)
    if item is not None:
        lengths = [0 if value is None else len(value) for value in values]
        starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).tolist()
        offsets = [None if value is None else start for value, start in zip(values, starts, strict=False)]
        kind = cast("pa.ListType[Any]", _arrow_type(hint))
        entries = [entry for value in values if value is not None for entry in value]
        inner = _to_arrow(item, entries, cast("pa.StructType", kind.value_type))
        return pa.ListArray.from_arrays(pa.array([*offsets, starts[-1]], pa.int32()), inner, type=kind)
    if get_origin(hint) is Annotated and pa.types.is_list(_arrow_type(hint)):
        return _lists(values, cast("pa.ListType[Any]", _arrow_type(hint)))
    if _marker(hint, Pixels):
        values = [None if value is None else np.ascontiguousarray(value).data.cast("B") for value in values]
    return pa.array(values, _arrow_type(hint))


def _lists(values: list[Any], kind: pa.ListType[Any]) -> pa.Array[Any]:
    """Arrays of numbers as lists. One alone is not copied, others once."""
    given = [np.asarray(value) for value in values if value is not None]
    ends = np.cumsum([0, *(0 if value is None else len(value) for value in values)], dtype=np.int64).tolist()
    offsets = [None if value is None else start for value, start in zip(values, ends, strict=False)]
    joined: Any = given[0] if len(given) == 1 else np.concatenate(given) if given else []
    entries: pa.Array[Any] = pa.array(joined, kind.value_type)
    return pa.ListArray.from_arrays(pa.array([*offsets, ends[-1]], pa.int32()), entries, type=kind)


def _values(column: pa.Array[Any], hint: Any) -> list[Any]:
    item = _listed(hint)
    if item is not None:
        lists = cast("pa.ListArray[Any]", column)
        entries = iter(from_arrow(item, cast("pa.StructArray", lists.flatten())))
        return [
            None if length is None else [next(entries) for _ in range(length)]
            for length in lists.value_lengths().to_pylist()
        ]
    if _marker(hint, Pixels):
        return _buffers(cast("pa.LargeBinaryArray", column))
    if get_origin(hint) is Annotated and pa.types.is_list(_arrow_type(hint)):
        return [scalar.values if scalar.values is None else scalar.values.to_numpy() for scalar in column]
    values: list[Any] = column.to_pylist()
    return values


def _buffers(column: pa.LargeBinaryArray) -> list[pa.Buffer | None]:
    """The bytes of each entry, where they lie: `as_buffer` of a scalar would copy them."""
    _, offsets, data = cast("list[pa.Buffer]", column.buffers())
    entries = len(column)
    bounds = np.frombuffer(memoryview(offsets), np.int64, entries + 1, 8 * column.offset).tolist() if entries else []
    return [
        data.slice(start, end - start) if valid else None
        for valid, (start, end) in zip(column.is_valid().to_pylist(), pairwise(bounds), strict=True)
    ]


def _shaped(pixels: Pixels) -> Any:
    """Makes an array of pixels from a buffer, a height and a width; None of no buffer."""
    channels = () if pixels.channels is None else (pixels.channels,)

    def shaped(buffer: pa.Buffer | None, height: int, width: int) -> NDArray[Any] | None:
        if buffer is None:
            return None
        # Of what Ray has not moved, the memory could be written to.
        return np.frombuffer(memoryview(buffer).toreadonly(), pixels.dtype).reshape(height, width, *channels)

    return shaped
