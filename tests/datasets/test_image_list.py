from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import packed
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trees import touch

from oodray.datasets.layouts import get_layout
from oodray.datasets.listing import Sample
from oodray.errors import DatasetError

LISTS = get_layout("list")

Rows = list[dict[str, str]]


def as_csv(path: Path, rows: Rows) -> Path:
    return packed.image_list(path.with_suffix(".csv"), rows)


def as_jsonl(path: Path, rows: Rows) -> Path:
    path = path.with_suffix(".jsonl")
    path.write_text("".join(json.dumps({name: text for name, text in row.items() if text}) + "\n" for row in rows))
    return path


def as_parquet(path: Path, rows: Rows) -> Path:
    path = path.with_suffix(".parquet")
    columns = {name: pa.array([row[name] or None for row in rows], pa.string()) for name in rows[0]}
    pq.write_table(pa.table(columns | {"more": [1.5] * len(rows)}), path)
    return path


@pytest.mark.parametrize("write", [as_csv, as_jsonl, as_parquet])
def test_a_list_in_each_form(write: Callable[[Path, Rows], Path], tmp_path: Path) -> None:
    touch(tmp_path, "im/b.jpg", "im/a, a.jpg", "lab/b.png")
    rows = [
        {"image": "im/b.jpg", "label": "lab/b.png", "more": "x"},
        {"image": "./im/../im/a, a.jpg", "label": "", "more": "y"},
        {"image": "s3://bucket/c.d.jpg", "label": "s3://bucket/c.png", "more": "z"},
    ]
    found = LISTS.find(write(tmp_path / "list", rows))
    assert found == [
        Sample("bucket/c.d", "s3://bucket/c.d.jpg", "s3://bucket/c.png"),
        Sample("im/a, a", f"{tmp_path}/im/a, a.jpg", None),
        Sample("im/b", f"{tmp_path}/im/b.jpg", f"{tmp_path}/lab/b.png"),
    ]
    named = [row | {"id": f"00{index}"} for index, row in enumerate(rows)]
    assert [sample.image_id for sample in LISTS.find(write(tmp_path / "named", named))] == ["000", "001", "002"]


def test_ids_may_be_numbers(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "list.jsonl").write_text('{"image": "a.jpg", "id": 7}\n')
    assert LISTS.find(tmp_path / "list.jsonl") == [Sample("7", f"{tmp_path}/a.jpg", None)]


@pytest.mark.parametrize(
    "entry", ["../elsewhere/b.jpg", "{}/elsewhere/b.jpg", "file://{}/elsewhere/b.jpg", "link/b.jpg"]
)
def test_what_leads_outside_is_refused(entry: str, tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/b.jpg", "root/a.jpg")
    (tmp_path / "root/link").symlink_to(tmp_path / "elsewhere")
    rows = [{"image": "a.jpg"}, {"image": entry.format(tmp_path)}]
    path = packed.image_list(tmp_path / "root/list.csv", rows)
    with pytest.raises(DatasetError, match=r"leads outside of the dataset's folder, to .*; pass --allow-outside-root"):
        LISTS.find(path)
    found = {Path(sample.image_uri).resolve() for sample in LISTS.find(path, allow_outside=True)}
    assert found == {tmp_path / "root/a.jpg", tmp_path / "elsewhere/b.jpg"}


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("list.txt", b"a.jpg", "is neither .csv, .jsonl, .ndjson, .parquet"),
        ("list.csv", b"", "no whole CSV file"),
        ("list.csv", b"image\n", "no images in"),
        ("list.csv", b"path\na.jpg\n", "has no column image; its columns are path"),
        ("list.csv", b"image;label\na.jpg;b.png\n", "its columns are image;label"),
        ("list.csv", b"image\na.jpg,b.jpg\n", "no whole CSV file"),
        ("list.csv", b"image\n\xff\xfe.jpg\n", "no whole CSV file"),
        ("list.csv", b"image,label\n,a.png\n", "row 1 of .* has no image"),
        ("list.csv", b"image,id\na.jpg,1\nb.jpg,\n", "row 2 of .* has no id"),
        ("list.csv", b"image,id\na.jpg,../../x\n", r"row 1 of .* has the id '\.\./\.\./x'.*without \.\."),
        ("list.csv", b"image\na.jpg\na.jpg\n", "two images have the name 'a'"),
        ("list.csv", b"image\nhttps://example.org/a.jpg\n", "row 1 of .* names https://example.org/a.jpg: taken are"),
        ("list.csv", b"image\nb.jpg\nc.jpg\n", "none of the first 2 images is there, as .*b.jpg"),
        ("list.jsonl", b'{"image": "a.jpg"}\n{"image": \n', "no whole JSONL file"),
        ("list.jsonl", b'{"image": 3}\n', "the column image of .* is of the type int64; expected are texts"),
        ("list.jsonl", b'{"image": "a.jpg", "id": [1]}\n', "the column id of .* expected are texts"),
        ("list.parquet", b"PAR1", "no whole PARQUET file"),
    ],
)
def test_what_is_wrong_is_said(name: str, content: bytes, problem: str, tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=problem):
        LISTS.find(tmp_path / name)


def test_the_root_is_the_list(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is a folder; name the list itself"):
        LISTS.find(tmp_path)
    with pytest.raises(DatasetError, match="does not exist"):
        LISTS.find(tmp_path / "list.csv")


def test_an_image_that_is_absent_stays(tmp_path: Path) -> None:
    """It becomes an error row, as in every other layout."""
    touch(tmp_path, "b.jpg")
    path = packed.image_list(tmp_path / "list.csv", [{"image": "a.jpg"}, {"image": "b.jpg"}])
    assert [sample.image_id for sample in LISTS.find(path)] == ["a", "b"]
