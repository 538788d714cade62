"""WebDataset: tar shards, in which files of one name and several suffixes belong together."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from oodray.datasets.layout import IMAGE_SUFFIXES, OTHER_PICTURES
from oodray.datasets.members import TarMember
from oodray.datasets.shards import Listed, Odd, Shards
from oodray.errors import ImageError
from oodray.storage.place import Place, open_seekable

LOSSY = (".jpg", ".jpeg", ".webp")
"""Suffixes of images whose label is the PNG of the same key."""

LABELS = (".label.png", ".mask.png", ".seg.png")
"""Suffixes of the label of an image that is a PNG itself."""

_LIKE_LABELS = tuple(label.removesuffix(".png") for label in LABELS)
_LEFT_OUT = (IMAGE_SUFFIXES | OTHER_PICTURES).difference(LOSSY, (".png",))
_LABEL_OF_NOTHING = (
    "left out, a label without an image of its key: for KEY.mask.png it is KEY.png or KEY.jpg, with no further word "
    "between KEY and the suffix"
)
_SECOND_LABEL = "left out, as its image has another label"
_IMAGE_LIKE_A_LABEL = "taken for an image, though its name is that of a label: a label is a PNG, KEY.mask.png"
_NOT_TAKEN = f"left out: in a shard an image is a {', '.join(suffix[1:] for suffix in LOSSY)} or png file, convert it"

_GZIP = b"\x1f\x8b"
_BLOCK = tarfile.BLOCKSIZE


class WebDataset(Shards):
    """Tar shards, local or in an object store."""

    name = "webdataset"
    title = "WebDataset shards"
    suffix = ".tar"
    where = "your own shards"
    tree = (
        "ROOT/**/SHARD.tar   may be one shard alone; in it:\n"
        "KEY.jpg or .jpeg or .webp   and KEY.png   0 in-distribution, 1 OoD, 255 ignore\n"
        "or, where images are PNG:\n"
        "KEY.png   and KEY.label.png or .mask.png or .seg.png; labels may be absent for some images"
    )

    def listed(self, shard: Place) -> Iterator[Listed | Odd]:
        """The images of a shard by key, and files that belong to none; its headers are read, and nothing else."""
        files: dict[str, list[TarMember]] = {}
        problem = None
        try:
            for member in members(shard):
                files.setdefault(split_name(member.name).key, []).append(member)
        except ImageError as error:
            problem = error
        for key, found in files.items():
            paired = pairs(found)
            for image, label in paired:
                yield key, image, label
            yield from odd_files(key, found, paired)
        if problem is not None:
            raise problem


class Name(NamedTuple):
    """The name of a file in a shard: its key, and its suffix in lower case."""

    key: str
    suffix: str


def split_name(name: str) -> Name:
    """The key and the suffix of a file; that of a label has two dots.

    >>> split_name("a/0.5.seg.png"), split_name("a/0.5.JPG")
    (Name(key='a/0.5', suffix='.seg.png'), Name(key='a/0.5', suffix='.jpg'))
    """
    lower = name.lower()
    suffix = next((label for label in LABELS if lower.endswith(label)), None)
    if suffix is None:
        _, dot, last = lower.rpartition("/")[2].rpartition(".")
        suffix = dot + last if dot else ""
    return Name(name[: len(name) - len(suffix)], suffix)


def pairs(files: list[TarMember]) -> list[tuple[TarMember, TarMember | None]]:
    """The images among the files of one key, which should be one, and the label."""
    by_suffix: dict[str, list[TarMember]] = {}
    for file in files:
        by_suffix.setdefault(split_name(file.name).suffix, []).append(file)
    lossy = [file for suffix in LOSSY for file in by_suffix.get(suffix, ())]
    images = lossy or by_suffix.get(".png", [])
    named = [".png", *LABELS] if lossy else LABELS
    label = next((file for suffix in named for file in by_suffix.get(suffix, ())), None)
    return [(image, label) for image in images]


def odd_files(key: str, files: list[TarMember], paired: list[tuple[TarMember, TarMember | None]]) -> Iterator[Odd]:
    """Files of a key that look like an image or a label and are none, or that look like a label and are an image."""
    used = {file.name for pair in paired for file in pair if file is not None}
    for file in files:
        suffix = split_name(file.name).suffix
        if file.name in used:
            if suffix not in LABELS and key.casefold().endswith(_LIKE_LABELS):
                yield Odd(file.name, _IMAGE_LIKE_A_LABEL, wrong=False)
        elif suffix in LABELS or suffix == ".png":
            yield Odd(file.name, _SECOND_LABEL if paired else _LABEL_OF_NOTHING)
        elif suffix in _LEFT_OUT:
            yield Odd(file.name, _NOT_TAKEN)


def members(shard: Place) -> Iterator[TarMember]:
    """The files in a tar shard, without folders, links and hidden files, in their order.

    Raises:
        ImageError: it is no tar file, or damaged from some byte on.
        OSError: it cannot be read.
    """
    last = None
    with open_seekable(shard) as file:
        if file.read(2) == _GZIP:
            raise ImageError("it is compressed with gzip, so its images cannot be found one by one; unpack it: gunzip")
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (info := tar.next()) is not None:
                    vars(tar)["members"].clear()  # it keeps what it has read
                    last = info
                    if info.isreg() and not info.issparse() and not _is_hidden(info.name):
                        yield TarMember(str(shard), info.name, info.offset_data, info.size)
                end = tar.offset
        except (tarfile.TarError, ValueError, UnicodeError) as error:
            raise ImageError(_damage(last, str(error))) from error
        _require_end(file, end, last)


def _require_end(file: BinaryIO, end: int, last: tarfile.TarInfo | None) -> None:
    """What follows the last file is a block of zeros: tarfile takes any other that is no header for the end, too."""
    file.seek(end)
    block = file.read(_BLOCK)
    if block != bytes(_BLOCK):
        cut = len(block) < _BLOCK
        raise ImageError(_damage(last, "it is cut short, as its end has no mark" if cut else "no header of a file"))


def _damage(last: tarfile.TarInfo | None, reason: str) -> str:
    where = "it is no tar file" if last is None else f"what comes after {last.name}"
    return f"{where} ({reason}); fetch the file again"


def _is_hidden(name: str) -> bool:
    return name.rpartition("/")[2].startswith(".")
