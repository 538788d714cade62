"""Files of weights as files: their digests, and those that are no checkpoint, as a failed download leaves them."""

from __future__ import annotations

import re
import struct
import zipfile
from pathlib import Path

from oodray.errors import ModelError
from oodray.storage.atomic import sha256_of

_HEAD = 512
_MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<head")
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_ZIP = b"PK\x03\x04"


def describe_wrong_file(path: Path) -> str | None:
    """What `path` is instead of a whole checkpoint, and what to do; None where nothing speaks against it.

    Raises:
        OSError: if it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if size == 0:
        return "it is empty: download it again"
    if head.startswith(_LFS_POINTER):
        return "it is a Git LFS pointer, which stands for the file: run `git lfs pull` where it lies, or download it"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_MARKUP):
        return "it is a web page saved under this name: download the file itself, not the page that shows it"
    if head.startswith(_ZIP) and _zip_names(path) is None:
        return (
            f"it is truncated or damaged: it begins as a checkpoint and ends after {size:,} bytes without a sound index"
        )
    missing = _safetensors_bytes(head) - size
    if is_safetensors(head) and missing > 0:
        return f"it is truncated: at least {missing:,} of its bytes are missing"
    return _part_of_several(path) or _archive(path, head)


_JOIN = "a folder of Hugging Face with its config.json is read whole; else save all tensors into one file"


def _part_of_several(path: Path) -> str | None:
    if path.name.endswith(".index.json"):
        return f"it lists the parts of a checkpoint that was cut into several files; {_JOIN}"
    part = re.search(r"-(\d{5})-of-(\d{5})\.\w+$", path.name)
    return None if part is None else f"it is part {int(part[1])} of {int(part[2])} of a checkpoint; {_JOIN}"


def _archive(path: Path, head: bytes) -> str | None:
    """What holds a checkpoint, instead of being one."""
    if head.startswith(b"\x1f\x8b"):
        return f"it is compressed by gzip: `gunzip {path.name}` gives the file itself"
    if head[257:262] == b"ustar":
        return f"it is a tar archive: `tar -xf {path.name}` gives the files in it"
    names = (_zip_names(path) or []) if head.startswith(_ZIP) else []
    if not names:
        return None
    if any(name.endswith("/constants.pkl") for name in names):
        return "it is a network compiled by TorchScript, which is code: a factory may load it, see docs/models.md"
    if not any(name.endswith("data.pkl") for name in names):
        return f"it is a zip archive of {', '.join(names[:3])}: `unzip {path.name}` gives the files in it"
    return None


def _zip_names(path: Path) -> list[str] | None:
    """The names in the index of a zip archive; None where there is no sound index."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except OSError:
        raise
    except Exception:  # hostile bytes: BadZipFile, UnicodeDecodeError, struct.error, ValueError, NotImplementedError
        return None


def is_safetensors(head: bytes) -> bool:
    """Whether a file that begins so is in the format safetensors: a length, then JSON of an object."""
    return head[8:9] == b"{" and 2 <= _header_bytes(head) <= 100_000_000


def _header_bytes(head: bytes) -> int:
    return int(struct.unpack("<Q", head[:8])[0]) if len(head) >= 8 else 0


def _safetensors_bytes(head: bytes) -> int:
    """At least this many bytes a safetensors file has: those of its header."""
    return 8 + _header_bytes(head)


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file.

    Raises:
        ModelError: if it cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise ModelError(f"cannot read the checkpoint {path}: {error.strerror}") from error


def refuse_wrong_file(path: Path) -> None:
    """Find out by a look at its ends that a file is no checkpoint, as after a download that failed.

    Raises:
        ModelError: if it is none, or cannot be read.
    """
    try:
        wrong = describe_wrong_file(path)
    except FileNotFoundError as error:
        raise ModelError(f"the checkpoint {path} does not exist") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read as a checkpoint: {error.strerror or error}") from error
    if wrong is not None:
        raise ModelError(f"{path} is not a checkpoint: {wrong}")
