"""Records, against Arrow's own conversions of plain Python."""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pixel_oracles import METHOD, failed_row, random_images
from plain_records import plain

from oodray.datasets.manifest import MANIFEST_SCHEMA, ListedImage
from oodray.job.finisher import Finisher
from oodray.records import (
    BytePixels,
    Float16Pixels,
    Int8,
    Int16,
    Int32,
    Int64,
    Int64List,
    RgbPixels,
    UInt8List,
    UInt16List,
    extended,
    from_arrow,
    schema_of,
    struct_of,
    table_of,
    to_arrow,
)
from oodray.results.rows import RESULT_SCHEMA, ClusterRow, ResultRow, ScoreTally


@dataclass(frozen=True, kw_only=True)
class Map:
    """An entry of a list, itself with pixels and lists."""

    name: str
    height: Int32
    width: Int32
    ids: BytePixels
    counts: Int64List


@dataclass(frozen=True, kw_only=True)
class Everything:
    """A field of every kind."""

    text: str
    maybe_text: str | None
    flag: bool
    number: float
    maybe_number: float | None
    tiny: Int8
    small: Int16 | None
    large: Int64
    data: bytes | None
    height: Int32 | None
    width: Int32 | None
    image: RgbPixels | None
    label: BytePixels | None
    confidence: Float16Pixels | None
    keys: UInt16List | None
    labels: UInt8List
    words: list[str]
    ks: list[Int16] | None
    maps: list[Map] | None


def full(kind: pa.DataType) -> pa.DataType:
    """Lists without nulls."""
    return pa.list_(pa.field("item", kind, nullable=False))


def entry(*columns: tuple[str, pa.DataType], maybe: tuple[str, ...] = ()) -> pa.StructType:
    """A struct in a list, of which only some fields may be null."""
    return pa.struct([pa.field(name, kind, nullable=name in maybe) for name, kind in columns])


EVERYTHING = pa.struct(
    [
        ("text", pa.string()),
        ("maybe_text", pa.string()),
        ("flag", pa.bool_()),
        ("number", pa.float64()),
        ("maybe_number", pa.float64()),
        ("tiny", pa.int8()),
        ("small", pa.int16()),
        ("large", pa.int64()),
        ("data", pa.binary()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("image", pa.large_binary()),
        ("label", pa.large_binary()),
        ("confidence", pa.large_binary()),
        ("keys", full(pa.uint16())),
        ("labels", full(pa.uint8())),
        ("words", full(pa.string())),
        ("ks", full(pa.int16())),
        (
            "maps",
            full(
                entry(
                    ("name", pa.string()),
                    ("height", pa.int32()),
                    ("width", pa.int32()),
                    ("ids", pa.large_binary()),
                    ("counts", full(pa.int64())),
                )
            ),
        ),
    ]
)


def as_python(value: Any) -> Any:
    """A record as Arrow takes it without us: pixels as bytes, other arrays as lists."""
    if isinstance(value, list):
        return [as_python(entry) for entry in value]
    if not hasattr(value, "__dataclass_fields__"):
        return value
    content = {}
    for field in fields(value):
        found = getattr(value, field.name)
        if isinstance(found, np.ndarray):
            content[field.name] = found.tobytes() if "Pixels" in str(field.type) else found.tolist()
        else:
            content[field.name] = as_python(found)
    return content


def whole(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def arrays(dtype: type[np.integer[Any]]) -> st.SearchStrategy[NDArray[Any]]:
    limits = np.iinfo(dtype)
    return st.lists(st.integers(int(limits.min), int(limits.max)), max_size=4).map(
        lambda values: np.array(values, dtype)
    )


@st.composite
def pixels(
    draw: st.DrawFn, height: int, width: int, dtype: type[np.generic], channels: tuple[int, ...] = ()
) -> NDArray[Any]:
    """Any bits at all, of float16 too; as they lie in memory, or turned, or every second one."""
    bits = np.uint16 if dtype is np.float16 else np.uint8
    shape = (height, width, *channels)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    content = random.integers(0, np.iinfo(bits).max, (2 * height, width, *channels), bits, endpoint=True).view(dtype)
    layout = draw(st.sampled_from(["contiguous", "strided", "Fortran", "turned"]))
    found = {
        "contiguous": content[:height].copy(),
        "strided": content[::2],
        "Fortran": np.asfortranarray(content[:height]),
        "turned": np.rot90(content[:height], 2),
    }[layout]
    assert found.shape == shape
    return found


@st.composite
def everything(draw: st.DrawFn) -> Everything:
    def size() -> tuple[int, int]:
        return draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))

    def a_map() -> Map:
        height, width = size()
        return Map(
            name=draw(st.text()),
            height=height,
            width=width,
            ids=draw(pixels(height, width, np.uint8)),
            counts=draw(arrays(np.int64)),
        )

    decoded = draw(st.booleans())
    height, width = size()
    maps = None if draw(st.booleans()) else [a_map() for _ in range(draw(st.integers(0, 3)))]
    return Everything(
        text=draw(st.text()),
        maybe_text=draw(st.none() | st.text()),
        flag=draw(st.booleans()),
        number=draw(st.floats(allow_nan=False)),
        maybe_number=draw(st.none() | st.floats(allow_nan=False)),
        tiny=draw(whole(8)),
        small=draw(st.none() | whole(16)),
        large=draw(whole(64)),
        data=draw(st.none() | st.binary(max_size=5)),
        height=height if decoded else None,
        width=width if decoded else None,
        image=draw(pixels(height, width, np.uint8, (3,))) if decoded else None,
        label=draw(pixels(height, width, np.uint8)) if decoded and draw(st.booleans()) else None,
        confidence=draw(pixels(height, width, np.float16)) if decoded else None,
        keys=draw(st.none() | arrays(np.uint16)),
        labels=draw(arrays(np.uint8)),
        words=draw(st.lists(st.text(), max_size=3)),
        ks=draw(st.none() | st.lists(whole(16), max_size=3)),
        maps=maps,
    )


Columns = list[tuple[str, pa.DataType]]


class TestTypes:
    def test_a_struct_has_a_field_of_the_named_type_for_each(self) -> None:
        assert struct_of(Everything).equals(EVERYTHING)
        assert schema_of(Everything).equals(pa.schema(list(EVERYTHING)))

    def test_the_files_of_results_have_the_columns_that_they_have_had(self) -> None:
        tally: Columns = [
            ("keys", full(pa.uint16())),
            ("labels", full(pa.uint8())),
            ("counts", full(pa.int64())),
            ("keys_id", pa.int32()),
            ("keys_ood", pa.int32()),
            ("keys_ignored", pa.int32()),
        ]
        of_cluster: Columns = [
            ("k", pa.int16()),
            ("cluster", pa.int16()),
            ("pixels", pa.int64()),
            ("ratio", pa.float64()),
        ]
        cluster = entry(*of_cluster, *tally)
        of_score: Columns = [("score", pa.string()), ("scale", pa.string()), ("keys", full(pa.uint32()))]
        score_tally = entry(*of_score, *tally[1:], ("packed", pa.large_binary()), maybe=("packed",))
        kept_map = entry(("name", pa.string()), ("scale", pa.string()), ("data", pa.large_binary()), maybe=("scale",))
        whole, real = full(pa.int64()), full(pa.float64())
        class_counts = entry(
            ("count", pa.int16()),
            ("inside", full(pa.uint8())),
            *((name, full(pa.uint16())) for name in ("true", "predicted")),
            *((name, whole) for name in ("counts", "pixels", "correct")),
            ("confidence", real),
            ("squares", pa.float64()),
        )
        columns: Columns = [
            ("unit", pa.int32()),
            ("image_id", pa.string()),
            ("dataset", pa.string()),
            ("image_uri", pa.string()),
            ("label_uri", pa.string()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("status", pa.string()),
            ("error", pa.string()),
            ("warning", pa.string()),
            ("orientation", pa.int8()),
            ("mask_png", pa.binary()),
            ("clusters_png", pa.binary()),
            ("ood_fraction", pa.float64()),
            ("image_score", pa.float64()),
            ("clusters", full(cluster)),
            ("tallies", full(score_tally)),
            ("maps", full(kept_map)),
            ("classes", full(class_counts)),
            ("seconds_decode", pa.float64()),
            ("seconds_segment", pa.float64()),
            ("seconds_cluster", pa.float64()),
            ("seconds_finish", pa.float64()),
        ]
        assert RESULT_SCHEMA.equals(pa.schema(columns), check_metadata=True)
        for record, of_entry in ((ClusterRow, cluster), (ScoreTally, score_tally)):
            assert struct_of(record).equals(pa.struct([field.with_nullable(True) for field in of_entry]))

    def test_a_manifest_has_the_columns_that_it_has_had(self) -> None:
        columns: Columns = [
            ("unit", pa.int32()),
            ("image_id", pa.string()),
            ("dataset", pa.string()),
            ("image_uri", pa.string()),
            ("label_uri", pa.string()),
        ]
        assert MANIFEST_SCHEMA.equals(pa.schema(columns), check_metadata=True)

    def test_a_file_of_results_has_the_bytes_that_it_had_when_rows_were_dicts(self) -> None:
        rows = [*(Finisher(METHOD, "").finish(image) for image in random_images(0, 3)), failed_row("ü")]
        files = [io.BytesIO(), io.BytesIO()]
        dicts = [as_python(row) for row in rows]
        for table, file in zip(
            (table_of(ResultRow, rows), pa.Table.from_pylist(dicts, schema=RESULT_SCHEMA)), files, strict=True
        ):
            pq.write_table(table, file)
        assert files[0].getvalue() == files[1].getvalue()


class TestRoundTrip:
    @given(st.lists(everything(), max_size=4))
    def test_records_are_to_arrow_what_their_content_is(self, records: list[Everything]) -> None:
        found = to_arrow(Everything, records)
        found.validate(full=True)
        expected: pa.Array[Any] = pa.array([as_python(record) for record in records], EVERYTHING)
        assert expected.equals(found)

    @given(st.lists(everything(), max_size=4))
    def test_records_come_back_as_they_were(self, records: list[Everything]) -> None:
        assert plain(from_arrow(Everything, to_arrow(Everything, records))) == plain(records)

    @given(st.lists(everything(), min_size=1, max_size=4), st.data())
    def test_a_slice_holds_the_records_of_it(self, records: list[Everything], data: st.DataObject) -> None:
        start = data.draw(st.integers(0, len(records)))
        end = data.draw(st.integers(start, len(records)))
        array = to_arrow(Everything, records).slice(start, end - start)
        assert plain(from_arrow(Everything, array)) == plain(records[start:end])

    @given(st.lists(everything(), max_size=4))
    def test_a_table_has_a_row_for_each(self, records: list[Everything]) -> None:
        table = table_of(Everything, records)
        assert table.schema.equals(pa.schema(list(EVERYTHING)))
        assert table.equals(pa.Table.from_pylist([as_python(record) for record in records], table.schema))
        joined = pa.concat_tables([table, table]).combine_chunks()
        again = [record for batch in joined.to_batches() for record in from_arrow(Everything, batch.to_struct_array())]
        assert plain(again) == plain([*records, *records])

    def test_a_table_without_records_has_their_columns(self) -> None:
        table = table_of(Everything, [])
        assert (table.num_rows, table.schema) == (0, schema_of(Everything))

    def test_nan_keeps_its_payload_and_zero_its_sign(self) -> None:
        bits = np.array([[0x7E00, 0x7E01, 0xFE00, 0x7D55], [0x8000, 0x0000, 0x0001, 0xFC00]], np.uint16)
        sent = extended(ListedMap, Listed("a"), height=2, width=4, values=bits.view(np.float16))
        [found] = from_arrow(ListedMap, to_arrow(ListedMap, [sent]))
        assert found.values is not None
        assert found.values.dtype == np.float16
        np.testing.assert_array_equal(found.values.view(np.uint16), bits)

    def test_pixels_are_views_that_cannot_be_written_to(self) -> None:
        array = to_arrow(ListedMap, [ListedMap("a", 1, 2, np.zeros((1, 2), np.float16))])
        one, other = (from_arrow(ListedMap, array)[0].values for _ in range(2))
        assert one is not None
        assert other is not None
        assert np.shares_memory(one, other)
        with pytest.raises(ValueError, match="read-only"):
            one[0, 0] = 1

    @pytest.mark.parametrize("change", [{"height": 2**31}, {"height": "2"}, {"image_id": 5}])
    def test_a_value_of_another_type_is_refused(self, change: dict[str, Any]) -> None:
        content: dict[str, Any] = {"image_id": "a", "height": 1, "width": 1, "values": np.zeros((1, 1), np.float16)}
        wrong = ListedMap(**content | change)
        with pytest.raises((pa.ArrowException, TypeError)):
            to_arrow(ListedMap, [wrong])


@dataclass(frozen=True)
class Listed:
    image_id: str


@dataclass(frozen=True)
class ListedMap(Listed):
    height: Int32 | None = None
    width: Int32 | None = None
    values: Float16Pixels | None = None


class TestExtended:
    def test_what_both_have_is_taken_and_what_is_given_wins(self) -> None:
        source = ListedMap("a", 1, 2)
        assert extended(ListedMap, source, width=5) == ListedMap("a", 1, 5)
        assert extended(Listed, source) == Listed("a")

    def test_what_the_source_lacks_has_its_default_or_must_be_given(self) -> None:
        assert extended(ListedMap, Listed("a")) == ListedMap("a")
        with pytest.raises(TypeError, match="required"):
            extended(ListedImage, Listed("a"))
