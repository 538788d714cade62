"""What each operation asks an object store for: a request takes tens of milliseconds, and some are paid for."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from fake_store import FakeStore

from oodray.datasets.manifest import MANIFEST_SCHEMA
from oodray.results.continuing import start_or_continue, what_is_left
from oodray.results.folder import ResultsFolder
from oodray.results.parts import write_part
from oodray.storage import remote
from oodray.storage.atomic import remove_leftovers, replacing
from oodray.storage.place import entries_of, remove_folder, storage_path
from oodray.storage.remote import ATTEMPTS, RemotePlace


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeStore:
    """A store with `s3://bucket/f` in it: two files, and one in a folder."""
    store = FakeStore(tmp_path)
    monkeypatch.setattr(remote, "_file_system", lambda scheme, bucket: store.system)
    monkeypatch.setattr(remote, "_FIRST_PAUSE_SECONDS", 0.001)
    for name in ("a.txt", "b.png", "deep/er/c.png"):
        (FOLDER / name).upload(b"content")
    store.requests.clear()
    return store


FOLDER = RemotePlace.named("s3://bucket/f")
FILE = FOLDER / "a.txt"


def write_whole() -> None:
    with replacing(FOLDER / "new.txt") as temporary:
        temporary.write_text("whole")


OPERATIONS: dict[str, tuple[Callable[[], object], dict[str, int]]] = {
    "exists": (FILE.exists, {"info": 1}),
    "is_file": (FILE.is_file, {"info": 1}),
    "is_dir": (FOLDER.is_dir, {"info": 1}),
    "stat": (FILE.stat, {"info": 1}),
    "read_bytes": (FILE.read_bytes, {"read": 1}),
    "read_text": (FILE.read_text, {"read": 1}),
    "open": (lambda: FILE.open("rb"), {"read": 1}),
    "iterdir": (lambda: [*FOLDER.iterdir()], {"list": 1}),
    "glob": (lambda: [*FOLDER.glob("*.png")], {"list": 1}),
    "entries": (lambda: entries_of(FOLDER), {"list": 1}),
    "touch": (FILE.touch, {"info": 1, "read": 1, "write": 1}),
    "unlink": (FILE.unlink, {"delete": 1}),
    "replacing": (write_whole, {"write": 1}),
    "remove_folder": (lambda: remove_folder(FOLDER), {"list": 1, "delete": 3}),
    "names alone": (lambda: (FILE.name, FILE.parent, FILE.resolve(), FILE.is_symlink()), {}),
    "mkdir": (FOLDER.mkdir, {}),
    "remove_leftovers": (lambda: remove_leftovers(FOLDER, recursive=True), {}),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_requests_of_an_operation(store: FakeStore, name: str) -> None:
    operation, expected = OPERATIONS[name]
    operation()
    assert store.requests == expected


def test_answers(store: FakeStore) -> None:
    assert FILE.exists()
    assert FILE.is_file()
    assert FOLDER.is_dir()
    assert not (FOLDER / "absent").exists()
    assert (FILE.stat().st_size, FILE.read_bytes(), FILE.read_text()) == (7, b"content", "content")
    assert {str(place): is_dir for place, is_dir in entries_of(FOLDER)} == {
        "s3://bucket/f/a.txt": False,
        "s3://bucket/f/b.png": False,
        "s3://bucket/f/deep": True,
    }
    assert [str(place) for place in FOLDER.glob("*.png")] == ["s3://bucket/f/b.png"]
    remove_folder(FOLDER)
    assert [is_dir for _, is_dir in FOLDER.entries(recursive=True)] == [True, True]  # no object is left


def test_an_answer_that_is_cut_is_asked_for_again(store: FakeStore) -> None:
    store.cut = 2
    assert FILE.read_bytes() == b"content"
    assert store.requests == {"read": 3, "info": 2}


def test_what_is_empty_is_looked_at_once(store: FakeStore) -> None:
    FILE.upload(b"")
    store.requests.clear()
    assert FILE.read_bytes() == b""
    assert store.requests == {"read": 1, "info": 1}


def test_a_failure_that_passes_is_not_noticed(store: FakeStore) -> None:
    store.failures = [OSError("AWS Error SLOW_DOWN")] * (ATTEMPTS - 1)
    assert FILE.read_bytes() == b"content"
    assert store.requests == {"read": ATTEMPTS}


def test_one_that_does_not_pass_has_the_name_of_the_place(store: FakeStore) -> None:
    store.failures = [OSError("AWS Error SLOW_DOWN\nin detail")] * ATTEMPTS
    with pytest.raises(OSError, match="SLOW_DOWN") as caught:
        FILE.read_bytes()
    assert (caught.value.errno, caught.value.strerror) == (errno.EIO, "AWS Error SLOW_DOWN")
    assert caught.value.filename == "s3://bucket/f/a.txt"
    assert store.requests == {"read": ATTEMPTS}


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "no such key"),
        PermissionError(errno.EACCES, "not yours"),
        OSError("AWS Error ACCESS_DENIED during PutObject"),
        OSError("AWS Error NO_SUCH_BUCKET"),
    ],
)
def test_a_failure_that_lasts_is_told_at_once(store: FakeStore, error: OSError) -> None:
    store.failures = [error]
    with pytest.raises(type(error)):
        FILE.read_bytes()
    assert store.requests == {"read": 1}


class TestFirstContact:
    """pyarrow's clients try for up to a quarter of an hour to reach a store that is not there."""

    @pytest.fixture(autouse=True)
    def unknown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(remote, "_answered", set())
        monkeypatch.setattr(remote, "CONTACT_SECONDS", 0.2)

    def test_a_store_that_does_not_answer_is_told_in_time(
        self, store: FakeStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        end = threading.Event()
        monkeypatch.setattr(remote, "_answered", set())
        monkeypatch.setattr(remote, "_file_system", lambda *_: end.wait())
        with pytest.raises(OSError, match=r"no answer in time. Is this machine on the network") as caught:
            FILE.exists()
        assert caught.value.filename == str(FILE)
        end.set()

    def test_an_error_that_came_before_says_more(self, store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(remote, "_answered", set())
        end = threading.Event()

        def hang_after_an_error(*_: str) -> None:
            if store.failures:
                raise store.failures.pop()
            end.wait()

        monkeypatch.setattr(remote, "_file_system", hang_after_an_error)
        store.failures = [OSError("Could not resolve host\nand more")]
        with pytest.raises(OSError, match=r"Could not resolve host. Is this machine on the network"):
            FILE.exists()
        end.set()

    def test_one_that_has_answered_may_take_its_time(self, store: FakeStore) -> None:
        assert FILE.exists()
        store.failures = [OSError("AWS Error SLOW_DOWN")] * (ATTEMPTS - 1)
        assert FILE.exists()
        assert FILE._seconds_to_contact() is None

    def test_a_refusal_is_an_answer(self, store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(remote, "_answered", set())
        store.failures = [PermissionError(errno.EACCES, "not yours")]
        with pytest.raises(PermissionError) as caught:
            FILE.exists()
        assert "network" not in str(caught.value)

    @pytest.mark.parametrize("name", ["abfs://a/b", "gs://?/b"])
    def test_a_name_of_no_store_is_an_error_of_the_system(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(remote, "_FIRST_PAUSE_SECONDS", 0.001)
        with pytest.raises(OSError, match=r"\w"):
            RemotePlace.named(name).exists()

    def test_errors_of_no_kind_have_one(self, store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: str) -> None:
            raise pa.ArrowException("Unknown error: Azure\nSee more")

        monkeypatch.setattr(remote, "_file_system", fail)
        with pytest.raises(OSError, match="Unknown error: Azure"):
            FILE.exists()


def test_a_run_is_continued_after_two_listings(store: FakeStore) -> None:
    folder = ResultsFolder(storage_path("s3://bucket/out"))
    rows = [{"unit": unit, "image_id": f"{unit}", "dataset": "folder", "image_uri": f"/{unit}"} for unit in range(3)]
    manifest = pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA)
    start_or_continue(folder, manifest, identity={}, description={"config": {}})
    for unit in (0, 2):
        write_part(folder, unit, [])
    store.requests.clear()
    finished = start_or_continue(folder, manifest, identity={}, description={"config": {}})
    left = what_is_left(folder, manifest, finished)
    assert left.images["image_id"].to_pylist() == ["1"]
    # Which units are there, and which of them does a wave hold? Is there a run.json, and which manifest; both are read.
    assert store.requests == {"list": 2, "info": 2, "read": 2}
