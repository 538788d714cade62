"""Images and labels inside of files: members of a tar shard, cells of a Parquet file. Their addresses, and their bytes.

An address stands where the path of an image file does, in the columns `image_uri` and `label_uri`:

    tar:/data/shard-000.tar#000017.jpg@1536+20480     20480 bytes from byte 1536 on
    parquet:/data/test-0.parquet#mask[17]             row 17 of the column mask
    lost:/data/shard-001.tar#REASON                   images that a broken file has lost

What listed them has read neither images nor labels: that is done where they are decoded.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq

from oodray.errors import ImageError
from oodray.storage.place import open_seekable, storage_path
from oodray.storage.remote import is_remote

ROWS_AT_ONCE = 8
"""Rows of a Parquet file that a process holds: a row group may be a gigabyte."""

BUFFER_BYTES = 2**20
"""Bytes of a Parquet file that are read at once."""


@dataclass(frozen=True)
class TarMember:
    """A file in a tar shard.

    Attributes:
        path: of the shard.
        name: of the file in it.
        offset: of its first byte.
        size: in bytes.
    """

    path: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"tar:{self.path}#{quote(self.name)}@{self.offset}+{self.size}"

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            ImageError: the shard cannot be read, or ends before they do.
        """
        with _read_errors(f"{self.name} in {self.path}"), open_seekable(storage_path(self.path)) as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise ImageError(
                f"cannot read {self.name} in {self.path}: the shard is cut short, it ends {self.size - len(data)} "
                "bytes too soon; fetch it again"
            )
        return data


@dataclass(frozen=True)
class TableCell:
    """A cell of a Parquet file: bytes, or `{bytes, path}`.

    Attributes:
        path: of the file.
        column: its name.
        row: counted from 0.
    """

    path: str
    column: str
    row: int

    def __str__(self) -> str:
        return f"parquet:{self.path}#{quote(self.column)}[{self.row}]"

    def read(self) -> bytes | None:
        """Its bytes; None where the cell is empty.

        Raises:
            ImageError: the file cannot be read, or the cell has a path in place of bytes.
        """
        what = f"row {self.row} of the column {self.column} in {self.path}"
        with _read_errors(what):
            value = _cursor(self.column).value(self)
        in_struct = isinstance(value, dict)
        data: bytes | None = value.get("bytes") if in_struct else value
        if data is None and in_struct and value.get("path"):
            raise ImageError(
                f"{what} holds no bytes, only the path {value['path']}: write the file with its images in it, as "
                "`push_to_hub` of Hugging Face's datasets does"
            )
        return data


@dataclass(frozen=True)
class Lost:
    """Images that a broken file has lost: a run has one row for all of them, which says so.

    Attributes:
        path: of the file.
        reason: what is wrong with it.
    """

    path: str
    reason: str

    def __str__(self) -> str:
        return f"lost:{self.path}#{quote(self.reason)}"

    def read(self) -> bytes:
        """Nothing.

        Raises:
            ImageError: always.
        """
        raise ImageError(f"images of {self.path} are lost: {self.reason}")


Member = TarMember | TableCell | Lost

_TAR = re.compile(r"tar:(.+)#([^#]*)@(\d+)\+(\d+)", re.DOTALL)
_CELL = re.compile(r"parquet:(.+)#([^#]*)\[(\d+)\]", re.DOTALL)
_LOST = re.compile(r"lost:(.+)#([^#]*)", re.DOTALL)


def member_of(uri: str) -> Member | None:
    """What an address inside of a file names; None for any other address.

    >>> member_of("tar:/a.tar#b.jpg@1536+20")
    TarMember(path='/a.tar', name='b.jpg', offset=1536, size=20)
    >>> member_of("/a.tar") is member_of("s3://bucket/a.jpg") is None
    True
    """
    if match := _TAR.fullmatch(uri):
        return TarMember(match[1], unquote(match[2]), int(match[3]), int(match[4]))
    if match := _CELL.fullmatch(uri):
        return TableCell(match[1], unquote(match[2]), int(match[3]))
    if match := _LOST.fullmatch(uri):
        return Lost(match[1], unquote(match[2]))
    return None


def file_of(uri: str) -> str:
    """The file that an address leads to.

    >>> file_of("parquet:s3://bucket/a.parquet#image[3]"), file_of("/a.jpg")
    ('s3://bucket/a.parquet', '/a.jpg')
    """
    member = member_of(uri)
    return uri if member is None else member.path


class _Cursor:
    """Reads one column of a row group forwards, a few rows at a time.

    The rows of a unit follow each other, and often the units that a process gets. So a row group is seldom read twice,
    and never held as a whole.
    """

    def __init__(self) -> None:
        self._opened: tuple[Any, ...] = ()
        self._file: pq.ParquetFile | None = None
        self._group: int | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._start = 0
        self._rows: list[Any] = []
        self._closing = contextlib.ExitStack()

    def value(self, cell: TableCell) -> Any:
        """The content of a cell.

        Raises:
            OSError: the file cannot be read.
            pyarrow.ArrowException: it is broken.
        """
        try:
            group, row = _place_in_groups(self._parquet(cell.path), cell.row)
            # In a row group that it has passed, it begins anew.
            if group != self._group or row < self._start:
                self._begin(cell, group)
            while row >= self._start + len(self._rows):
                self._start += len(self._rows)
                self._rows = next(self._batches).column(0).to_pylist()
        except BaseException:
            self._opened = ()
            raise
        return self._rows[row - self._start]

    def _parquet(self, path: str) -> pq.ParquetFile:
        place = storage_path(path)
        found = place.stat()
        opened = (path, found.st_size, found.st_mtime)
        if self._file is None or opened != self._opened:
            self._closing.close()
            self._file = self._group = None
            # It stays open until another file is asked for.
            opening: Any = open_seekable(place) if is_remote(place) else pa.OSFile(path, "r")
            source = self._closing.enter_context(opening)
            self._file = self._closing.enter_context(pq.ParquetFile(source, buffer_size=BUFFER_BYTES, pre_buffer=False))
            self._opened = opened
        return self._file

    def _begin(self, cell: TableCell, group: int) -> None:
        self._group, self._start, self._rows = group, 0, []
        self._batches = self._parquet(cell.path).iter_batches(ROWS_AT_ONCE, [group], [cell.column], use_threads=False)


def _place_in_groups(file: pq.ParquetFile, row: int) -> tuple[int, int]:
    """The row group of a row of a file, and the row in it."""
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if row < rows:
            return group, row
        row -= rows
    raise pa.ArrowInvalid(f"it has {file.metadata.num_rows} rows")


_OF_THREAD = threading.local()


def _cursor(column: str) -> _Cursor:
    """The cursor of this thread for a column: those of other threads are elsewhere in the file."""
    cursors: dict[str, _Cursor] = vars(_OF_THREAD).setdefault("cursors", {})
    return cursors.setdefault(column, _Cursor())


@contextlib.contextmanager
def _read_errors(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        # Of broken content pyarrow raises either; an error of the system alone has a number.
        known = isinstance(error, OSError) and error.errno is not None
        reason = error.strerror if isinstance(error, OSError) and known else str(error).partition("\n")[0]
        raise ImageError(f"cannot read {what}: {reason}") from error
