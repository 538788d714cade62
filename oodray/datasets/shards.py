"""Datasets in few large files, shards, each of which holds many images."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import ClassVar
from urllib.parse import quote

import pyarrow as pa

from oodray.datasets.layout import USUAL_CODES, Layout, files_named, refuse_outside, stays_below, valid_uri
from oodray.datasets.listing import Sample, table_of_samples
from oodray.datasets.members import Lost, Member
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

    def table(self, root: Place, *, allow_outside: bool) -> pa.Table:
        """See `Layout.table`; `root` is a folder of shards, or one of them."""
        folder, shards = self._shards(root)
        if not allow_outside:
            refuse_outside(folder, map(str, shards))
        contents = concurrently(lambda shard: self._content(folder, shard), shards, is_remote(root))
        said = _remark_on([odd for content in contents for odd in content.odd])
        lost = [lost for content in contents for lost in content.lost]
        table = pa.concat_tables(content.samples for content in contents)
        if len(lost) == table.num_rows:
            raise self.error(
                f"{lost[0].path}: {lost[0].reason}" if lost else "; ".join([f"no images below {root}", *said])
            )
        return table

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

    def _content(self, folder: Place, shard: Place) -> _Content:
        """The images of a shard under names that begin with that of the shard."""
        valid_uri(shard)
        odd, lost = list[Odd](), list[Lost]()
        samples = table_of_samples(self._samples(path_inside(shard, folder), shard, odd, lost))
        return _Content(samples, odd, lost)

    def _samples(self, path: PurePosixPath, shard: Place, odd: list[Odd], lost: list[Lost]) -> Iterator[Sample]:
        """The images of a shard that lies at a path; what is odd in it, and lost of it, is put into lists."""
        name = str(path.with_suffix(""))

        def lose(reason: str, called: str = name) -> Sample:
            lost.append(Lost(str(shard), reason))
            return Sample(called, str(lost[-1]), None)

        try:
            for found in self.listed(shard):
                if isinstance(found, Odd):
                    odd.append(replace(found, name=f"{path}: {found.name}"))
                    continue
                inside, where, label = found
                if stays_below(inside):
                    yield Sample(f"{name}/{inside}", str(where), None if label is None else str(label))
                else:
                    reason = "leads out of the results, whose files are named after it; rename it"
                    yield lose(f"the name {inside!r} in it {reason}", f"{name}/{quote(inside, safe='')}")
        except ImageError as error:
            yield lose(str(error))
        except OSError as error:
            # What a disk does not give stays lost. A store may answer the next time; then a run lists the same images.
            if is_remote(shard):
                raise
            yield lose(error.strerror or str(error))


@dataclass(frozen=True)
class _Content:
    """What a shard holds: its samples as a table, what is odd in it, and those of the samples that cannot be read."""

    samples: pa.Table
    odd: list[Odd]
    lost: list[Lost]


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
