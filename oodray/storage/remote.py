"""Files in object stores: paths such as `s3://bucket/key`, which are read, listed and written as those on disks are."""

from __future__ import annotations

import errno
import functools
import io
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Generator
from fnmatch import fnmatchcase
from pathlib import Path, PosixPath
from typing import IO, TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

ATTEMPTS = 6
"""How often a request is made that fails for a reason that may pass: a busy server, a connection that breaks."""

_FIRST_PAUSE_SECONDS = 0.2
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_LASTING_WORDS = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH")

# One slash, as a path takes the other one away before it comes here.
_REMOTE = re.compile(r"(s3|gs|gcs|abfs|abfss|hdfs):/+(?=[^/])")

Result = TypeVar("Result")


def storage_path(place: str | Path) -> Path:
    """A place on a disk, as an absolute path, or in an object store.

    >>> print(storage_path("s3://bucket/folder") / "a.png")
    s3://bucket/folder/a.png
    >>> print(storage_path(Path("s3://bucket")))
    s3://bucket
    """
    return RemotePath(str(place)) if is_remote(place) else Path(place).expanduser().absolute()


def is_remote(place: str | Path) -> bool:
    """Whether a place lies in an object store."""
    return _REMOTE.match(str(place)) is not None


def listing(folder: Path) -> list[tuple[Path, bool]]:
    """What lies in a folder, and whether it is a folder itself; links count as what they lead to.

    Raises:
        OSError: it cannot be listed.
    """
    if isinstance(folder, RemotePath):
        return [*folder.listing()]
    # os.scandir tells folders from files without a question for each, which is slow on a network drive.
    with os.scandir(folder) as found:
        return [(Path(entry), entry.is_dir()) for entry in found]


def remove_folder(folder: Path) -> None:
    """Remove a folder, if it is there, as far as that goes."""
    if isinstance(folder, RemotePath):
        for path, is_dir in folder.listing(recursive=True):
            if not is_dir:
                path.unlink(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


class RemotePath(PosixPath):
    """A place in an object store, through pyarrow's file systems: credentials and endpoints are where these look.

    What it has of a path on a disk works; all else fails, as there is no file of that name on this machine.
    """

    def __str__(self) -> str:
        # A path makes one slash of two; what is relative to a place has none.
        return re.sub(r"^([a-z0-9]+):/+", r"\1://", super().__str__())

    def __fspath__(self) -> str:
        raise TypeError(f"{self} is not on a disk")

    def absolute(self) -> Self:
        """Itself."""
        return self

    def resolve(self, strict: bool = False) -> Self:  # noqa: ARG002 - as a path has it
        """Itself: object stores have no links."""
        return self

    def is_symlink(self) -> bool:
        """No."""
        return False

    def exists(self, **_: Any) -> bool:
        """Whether an object, or any below it, is there."""
        return str(self._info().type.name) != "NotFound"

    def is_file(self, **_: Any) -> bool:
        """Whether an object is there."""
        return str(self._info().type.name) == "File"

    def is_dir(self, **_: Any) -> bool:
        """Whether objects are below it."""
        return str(self._info().type.name) == "Directory"

    def stat(self, **_: Any) -> os.stat_result:
        """Size and time of an object.

        Raises:
            FileNotFoundError: it is not there.
        """
        info = self._info()
        if info.type.name == "NotFound":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        mode = stat.S_IFDIR if info.type.name == "Directory" else stat.S_IFREG
        seconds = int(info.mtime.timestamp()) if info.mtime else 0
        return os.stat_result((mode, 0, 0, 0, 0, 0, info.size or 0, seconds, seconds, seconds))

    def open(  # type: ignore[override]  # two modes of many
        self, mode: str = "r", *_: Any, encoding: str | None = None, **__: Any
    ) -> IO[Any]:
        """The content of an object, read as a whole.

        Raises:
            OSError: it cannot be read.
        """
        if mode not in ("r", "rb"):
            raise TypeError(f"{self} is written with oodray.storage.atomic.replacing")
        content = io.BytesIO(self.read_bytes())
        return content if mode == "rb" else io.TextIOWrapper(content, encoding=encoding)

    def read_bytes(self) -> bytes:
        """The content of an object.

        Raises:
            OSError: it cannot be read.
        """

        def read() -> bytes:
            with self._system().open_input_file(self._key()) as file:
                content: bytes = file.read()
            # An answer that is cut before it says its length reads as an empty object.
            if not content and self._system().get_file_info(self._key()).size:
                raise OSError(errno.EIO, "the answer was cut")
            return content

        return _retried(self, read)

    def read_text(self, encoding: str | None = None, *_: Any, **__: Any) -> str:
        """The content of an object, as text."""
        return self.read_bytes().decode(encoding or "utf-8")

    def upload(self, content: bytes) -> None:
        """Write an object: it appears whole, or not at all.

        Raises:
            OSError: it cannot be written.
        """

        def write() -> None:
            with self._system().open_output_stream(self._key()) as file:
                file.write(content)

        _retried(self, write)

    def touch(self, *_: Any, **__: Any) -> None:
        """Write an object again, which makes it new."""
        self.upload(self.read_bytes() if self.is_file() else b"")

    def mkdir(self, *_: Any, **__: Any) -> None:
        """Nothing to do: folders come with what lies in them."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove an object.

        Raises:
            FileNotFoundError: it is not there, unless `missing_ok`.
        """
        try:
            _retried(self, lambda: self._system().delete_file(self._key()))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def iterdir(self) -> Generator[Self, None, None]:
        """What lies in a folder, first level."""
        yield from (path for path, _ in self.listing())

    def listing(self, *, recursive: bool = False) -> list[tuple[Self, bool]]:
        """What lies in a folder, or anywhere below it, and whether it is a folder; nothing where there is none.

        Raises:
            OSError: it cannot be listed.
        """
        from pyarrow.fs import FileSelector

        selector = FileSelector(self._key(), allow_not_found=True, recursive=recursive)
        infos = _retried(self, lambda: self._system().get_file_info(selector))
        scheme = str(self).partition("://")[0]
        return [(type(self)(f"{scheme}://{info.path}"), info.type.name == "Directory") for info in infos]

    def glob(self, pattern: str) -> Generator[Self, None, None]:  # type: ignore[override,unused-ignore]
        """What lies in a folder under names of a pattern."""
        yield from (path for path, _ in self.listing() if fnmatchcase(path.name, pattern))

    def rglob(self, pattern: str) -> Generator[Self, None, None]:  # type: ignore[override,unused-ignore]
        """What lies anywhere below a folder under names of a pattern."""
        yield from (path for path, _ in self.listing(recursive=True) if fnmatchcase(path.name, pattern))

    def _info(self) -> FileInfo:
        return _retried(self, lambda: self._system().get_file_info(self._key()))

    def _system(self) -> FileSystem:
        return _file_system(str(self).partition("://")[0], self._key().partition("/")[0])

    def _key(self) -> str:
        return str(self).partition("://")[2]


@functools.cache
def _file_system(scheme: str, bucket: str) -> FileSystem:
    from pyarrow.fs import FileSystem

    # Otherwise even a small object takes three requests, and is there in parts for a while.
    options = "?allow_delayed_open=true" if scheme == "s3" else ""
    system, _ = FileSystem.from_uri(f"{scheme}://{bucket}/{options}")
    return system


def _retried(path: Path, request: Callable[[], Result]) -> Result:
    """What a request gives, made again where its failure may pass.

    Raises:
        OSError: with the last reason.
    """
    pause = _FIRST_PAUSE_SECONDS
    for attempt in range(ATTEMPTS):
        try:
            return request()
        except OSError as error:
            if attempt == ATTEMPTS - 1 or isinstance(error, _LASTING) or any(w in str(error) for w in _LASTING_WORDS):
                known = os.strerror(error.errno) if error.errno else str(error).partition("\n")[0]
                raise type(error)(error.errno or errno.EIO, known, str(path)) from error
        time.sleep(pause)
        pause *= 2
    raise AssertionError("the last attempt returns or raises")
