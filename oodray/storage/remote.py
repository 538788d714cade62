"""Files in object stores: places such as `s3://bucket/key`.

The requests are pyarrow's, which is a dependency in any case, finds credentials and endpoints by itself, lists a whole
tree in one request and writes a small object in one. fsspec over it leaves half an object behind where writing fails
and reads an answer that is cut as an empty file; universal-pathlib needs s3fs (50 MB), whose cached listings do not
show what another process has written.
"""

from __future__ import annotations

import errno
import functools
import io
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple, TypeVar

from oodray.storage.interruptible import NoAnswerError, interruptible

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from pyarrow import NativeFile
    from pyarrow.fs import FileInfo, FileSystem

ATTEMPTS = 6
"""How often a request is made that fails for a reason that may pass: a busy server, a connection that breaks."""

CONTACT_SECONDS = 10.0
"""How long the first question to a store may take, all attempts together: pyarrow's clients would try for minutes."""

BLOCK_BYTES = 2**16
"""Bytes that are asked for at once of an object of which parts are read."""

_FIRST_PAUSE_SECONDS = 0.2
_answered: set[tuple[str, str]] = set()
"""Schemes and buckets of the stores that have answered this process."""

_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NoAnswerError)
_NO_STORE = "no object store that can be used"
_LASTING_WORDS = (_NO_STORE, "ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH")

# One slash, as a path takes the other one away before it comes here.
_REMOTE = re.compile(r"(s3|gs|gcs|abfs|abfss|hdfs):/+(?=[^/])")

Result = TypeVar("Result")


def is_remote(place: object) -> bool:
    """Whether a place, or the name of one, lies in an object store.

    >>> [is_remote(name) for name in ("s3://bucket/a", "s3:/bucket/a", "/s3:/a", "s3:")]
    [True, True, False, False]
    """
    return _REMOTE.match(str(place)) is not None


class ObjectStatus(NamedTuple):
    """Size of an object in bytes, and when it was written in seconds since the epoch; 0 where the store is silent."""

    st_size: int
    st_mtime: float


@dataclass(frozen=True, order=True)
class RemotePlace:
    """A place in an object store, see `oodray.storage.place.Place`.

    There are no folders in it: objects have names with slashes, and a folder is there while an object lies below it.
    An object appears whole or not at all. Every request is made in `_ask`.

    Attributes:
        scheme: of the store, such as `s3`.
        path: the bucket, and the object's name in it.
    """

    scheme: str
    path: PurePosixPath

    @classmethod
    def named(cls, name: str) -> RemotePlace:
        """The place of a name.

        Raises:
            ValueError: it is no name of a place in an object store.
        """
        match = _REMOTE.match(name)
        if match is None:
            raise ValueError(f"{name} names no place in an object store")
        return cls(match[1], PurePosixPath(name[match.end() :]))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"

    def __truediv__(self, name: str | PurePosixPath, /) -> RemotePlace:
        return RemotePlace(self.scheme, self.path / name)

    @property
    def name(self) -> str:
        """The last part of the name."""
        return self.path.name

    @property
    def stem(self) -> str:
        """The last part of the name without its suffix."""
        return self.path.stem

    @property
    def suffix(self) -> str:
        """The suffix of the name, with its dot."""
        return self.path.suffix

    @property
    def parent(self) -> RemotePlace:
        """The folder that it lies in; a bucket lies in itself."""
        return RemotePlace(self.scheme, self.path.parent) if len(self.path.parts) > 1 else self

    def with_suffix(self, suffix: str, /) -> RemotePlace:
        """The same name with another suffix."""
        return RemotePlace(self.scheme, self.path.with_suffix(suffix))

    def resolve(self) -> RemotePlace:
        """Itself: object stores have no links."""
        return self

    def is_symlink(self) -> bool:
        """No."""
        return False

    def exists(self) -> bool:
        """Whether an object, or any below it, is there."""
        return self._kind() != "NotFound"

    def is_file(self) -> bool:
        """Whether an object is there."""
        return self._kind() == "File"

    def is_dir(self) -> bool:
        """Whether objects are below it."""
        return self._kind() == "Directory"

    def stat(self) -> ObjectStatus:
        """Size and time of an object.

        Raises:
            FileNotFoundError: it is not there.
        """
        info = self._info()
        if info.type.name == "NotFound":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        return ObjectStatus(info.size or 0, info.mtime.timestamp() if info.mtime else 0)

    def iterdir(self) -> Iterator[RemotePlace]:
        """What lies in a folder."""
        return (place for place, _ in self.entries())

    def glob(self, pattern: str, /) -> Iterator[RemotePlace]:
        """What lies in a folder under names of a pattern."""
        return (place for place in self.iterdir() if fnmatchcase(place.name, pattern))

    def entries(self, *, recursive: bool = False) -> list[tuple[RemotePlace, bool]]:
        """What lies in a folder, or anywhere below it, and whether it is a folder; nothing where there is none.

        Raises:
            OSError: it cannot be listed.
        """
        from pyarrow.fs import FileSelector

        selector = FileSelector(str(self.path), allow_not_found=True, recursive=recursive)
        infos = self._ask(lambda store: store.get_file_info(selector))
        return [(RemotePlace(self.scheme, PurePosixPath(i.path)), i.type.name == "Directory") for i in infos]

    def open(self, mode: Literal["rb"], /) -> BinaryIO:
        """The content of an object, read as a whole.

        Raises:
            OSError: it cannot be read.
        """
        if mode != "rb":
            raise ValueError(f"{self} is written with oodray.storage.atomic.replacing")
        return io.BytesIO(self.read_bytes())

    def open_seekable(self) -> BinaryIO:
        """The content of an object, of which only what is read is asked for, in blocks of `BLOCK_BYTES`.

        Raises:
            OSError: it is not there.
        """
        return io.BufferedReader(_Blocks(self), BLOCK_BYTES)

    def read_bytes(self) -> bytes:
        """The content of an object.

        Raises:
            OSError: it cannot be read.
        """

        def read(store: FileSystem) -> bytes:
            with store.open_input_file(str(self.path)) as file:
                content: bytes = file.read()
            # An answer that is cut before it says its length reads as an empty object.
            if not content and store.get_file_info(str(self.path)).size:
                raise OSError(errno.EIO, "the answer was cut")
            return content

        return self._ask(read)

    def read_text(self, encoding: str | None = None) -> str:
        """The content of an object, as text: UTF-8 unless told otherwise."""
        return self.read_bytes().decode(encoding or "utf-8")

    def upload(self, content: bytes) -> None:
        """Write an object: it appears whole, or not at all.

        Raises:
            OSError: it cannot be written.
        """

        def write(store: FileSystem) -> None:
            with store.open_output_stream(str(self.path)) as file:
                file.write(content)

        self._ask(write)

    def touch(self) -> None:
        """Write an object again, which makes it new, or an empty one."""
        self.upload(self.read_bytes() if self.is_file() else b"")

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing to do: folders come with what lies in them."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove an object.

        Raises:
            FileNotFoundError: it is not there, unless `missing_ok`.
        """
        try:
            self._ask(lambda store: store.delete_file(str(self.path)))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def _kind(self) -> str:
        return str(self._info().type.name)

    def _info(self) -> FileInfo:
        return self._ask(lambda store: store.get_file_info(str(self.path)), seconds=self._seconds_to_contact())

    def _seconds_to_contact(self) -> float | None:
        """How long a small question may take: for ever once the store has answered anything."""
        return None if self._bucket in _answered else CONTACT_SECONDS

    @property
    def _bucket(self) -> tuple[str, str]:
        return self.scheme, str(self.path).partition("/")[0]

    def _ask(self, request: Callable[[FileSystem], Result], seconds: float | None = None) -> Result:
        """What a request gives, made again where its failure may pass, and while the seconds last.

        Raises:
            OSError: with the last reason, and the name of the place.
        """
        pause, before = _FIRST_PAUSE_SECONDS, None
        end = math.inf if seconds is None else time.monotonic() + seconds
        for attempt in range(ATTEMPTS):
            try:
                answer = interruptible(lambda: _answer(request, self._bucket), end - time.monotonic())
                _answered.add(self._bucket)
                return answer
            except OSError as error:
                lasts = _lasts(error)
                if lasts and not isinstance(error, NoAnswerError):
                    _answered.add(self._bucket)
                if lasts or attempt == ATTEMPTS - 1 or time.monotonic() + pause >= end:
                    said = before if before and isinstance(error, NoAnswerError) else error
                    raise self._failure(said, seconds) from error
                before = error
            time.sleep(pause)
            pause *= 2
        raise AssertionError("the last attempt returns or raises")

    def _failure(self, error: OSError, seconds: float | None) -> OSError:
        """An error of pyarrow's with the name of the place, and what to look at where the store was never reached."""
        known = error.strerror or str(error).partition("\n")[0]
        if error.errno and not isinstance(error, NoAnswerError):  # pyarrow's words name what it asked for
            known = os.strerror(error.errno)
        if self._bucket not in _answered and seconds is not None:
            known += ". Is this machine on the network, and are region, endpoint and credentials those of this store?"
        return type(error)(error.errno or errno.EIO, known, str(self))


def _answer(request: Callable[[FileSystem], Result], bucket: tuple[str, str]) -> Result:
    """What a request gives.

    Raises:
        OSError: whatever pyarrow raises.
    """
    from pyarrow import ArrowException

    try:
        return request(_file_system(*bucket))
    except ArrowException as error:  # Azure's client, for one, has errors of no kind
        if isinstance(error, OSError):
            raise
        raise OSError(str(error).partition("\n")[0]) from error


class _Blocks(io.RawIOBase):
    """An object as a file: every read is a request for a part of it."""

    def __init__(self, place: RemotePlace) -> None:
        self._place, self._size, self._at = place, place.stat().st_size, 0
        self._file: NativeFile | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        target = memoryview(buffer).cast("B")
        wanted = max(0, min(len(target), self._size - self._at))
        if wanted:
            target[:wanted] = self._place._ask(lambda store: self._part(store, wanted))
            self._at += wanted
        return wanted

    def close(self) -> None:
        self._file = None
        super().close()

    def _part(self, store: FileSystem, size: int) -> bytes:
        try:
            if self._file is None:
                self._file = store.open_input_file(str(self._place.path))
            self._file.seek(self._at)
            part: bytes = self._file.read(size)
            if len(part) < size:
                raise OSError(errno.EIO, "the answer was cut")
        except OSError:
            self._file = None  # what is asked again is opened again
            raise
        return part


def _lasts(error: OSError) -> bool:
    """Whether the same request would fail again."""
    return isinstance(error, _LASTING) or any(word in str(error) for word in _LASTING_WORDS)


@functools.cache
def _file_system(scheme: str, bucket: str) -> FileSystem:
    from pyarrow.fs import FileSystem

    # Otherwise even a small object takes three requests, and is there in parts for a while.
    options = "?allow_delayed_open=true" if scheme == "s3" else ""
    try:
        system, _ = FileSystem.from_uri(f"{scheme}://{bucket}/{options}")
    except (ValueError, NotImplementedError) as error:  # a name that is none, a store that this pyarrow cannot do
        raise OSError(f"{_NO_STORE}: {error}") from error
    return system
