"""What listing and reading a dataset in an object store asks for: never more than is needed."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any, cast

import packed
import pyarrow as pa
import pytest
from fake_store import FakeStore
from pyarrow.fs import FileInfo, FileSelector

from oodray.datasets.images import read_bytes, read_label
from oodray.datasets.layouts import get_layout
from oodray.storage import remote
from oodray.storage.place import REQUESTS_AT_ONCE, storage_path

ROOT = storage_path("s3://bucket/root")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeStore:
    store = FakeStore(tmp_path)
    monkeypatch.setattr(remote, "_file_system", lambda scheme, bucket: store.system)
    monkeypatch.setattr(remote, "_FIRST_PAUSE_SECONDS", 0.001)
    return store


def test_the_folders_of_a_level_are_listed_side_by_side(
    store: FakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(REQUESTS_AT_ONCE):
        path = tmp_path / f"bucket/root/day/{index:02}/a.jpg"
        path.parent.mkdir(parents=True)
        path.touch()
    # Nobody is answered before all have asked.
    together = threading.Barrier(REQUESTS_AT_ONCE)
    listed = store.get_file_info_selector

    def wait_for_all(selector: FileSelector) -> list[FileInfo]:
        if selector.base_dir.count("/") == 3:
            together.wait(timeout=60)
        return listed(selector)

    monkeypatch.setattr(store, "get_file_info_selector", wait_for_all)
    found = get_layout("folder").find(ROOT)
    assert [sample.image_id for sample in found] == [f"day/{index:02}/a" for index in range(REQUESTS_AT_ONCE)]
    assert store.requests["list"] == REQUESTS_AT_ONCE + 2


def test_of_a_shard_headers_are_read_when_it_is_listed_and_images_when_they_are_decoded(
    store: FakeStore, tmp_path: Path
) -> None:
    image = bytes(10 * remote.BLOCK_BYTES)
    packed.tar(tmp_path / "bucket/root/a.tar", [("0.jpg", image), ("0.png", b"label"), ("1.jpg", b"second")])
    asked = Counted(store)
    samples = get_layout("webdataset").find(ROOT)
    assert [sample.image_id for sample in samples] == ["a/0", "a/1"]
    assert asked.bytes() <= 4 * remote.BLOCK_BYTES
    assert (read_bytes(samples[0].image_uri), read_label(samples[0].label_uri)) == (image, b"label")
    before = asked.bytes()
    assert read_bytes(samples[1].image_uri) == b"second"
    assert asked.bytes() - before <= remote.BLOCK_BYTES


def test_of_a_table_the_footer_is_read_when_it_is_listed(store: FakeStore, tmp_path: Path) -> None:
    images = [bytes([row]) * 2**20 for row in range(6)]
    packed.parquet(tmp_path / "bucket/root/a.parquet", images, rows_of_a_group=2)
    asked = Counted(store)
    samples = get_layout("hf-parquet").find(ROOT)
    assert asked.bytes() <= 2 * remote.BLOCK_BYTES
    assert [read_bytes(sample.image_uri) for sample in samples] == images


def test_a_list_in_a_store_names_what_lies_beside_it(store: FakeStore, tmp_path: Path) -> None:
    for name in ("lists/list.csv", "im/a.jpg", "im/b.jpg"):
        (tmp_path / "bucket/root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bucket/root" / name).touch()
    rows = [{"image": "../im/a.jpg"}, {"image": "s3://bucket/root/im/b.jpg"}]
    packed.image_list(tmp_path / "bucket/root/lists/list.csv", rows)
    found = get_layout("list").find(ROOT / "lists/list.csv")
    assert [sample.image_uri for sample in found] == ["s3://bucket/root/im/a.jpg", "s3://bucket/root/im/b.jpg"]
    assert [sample.image_id for sample in found] == ["bucket/root/im/a", "bucket/root/im/b"]


def test_a_store_that_does_not_answer_loses_no_image(store: FakeStore, tmp_path: Path) -> None:
    """Its images would be other ones when the run is continued."""
    packed.tar(tmp_path / "bucket/root/a.tar", [("0.jpg", b"")])
    [sample] = get_layout("webdataset").find(ROOT)
    opened: Any = store.open_input_file

    def busy(path: str) -> Any:
        opened(path)
        raise OSError("SLOW_DOWN")

    store.open_input_file = busy  # type: ignore[method-assign]
    with pytest.raises(OSError, match="SLOW_DOWN"):
        get_layout("webdataset").table(ROOT, allow_outside=False)
    store.open_input_file = opened  # type: ignore[method-assign]
    assert get_layout("webdataset").find(ROOT) == [sample]


class Counted:
    """Counts what is read of the files of a store."""

    def __init__(self, store: FakeStore) -> None:
        self._opened: list[Any] = []
        self._sizes: list[int] = []
        opened: Any = store.open_input_file

        def counted(path: str) -> Any:
            return pa.PythonFile(cast("io.IOBase", _Counting(opened(path), self._sizes)), mode="r")

        store.open_input_file = counted  # type: ignore[method-assign]

    def bytes(self) -> int:
        """Bytes that were read until now."""
        return sum(self._sizes)


class _Counting:
    def __init__(self, file: Any, sizes: list[int]) -> None:
        self._file, self._sizes, self.closed = file, sizes, False

    def read(self, size: int = -1) -> Any:
        content = self._file.read(None if size < 0 else size)
        self._sizes.append(len(content))
        return content

    def seek(self, offset: int, whence: int = 0) -> Any:
        return self._file.seek(offset, whence)

    def tell(self) -> Any:
        return self._file.tell()

    def size(self) -> Any:
        return self._file.size()

    def close(self) -> None:
        self.closed = True
        self._file.close()

    def flush(self) -> None:
        """Nothing is written."""

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return True
