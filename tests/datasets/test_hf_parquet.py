from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import packed
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from oodray.datasets.images import read_bytes, read_label
from oodray.datasets.layouts import get_layout
from oodray.errors import DatasetError, ImageError

TABLES = get_layout("hf-parquet")


@pytest.mark.parametrize("plain", [False, True])
def test_rows_are_images(plain: bool, tmp_path: Path) -> None:
    packed.parquet(tmp_path / "data/test-00000-of-00001.parquet", [b"a", b"b"], [b"A", None], plain=plain)
    packed.parquet(tmp_path / "data/train-00000-of-00001.parquet", [b"c"] * 5, plain=plain)
    samples = TABLES.find(tmp_path)
    assert [sample.image_id for sample in samples] == [
        "data/test-00000-of-00001/000000",
        "data/test-00000-of-00001/000001",
        *(f"data/train-00000-of-00001/00000{row}" for row in range(5)),
    ]
    assert [read_bytes(sample.image_uri) for sample in samples] == [b"a", b"b", *[b"c"] * 5]
    assert [read_label(sample.label_uri) for sample in samples] == [b"A", *[None] * 6]
    assert {sample.label_uri is None for sample in samples[2:]} == {True}


def test_every_split_is_read_unless_one_is_asked_for(tmp_path: Path) -> None:
    for name in ("data/test-0", "data/train-0", "default/test/0000", "data/test_more-0"):
        packed.parquet(tmp_path / f"{name}.parquet", [b"a"])
    assert len(TABLES.find(tmp_path)) == 4
    found = [sample.image_id.rpartition("/")[0] for sample in TABLES.of_split("test").find(tmp_path)]
    assert found == ["data/test-0", "data/test_more-0", "default/test/0000"]


def strings(path: Path) -> None:
    pq.write_table(pa.table({"image": ["a.jpg"]}), path)


def other_columns(path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "jpg": [b""]}), path)


def masks_of_numbers(path: Path) -> None:
    pq.write_table(pa.table({"image": [b"a"], "mask": [3]}), path)


def cut(path: Path) -> None:
    path.write_bytes(packed.parquet(path, [b"a"]).read_bytes()[:-5])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (strings, "its column image is of the type string; expected: bytes"),
        (masks_of_numbers, "its column mask is of the type int64"),
        (other_columns, "it has no column image; its columns are text, jpg"),
        (cut, "it is no whole Parquet file"),
    ],
)
def test_a_broken_file_loses_its_own_images_alone(spoil: Callable[[Path], None], reason: str, tmp_path: Path) -> None:
    packed.parquet(tmp_path / "a.parquet", [b"1", b"2"])
    spoil(tmp_path / "b.parquet")
    first, second, lost = TABLES.find(tmp_path)
    assert [read_bytes(sample.image_uri) for sample in (first, second)] == [b"1", b"2"]
    assert lost.image_id == "b"
    with pytest.raises(ImageError, match=rf"images of .*b\.parquet are lost: {reason}"):
        read_bytes(lost.image_uri)
    with pytest.raises(DatasetError, match=rf"Hugging Face's datasets: .*b\.parquet: {reason}"):
        TABLES.find(tmp_path / "b.parquet")


def test_a_mask_column_without_any_mask_is_none(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"a"], "mask": pa.nulls(1)}), tmp_path / "a.parquet")
    assert TABLES.find(tmp_path)[0].label_uri is None
