"""Files that appear whole or not at all, and what they hold."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from oodray.errors import RunError
from oodray.storage.place import Place
from oodray.storage.remote import RemotePlace

TEMPORARY_FILES = ".*.tmp"
"""Pattern of the names that `replacing` writes under: what matches is left over from a process that was killed."""

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)
"""What a drive without links answers where one is made."""

_LONGEST_PREFIX = 40


@contextlib.contextmanager
def replacing(target: Place) -> Iterator[Path]:
    """A temporary path on a disk, to be written in the block; it takes the target's place when that ends well.

    Folders on the way to `target` are made. After an error nothing is left, and the target is what it was.

    Raises:
        RunError: the file cannot be written.
    """
    with _uploading(target) if isinstance(target, RemotePlace) else _renaming(Path(str(target))) as temporary:
        yield temporary


def link_to(target: Path, original: Path) -> bool:
    """Make a link take the place of a target, whole; False where a drive has no links.

    Raises:
        RunError: the folder cannot be written to.
    """
    temporary = _temporary(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.symlink_to(original)
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in NO_LINKS:
            return False
        raise RunError(f"cannot write {target}: {error.strerror}") from error
    return True


def remove_leftovers(folder: Place, *, recursive: bool = False) -> None:
    """Remove what killed processes were writing in a folder on a disk; in a store an object is there whole or not."""
    if isinstance(folder, Path):
        for leftover in folder.rglob(TEMPORARY_FILES) if recursive else folder.glob(TEMPORARY_FILES):
            leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def _renaming(target: Path) -> Iterator[Path]:
    temporary = _temporary(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        # pyarrow's own words for an error of the system name the temporary file.
        reason = os.strerror(error.errno) if error.errno else error
        raise RunError(f"cannot write {target}: {reason}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _temporary(target: Path) -> Path:
    # The target's name may be as long as the file system allows.
    return target.with_name(f".{target.name[:_LONGEST_PREFIX]}.{uuid.uuid4().hex}.tmp")


@contextlib.contextmanager
def _uploading(target: RemotePlace) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / "content"
        try:
            yield temporary
            target.upload(temporary.read_bytes())
        except OSError as error:
            raise RunError(f"cannot write {target}: {error.strerror or error}") from error


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
