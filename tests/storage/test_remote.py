"""Paths in object stores, against a real S3 server behind a proxy that fails now and then."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator

import pytest
import s3_server

from oodray.errors import RunError
from oodray.storage import remote as storage
from oodray.storage.atomic import replacing
from oodray.storage.place import entries_of, open_seekable, remove_folder
from oodray.storage.remote import BLOCK_BYTES, RemotePlace

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


class TestObjects:
    def test_what_is_written_is_read(self, folder: RemotePlace, store: s3_server.FaultyProxy) -> None:
        for size in (0, 5, 100_000, 12_000_000):
            content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
            (folder / f"{size}.bin").upload(content)
            assert (folder / f"{size}.bin").read_bytes() == content
            assert (folder / f"{size}.bin").stat().st_size == size
        assert store.faults.total() > 12

    def test_parts_are_read_at_any_place(self, folder: RemotePlace) -> None:
        content, chosen = random.Random(0).randbytes(3 * BLOCK_BYTES + 77), random.Random(1)
        (folder / "parts.bin").upload(content)
        with open_seekable(folder / "parts.bin") as file:
            for _ in range(40):
                at, size = chosen.randrange(len(content) + 9), chosen.choice([1, 512, 2 * BLOCK_BYTES])
                file.seek(at)
                assert file.read(size) == content[at : at + size]
            assert file.seek(-5, io.SEEK_END) == len(content) - 5
            assert file.read() == content[-5:]
        with pytest.raises(FileNotFoundError):
            open_seekable(folder / "absent")

    def test_folders_come_with_what_lies_in_them(self, folder: RemotePlace) -> None:
        assert not folder.exists()
        assert entries_of(folder) == []
        for name in ("a.png", "deep/er/b.png", ".c.tmp"):
            (folder / name).upload(b"1")
        assert folder.is_dir()
        assert not folder.is_file()
        assert sorted(entries_of(folder)) == [
            (folder / ".c.tmp", False),
            (folder / "a.png", False),
            (folder / "deep", True),
        ]
        assert [path for path, is_dir in folder.entries(recursive=True) if not is_dir] == [
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
