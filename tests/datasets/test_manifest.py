from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oodray.datasets.layouts import get_layout
from oodray.datasets.manifest import (
    MANIFEST_SCHEMA,
    build_manifest,
    manifest_digest,
    read_manifest,
    write_manifest,
)
from oodray.errors import DatasetError, ResultsError, RunError

FOLDER = get_layout("folder")


def images(root: Path, count: int) -> Path:
    root.mkdir(exist_ok=True)
    for index in range(count):
        (root / f"{index:04d}.png").touch()
    return root


def manifest(**changes: list[object]) -> pa.Table:
    columns: dict[str, list[object]] = {
        "unit": [0, 0, 1],
        "image_id": ["a", "b", "ç"],
        "dataset": ["x"] * 3,
        "image_uri": ["/a.png", "/b.png", "/c.png"],
        "label_uri": ["/l.png", None, ""],
    }
    return pa.table(columns | changes, schema=MANIFEST_SCHEMA)


def test_rows_are_the_samples_in_order(tmp_path: Path) -> None:
    for name in ("images/b.jpg", "images/a.jpg", "labels/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    table = build_manifest(FOLDER, tmp_path)
    assert table.schema.equals(MANIFEST_SCHEMA)
    assert table.to_pylist() == [
        {
            "unit": row,
            "image_id": f"images/{name}",
            "dataset": "folder",
            "image_uri": str(tmp_path / "images" / f"{name}.jpg"),
            "label_uri": label,
        }
        for row, (name, label) in enumerate([("a", None), ("b", str(tmp_path / "labels/b.png"))])
    ]


@pytest.mark.parametrize(
    ("count", "size"), [(1, 1), (63, 1), (64, 1), (127, 1), (128, 2), (500, 7), (512, 8), (1200, 8)]
)
def test_unit_size(count: int, size: int, tmp_path: Path) -> None:
    units = build_manifest(FOLDER, images(tmp_path, count))["unit"].to_pylist()
    assert units == [row // size for row in range(count)]


def test_an_absent_dataset_is_a_dataset_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no images below"):
        build_manifest(FOLDER, tmp_path)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    write_manifest(manifest(), path)
    assert read_manifest(path).equals(manifest())
    write_manifest(manifest().slice(1), path)
    assert read_manifest(path).equals(manifest().slice(1))
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "manifest.parquet"
    write_manifest(manifest(), path)

    def fail(table: pa.Table, where: Path) -> None:
        where.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(RunError, match=r"cannot write .*manifest\.parquet: No space left on device"):
        write_manifest(manifest().slice(1), path)
    assert list(tmp_path.iterdir()) == [path]
    assert read_manifest(path).equals(manifest())


def test_the_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "manifest.parquet"
    write_manifest(manifest(), path)
    assert read_manifest(path).equals(manifest())


def test_only_manifests_are_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a manifest"):
        write_manifest(manifest().drop_columns(["unit"]), tmp_path / "manifest.parquet")
    assert not list(tmp_path.iterdir())


def test_unreadable_manifests_are_results_errors(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    with pytest.raises(ResultsError, match=r"cannot read the manifest .*manifest\.parquet: No such file"):
        read_manifest(path)
    with pytest.raises(ResultsError, match="cannot read the manifest"):
        read_manifest(tmp_path)
    write_manifest(manifest(), path)
    whole = path.read_bytes()
    for broken in (b"", b"PAR1", b"garbage" * 99, whole[:-9], whole[:99], bytes(len(whole))):
        path.write_bytes(broken)
        with pytest.raises(ResultsError, match="manifest"):
            read_manifest(path)


@pytest.mark.parametrize(
    "table",
    [
        manifest().drop_columns(["label_uri"]),
        manifest().append_column("more", [[1, 2, 3]]),
        manifest().set_column(0, "unit", pa.array([0, 0, 1], pa.int64())),
        manifest().select(MANIFEST_SCHEMA.names[::-1]),
    ],
)
def test_other_tables_are_results_errors(table: pa.Table, tmp_path: Path) -> None:
    pq.write_table(table, tmp_path / "manifest.parquet")
    with pytest.raises(ResultsError, match="is not a manifest of this version"):
        read_manifest(tmp_path / "manifest.parquet")


def test_digest_is_of_the_content_alone(tmp_path: Path) -> None:
    table = manifest()
    digest = manifest_digest(table)
    assert digest == "6b75cbf58b84616a"
    write_manifest(table, tmp_path / "manifest.parquet")
    assert manifest_digest(read_manifest(tmp_path / "manifest.parquet")) == digest
    assert manifest_digest(pa.concat_tables([table.slice(0, 1), table.slice(1)])) == digest
    assert manifest_digest(table.replace_schema_metadata({"by": "another writer"})) == digest
    assert manifest_digest(table.select(MANIFEST_SCHEMA.names[::-1])) == digest


@pytest.mark.parametrize(
    "changed",
    [
        manifest(unit=[0, 1, 1]),
        manifest(image_id=["a", "b", "c"]),
        manifest(dataset=["x", "x", "y"]),
        manifest(image_uri=["/a.png", "/b.png", "/d.png"]),
        manifest(label_uri=["/l.png", "", None]),
        manifest(label_uri=["/l.png", "null", ""]),
        manifest().slice(0, 2),
        manifest().take([1, 0, 2]),
    ],
)
def test_digest_changes_with_the_content(changed: pa.Table) -> None:
    assert manifest_digest(changed) != manifest_digest(manifest())


@given(st.binary(max_size=400), st.integers(0, 3000), st.integers(0, 255))
def test_any_bytes_are_a_manifest_or_a_results_error(noise: bytes, at: int, byte: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.parquet"
        write_manifest(manifest(), path)
        sound = bytearray(path.read_bytes())
        sound[at % len(sound)] = byte
        for content in (noise, bytes(sound), bytes(sound[: at % len(sound)])):
            path.write_bytes(content)
            with contextlib.suppress(ResultsError):
                assert read_manifest(path).schema.equals(MANIFEST_SCHEMA)
