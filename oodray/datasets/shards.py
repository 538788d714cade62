"""Datasets in few large files, shards, each of which holds many images."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar

from oodray.datasets.layout import USUAL_CODES, Layout, Sample, files_named, refuse_outside, valid_uri
from oodray.datasets.members import Lost, Member, member_of
from oodray.errors import DatasetError, ImageError
from oodray.spelling import did_you_mean
from oodray.storage.place import Place, concurrently, path_inside
from oodray.storage.remote import is_remote

Listed = tuple[str, Member, Member | None]
"""An image of a shard: its name there, where its bytes are, and where those of its label are."""


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
    def listed(self, shard: Place) -> Iterable[Listed]:
        """The images of a shard, without reading them.

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
        samples = [sample for of_shard in of_shards for sample in of_shard]
        lost = [member for member in (member_of(sample.image_uri) for sample in samples) if isinstance(member, Lost)]
        if len(lost) == len(samples):
            raise self.error(f"{lost[0].path}: {lost[0].reason}" if lost else f"no images below {root}")
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

    def _samples(self, folder: Place, shard: Place) -> list[Sample]:
        name = str(path_inside(shard, folder).with_suffix(""))
        valid_uri(shard)
        samples = []
        try:
            for image, where, label in self.listed(shard):
                samples.append(Sample(f"{name}/{image}", str(where), None if label is None else str(label)))
        except ImageError as error:
            samples.append(Sample(name, str(Lost(str(shard), str(error))), None))
        except OSError as error:
            # What a disk does not give stays lost. A store may answer the next time; then a run lists the same images.
            if is_remote(shard):
                raise
            samples.append(Sample(name, str(Lost(str(shard), error.strerror or str(error))), None))
        return samples


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
