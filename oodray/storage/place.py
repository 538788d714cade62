"""Where files lie: on a disk, or in an object store. What reads and writes them need not ask which."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, Protocol, Self, TypeVar

from oodray.ahead import in_threads
from oodray.storage.remote import RemotePlace, is_remote

Item = TypeVar("Item")
Result = TypeVar("Result")

REQUESTS_AT_ONCE = 32
"""Requests to an object store under way at a time, where there are many to make."""


class FileStatus(Protocol):
    """What `Place.stat` tells of a file."""

    @property
    def st_size(self) -> int:
        """Bytes."""

    @property
    def st_mtime(self) -> float:
        """Seconds since the epoch when it was last written."""


class Place(Protocol):
    """A file or folder: `pathlib.Path` on a disk, `RemotePlace` in an object store.

    These are the operations of a path that work on both. Files are written with `oodray.storage.atomic.replacing`.
    What is not there is a FileNotFoundError, any other failure an OSError, with the name of the place.

    >>> place = storage_path("s3://bucket/photos") / "a.png"
    >>> print(place, place.name, place.parent)
    s3://bucket/photos/a.png a.png s3://bucket/photos
    """

    @property
    def name(self) -> str:
        """The last part of the name."""

    @property
    def stem(self) -> str:
        """The last part of the name without its suffix."""

    @property
    def suffix(self) -> str:
        """The suffix of the name, with its dot."""

    @property
    def parent(self) -> Self:
        """The folder that it lies in."""

    def __truediv__(self, name: str | PurePosixPath, /) -> Self: ...

    def __lt__(self, other: Self, /) -> bool: ...

    def with_suffix(self, suffix: str, /) -> Self:
        """The same name with another suffix."""

    def resolve(self) -> Self:
        """Where it lies once links are followed."""

    def exists(self) -> bool:
        """Whether a file or folder is there."""

    def is_file(self) -> bool:
        """Whether a file is there."""

    def is_dir(self) -> bool:
        """Whether a folder is there."""

    def is_symlink(self) -> bool:
        """Whether it is a link."""

    def stat(self) -> FileStatus:
        """Size and time of a file."""

    def iterdir(self) -> Iterator[Self]:
        """What lies in a folder."""

    def glob(self, pattern: str, /) -> Iterator[Self]:
        """What lies in a folder under names of a pattern; nothing where there is no folder."""

    def open(self, mode: Literal["rb"], /) -> BinaryIO:
        """The content of a file, to be read."""

    def read_bytes(self) -> bytes:
        """The content of a file."""

    def read_text(self, encoding: str | None = None) -> str:
        """The content of a file, as text."""

    def touch(self) -> None:
        """Make an empty file; one that is there keeps its content and becomes new."""

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Make a folder."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove a file."""


def storage_path(place: str | Place) -> Place:
    """A place from its name; on a disk, it becomes an absolute path.

    >>> print(storage_path("s3://bucket/folder") / "a.png")
    s3://bucket/folder/a.png
    >>> print(storage_path(Path("s3://bucket")))
    s3://bucket
    """
    name = str(place)
    return RemotePlace.named(name) if is_remote(name) else Path(name).expanduser().absolute()


def open_seekable(place: Place) -> BinaryIO:
    """The content of a file, of which parts are read: of an object in a store, only these are asked for.

    Raises:
        OSError: it cannot be opened.
    """
    return place.open_seekable() if isinstance(place, RemotePlace) else place.open("rb")


def entries_of(folder: Place) -> list[tuple[Place, bool]]:
    """What lies in a folder, and whether it is a folder itself; links count as what they lead to.

    Raises:
        OSError: it cannot be listed.
    """
    if isinstance(folder, RemotePlace):
        return [*folder.entries()]
    # os.scandir tells folders from files without a question for each, which is slow on a network drive.
    with os.scandir(str(folder)) as found:
        return [(Path(entry), _is_folder(entry)) for entry in found]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder; a link to where one may not look counts as a file, which then cannot be read."""
    try:
        return entry.is_dir()
    except PermissionError:
        return False


def concurrently(work: Callable[[Item], Result], items: Sequence[Item], in_store: bool) -> list[Result]:
    """What some work makes of each item: of many at a time where it waits for an object store."""
    return in_threads(work, items, REQUESTS_AT_ONCE if in_store else 1, daemon=True)


def remove_folder(folder: Place) -> None:
    """Remove a folder, if it is there, as far as that goes."""
    if isinstance(folder, RemotePlace):
        for place, is_dir in folder.entries(recursive=True):
            if not is_dir:
                place.unlink(missing_ok=True)
    else:
        shutil.rmtree(str(folder), ignore_errors=True)


def is_inside(place: Place, folder: Place) -> bool:
    """Whether a place lies in a folder or is the folder, by their names: `resolve` both where links may be.

    >>> is_inside(storage_path("s3://bucket/a/b"), storage_path("s3://bucket/a"))
    True
    >>> is_inside(Path("/a/b"), storage_path("s3://bucket/a"))
    False
    """
    return PurePosixPath(str(place)).is_relative_to(str(folder))


def path_inside(place: Place, folder: Place) -> PurePosixPath:
    """The path to a place from a folder that it lies in.

    Raises:
        ValueError: it does not lie there.

    >>> print(path_inside(storage_path("s3://bucket/a/b.png"), storage_path("s3://bucket")))
    a/b.png
    """
    return PurePosixPath(str(place)).relative_to(str(folder))
