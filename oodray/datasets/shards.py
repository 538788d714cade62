"""Datasets in few large files, shards, each of which holds many images."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import ClassVar
from urllib.parse import quote

from oodray.datasets.layout import USUAL_CODES, Layout, Sample, files_named, refuse_outside, stays_below, valid_uri
from oodray.datasets.members import Lost, Member, member_of
from oodray.datasets.remarks import examples, remark
from oodray.errors import DatasetError, ImageError
from oodray.spelling import did_you_mean
from oodray.storage.place import Place, concurrently, path_inside
from oodray.storage.remote import is_remote

Listed = tuple[str, Member, Member | None]
"""An image of a shard: its name there, where its bytes are, and where those of its label are."""


@dataclass(frozen=True)
class Odd:
    """A file in a shard that may have been meant otherwise than it is understood.

    Attributes:
        name: of the file there.
        said: what is said of it, after the names of all of which it is said.
        wrong: see `Remark`.
    """

    name: str
    said: str
    wrong: bool = True


@dataclass(frozen=True)
class Shards(Layout, ABC):
    """A layout whose images lie inside of shards.

    A shard that is broken is a sample of its own, which cannot be read: so a run has a row that names it, and the
    images of the others are computed.

    Attributes:
        split: the split whose shards are read; None for all of them.
        suffix: of the shards' names.
    """

    split: str | None = None

    suffix: ClassVar[str]
    images: ClassVar[int | None] = None
    folders: ClassVar[tuple[str, ...]] = ()
    label_codes = USUAL_CODES
    own_codes: ClassVar[bool] = True

    @abstractmethod
    def listed(self, shard: Place) -> Iterable[Listed | Odd]:
        """The images of a shard, without reading them, and what is odd in it.

        Raises:
            ImageError: the shard is broken; images that were listed before count.
            OSError: it cannot be read.
        """

    def of_split(self, split: str) -> Layout:
        """The layout of one split: that of the shards that have its name in theirs, or in that of a folder."""
        return type(self)(split)

    def samples(self, root: Place, *, allow_outside: bool) -> list[Sample]:
        """See `Layout.samples`; `root` is a folder of shards, or one of them."""
        folder, shards = self._shards(root)
        if not allow_outside:
            refuse_outside(folder, map(str, shards))
        of_shards = concurrently(lambda shard: self._samples(folder, shard), shards, is_remote(root))
        samples = [sample for of_shard, _ in of_shards for sample in of_shard]
        said = _remark_on([odd for _, of_shard in of_shards for odd in of_shard])
        lost = [member for member in (member_of(sample.image_uri) for sample in samples) if isinstance(member, Lost)]
        if len(lost) == len(samples):
            raise self.error(
                f"{lost[0].path}: {lost[0].reason}" if lost else "; ".join([f"no images below {root}", *said])
            )
        return samples

    def _shards(self, root: Place) -> tuple[Place, list[Place]]:
        """The folder that shards are named after, and the shards."""
        if not root.exists():
            raise self.error(f"the folder {root} does not exist")
        if root.is_file():
            if not self._is_shard(root.name):
                raise self.error(f"{root} is not a folder, and no {self.suffix}")
            return root.parent, [root]
        shards = files_named(self._is_shard, root, recursive=True)
        if not shards:
            raise self.error(f"no images below {root}: there is no {self.suffix}")
        if self.split is None:
            return root, shards
        chosen = [shard for shard in shards if is_of_split(path_inside(shard, root), self.split)]
        if not chosen:
            known = sorted({name for shard in shards for name in words(path_inside(shard, root))})
            raise DatasetError(
                f"no file below {root} is of the split {self.split!r}; "
                + did_you_mean(self.split, known, what="words in the names of its files")
            )
        return root, chosen

    def _is_shard(self, name: str) -> bool:
        return name.lower().endswith(self.suffix)

    def _samples(self, folder: Place, shard: Place) -> tuple[list[Sample], list[Odd]]:
        """The images of a shard, and what is odd in it, under names that begin with that of the shard."""
        name = str(path_inside(shard, folder).with_suffix(""))
        valid_uri(shard)
        samples, odd = list[Sample](), list[Odd]()
        try:
            for found in self.listed(shard):
                if isinstance(found, Odd):
                    odd.append(replace(found, name=f"{path_inside(shard, folder)}: {found.name}"))
                else:
                    samples.append(_sample(name, shard, *found))
        except ImageError as error:
            samples.append(Sample(name, str(Lost(str(shard), str(error))), None))
        except OSError as error:
            # What a disk does not give stays lost. A store may answer the next time; then a run lists the same images.
            if is_remote(shard):
                raise
            samples.append(Sample(name, str(Lost(str(shard), error.strerror or str(error))), None))
        return samples, odd


def _sample(prefix: str, shard: Place, name: str, where: Member, label: Member | None) -> Sample:
    if stays_below(name):
        return Sample(f"{prefix}/{name}", str(where), None if label is None else str(label))
    reason = f"the name {name!r} in it leads out of the results, whose files are named after it; rename it"
    return Sample(f"{prefix}/{quote(name, safe='')}", str(Lost(str(shard), reason)), None)


def _remark_on(odd: Iterable[Odd]) -> list[str]:
    """Say what is odd, once for all files of which the same is said; gives what is said."""
    names: dict[tuple[str, bool], list[str]] = {}
    for found in odd:
        names.setdefault((found.said, found.wrong), []).append(found.name)
    texts = []
    for (said, wrong), found_names in names.items():
        count = len(found_names)
        texts.append(f"{count:,} file{'s' if count > 1 else ''} ({examples(found_names)}) {said}")
        remark(texts[-1], wrong=wrong)
    return texts


def words(path: PurePosixPath) -> set[str]:
    """The words in the name of a file and of its folders.

    >>> sorted(words(PurePosixPath("data/test-00000-of-00002.parquet")))
    ['data', 'of', 'test']
    """
    return set(re.findall(r"[^\W\d_]+", str(path.with_suffix(""))))


def is_of_split(path: PurePosixPath, split: str) -> bool:
    """Whether a file, or a folder that it lies in, is named after a split.

    >>> [is_of_split(PurePosixPath(path), "test") for path in ("test-0.tar", "a/test/0.tar", "latest-0.tar")]
    [True, True, False]
    """
    return re.search(rf"(?<![^\W\d_]){re.escape(split)}(?![^\W\d_])", str(path.with_suffix(""))) is not None
