"""An object store in a folder of this disk, which notes what it is asked for and fails when a test says so."""

from __future__ import annotations

import io
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileSystemHandler, LocalFileSystem, PyFileSystem


class FakeStore(FileSystemHandler):
    """What pyarrow calls of a file system, passed on to a folder; `system` is the file system.

    Attributes:
        requests: how often each method was called, by its name.
        failures: errors that the next requests end with.
        cut: how many of the next answers to `open_input_file` are empty, as S3 gives them where a connection breaks.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._disk = LocalFileSystem()
        self.system: FileSystem = PyFileSystem(self)
        self.requests: Counter[str] = Counter()
        self.failures: list[OSError] = []
        self.cut = 0

    def _noted(self, request: str) -> None:
        self.requests[request] += 1
        if self.failures:
            raise self.failures.pop(0)

    def _local(self, name: str) -> str:
        return str(self._folder / name)

    def _named(self, info: FileInfo) -> FileInfo:
        name = os.path.relpath(info.path, self._folder)
        return FileInfo(name, info.type, mtime=info.mtime, size=info.size)

    def get_type_name(self) -> str:
        return "fake"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[FileInfo]:  # type: ignore[override]  # pyarrow asks with lists
        self._noted("info")
        return [self._named(info) for info in self._disk.get_file_info([self._local(path) for path in paths])]

    def get_file_info_selector(self, selector: FileSelector) -> list[FileInfo]:
        self._noted("list")
        local = FileSelector(
            self._local(selector.base_dir), allow_not_found=selector.allow_not_found, recursive=selector.recursive
        )
        return [self._named(info) for info in self._disk.get_file_info(local)]

    def open_input_file(self, path: str) -> Any:
        self._noted("read")
        if self.cut:
            self.cut -= 1
            return pa.PythonFile(io.BytesIO(), mode="r")
        return self._disk.open_input_file(self._local(path))

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        self._noted("write")
        target = Path(self._local(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        return self._disk.open_output_stream(str(target))

    def delete_file(self, path: str) -> None:
        self._noted("delete")
        self._disk.delete_file(self._local(path))

    def _refused(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("the package makes no such request")

    open_input_stream = open_append_stream = copy_file = move = create_dir = _refused
    delete_dir = delete_dir_contents = delete_root_dir_contents = _refused
