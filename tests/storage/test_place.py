from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from oodray.storage.place import entries_of, is_inside, path_inside, remove_folder, storage_path
from oodray.storage.remote import RemotePlace


@pytest.mark.parametrize("text", ["s3://bucket/a/b.png", "gs://bucket/a", "s3://b"])
def test_places_are_called_as_was_written(text: str) -> None:
    path = storage_path(text)
    assert str(path) == text
    assert storage_path(Path(text)) == path  # which has lost a slash
    assert pickle.loads(pickle.dumps(path)) == path
    assert str(path / "c.png") == f"{text}/c.png"


def test_parts_of_a_name() -> None:
    path = storage_path("s3://bucket/a/b.png")
    assert (path.name, path.stem, path.suffix) == ("b.png", "b", ".png")
    assert str(path.parent) == "s3://bucket/a"
    assert str(path.with_suffix(".jpg")) == "s3://bucket/a/b.jpg"
    assert path.resolve() == path


def test_a_bucket_lies_in_itself() -> None:
    bucket = storage_path("s3://bucket/")
    assert str(bucket) == "s3://bucket"
    assert bucket.parent == bucket


def test_places_are_sorted_as_paths_are() -> None:
    names = ["b", "a/b", "a b", "a", "a/b/c", "a.b"]
    on_disk = [str(path) for path in sorted(Path(name) for name in names)]
    assert [str(place) for place in sorted(storage_path(f"s3://{name}") for name in names)] == [
        f"s3://{name}" for name in on_disk
    ]


@pytest.mark.parametrize("text", ["/a/s3:/b", "s3:", "a:b/c", "C:/x", "file:///x"])
def test_other_names_are_of_disks(text: str) -> None:
    assert not isinstance(storage_path(text), RemotePlace)


def test_what_needs_a_disk_refuses_a_place_in_a_store() -> None:
    path: Any = storage_path("s3://bucket/a")
    for work in (os.stat, os.listdir, os.remove, open, Path):
        with pytest.raises(TypeError, match="RemotePlace"):
            work(path)
    with pytest.raises(ValueError, match="s3://bucket/a is written with"):
        path.open("wb")


@pytest.mark.parametrize(
    ("place", "folder", "inside"),
    [
        ("s3://bucket/a/b", "s3://bucket/a", "b"),
        ("s3://bucket/a", "s3://bucket/a", "."),
        ("s3://bucket/ab", "s3://bucket/a", None),
        ("gs://bucket/a/b", "s3://bucket/a", None),
        ("/bucket/a/b", "s3://bucket/a", None),
        ("s3://bucket/a/b", "/bucket", None),
        ("/a/b/c", "/a", "b/c"),
    ],
)
def test_what_lies_where(place: str, folder: str, inside: str | None) -> None:
    assert is_inside(storage_path(place), storage_path(folder)) == (inside is not None)
    if inside is not None:
        assert str(path_inside(storage_path(place), storage_path(folder))) == inside


def test_a_name_of_no_store_is_refused() -> None:
    with pytest.raises(ValueError, match="/a/b names no place in an object store"):
        RemotePlace.named("/a/b")


def test_a_listing_of_a_disk_follows_links(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for name in ("folder", "file", "nothing"):
        (tmp_path / f"to {name}").symlink_to(tmp_path / name)
    found = {place.name: is_dir for place, is_dir in entries_of(tmp_path)}
    assert found == {"folder": True, "file": False, "to folder": True, "to file": False, "to nothing": False}
    with pytest.raises(FileNotFoundError):
        entries_of(tmp_path / "nothing")


def test_a_folder_is_removed_whether_it_is_there_or_not(tmp_path: Path) -> None:
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "deep" / "file").touch()
    for _ in range(2):
        remove_folder(tmp_path / "folder")
        assert list(tmp_path.iterdir()) == []
