"""Paths in object stores, against a real S3 server behind a proxy that fails now and then."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import s3_server

from oodray.errors import RunError
from oodray.storage import remote as storage
from oodray.storage.atomic import replacing
from oodray.storage.place import is_inside, listing, path_inside, remove_folder, storage_path
from oodray.storage.remote import RemotePlace

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def store(object_store: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3_server.FaultyProxy]:
    """A proxy that fails one of seven requests, before an S3 server."""
    monkeypatch.setattr(storage, "_FIRST_PAUSE_SECONDS", 0.01)
    with s3_server.FaultyProxy(object_store, share=0.15) as proxy:
        for name, value in proxy.environment().items():
            monkeypatch.setenv(name, value)
        storage._file_system.cache_clear()
        yield proxy
    storage._file_system.cache_clear()


@pytest.fixture
def folder(store: s3_server.FaultyProxy, request: pytest.FixtureRequest) -> RemotePlace:
    """A place of the test's own."""
    return RemotePlace.named(f"s3://bucket/{abs(hash(request.node.nodeid))}")


class TestNames:
    @pytest.mark.parametrize("text", ["s3://bucket/a/b.png", "gs://bucket/a", "s3://b"])
    def test_they_are_what_was_written(self, text: str) -> None:
        path = storage_path(text)
        assert str(path) == text
        assert storage_path(Path(text)) == path  # which has lost a slash
        assert pickle.loads(pickle.dumps(path)) == path
        assert str(path / "c.png") == f"{text}/c.png"

    def test_parts(self) -> None:
        path = storage_path("s3://bucket/a/b.png")
        assert (path.name, path.stem, path.suffix) == ("b.png", "b", ".png")
        assert str(path.parent) == "s3://bucket/a"
        assert str(path.with_suffix(".jpg")) == "s3://bucket/a/b.jpg"
        assert path.resolve() == path

    def test_a_bucket_lies_in_itself(self) -> None:
        bucket = storage_path("s3://bucket/")
        assert str(bucket) == "s3://bucket"
        assert bucket.parent == bucket

    def test_they_are_sorted_as_paths_are(self) -> None:
        names = ["b", "a/b", "a b", "a", "a/b/c", "a.b"]
        on_disk = [str(path) for path in sorted(Path(name) for name in names)]
        assert [str(place) for place in sorted(storage_path(f"s3://{name}") for name in names)] == [
            f"s3://{name}" for name in on_disk
        ]

    @pytest.mark.parametrize("text", ["/a/s3:/b", "s3:", "a:b/c", "C:/x", "file:///x"])
    def test_others_are_on_disks(self, text: str) -> None:
        assert not isinstance(storage_path(text), RemotePlace)

    def test_what_needs_a_disk_refuses_them(self) -> None:
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
    def test_what_lies_where(self, place: str, folder: str, inside: str | None) -> None:
        assert is_inside(storage_path(place), storage_path(folder)) == (inside is not None)
        if inside is not None:
            assert str(path_inside(storage_path(place), storage_path(folder))) == inside


class TestObjects:
    def test_what_is_written_is_read(self, folder: RemotePlace, store: s3_server.FaultyProxy) -> None:
        for size in (0, 5, 100_000, 12_000_000):
            content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
            (folder / f"{size}.bin").upload(content)
            assert (folder / f"{size}.bin").read_bytes() == content
            assert (folder / f"{size}.bin").stat().st_size == size
        assert store.faults.total() > 12

    def test_folders_come_with_what_lies_in_them(self, folder: RemotePlace) -> None:
        assert not folder.exists()
        assert listing(folder) == []
        for name in ("a.png", "deep/er/b.png", ".c.tmp"):
            (folder / name).upload(b"1")
        assert folder.is_dir()
        assert not folder.is_file()
        assert sorted(listing(folder)) == [
            (folder / ".c.tmp", False),
            (folder / "a.png", False),
            (folder / "deep", True),
        ]
        assert [path for path, is_dir in folder.listing(recursive=True) if not is_dir] == [
            folder / ".c.tmp",
            folder / "a.png",
            folder / "deep/er/b.png",
        ]
        assert list(folder.glob("a.*")) == [folder / "a.png"]
        remove_folder(folder / "deep")
        assert not (folder / "deep/er/b.png").exists()

    def test_what_is_not_there(self, folder: RemotePlace) -> None:
        absent = folder / "absent"
        with pytest.raises(FileNotFoundError, match="No such file or directory"):
            absent.read_bytes()
        with pytest.raises(FileNotFoundError):
            absent.stat()
        with pytest.raises(FileNotFoundError):
            absent.unlink()
        absent.unlink(missing_ok=True)
        assert not absent.exists()

    def test_replacing_puts_the_object_once_it_is_whole(self, folder: RemotePlace) -> None:
        target = folder / "a.txt"
        with replacing(target) as temporary:
            temporary.write_text("whole")
            assert not target.exists()
        assert target.read_text() == "whole"
        with pytest.raises(ZeroDivisionError), replacing(target) as temporary:
            temporary.write_text(f"half {1 // 0}")
        assert target.read_text() == "whole"

    def test_an_answer_that_is_cut_before_its_length_is_not_an_empty_object(
        self, folder: RemotePlace, store: s3_server.FaultyProxy
    ) -> None:
        path = folder / "a.txt"
        path.upload(b"whole")
        store.cuts = [len(b"HTTP/1.1 200 OK\r\n")]
        assert path.read_text() == "whole"
        assert store.cuts == []
        path.upload(b"")
        assert path.read_text() == ""

    def test_a_store_that_refuses_is_named(self, folder: RemotePlace, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        storage._file_system.cache_clear()
        with (
            pytest.raises(RunError, match=r"cannot write s3://bucket/.*/a: .*(ACCESS_DENIED|SIGNATURE)"),
            replacing(folder / "a") as temporary,
        ):
            temporary.write_text("x")
