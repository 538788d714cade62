"""The finished files of a run as they are counted: each image once, a few files at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from oodray.ahead import in_threads
from oodray.cluster.shares import usable_cores
from oodray.errors import ResultsError
from oodray.results.folder import ResultsFolder
from oodray.results.joining import PARTS_AT_ONCE
from oodray.results.reading import RowGroup, pieces, read_each, read_to_count, wave_of
from oodray.storage.place import Place
from oodray.storage.remote import is_remote

FILES_PER_TASK = 128
"""Parts that one process reads: files of units, and row groups of waves. With more than this, Ray reads them.

A megapixel image takes 10 ms, and starting Ray five seconds.
"""


@dataclass(frozen=True)
class CountedFiles:
    """Files of result rows, and which of their rows count.

    Attributes:
        parts: the files, closed waves by row group.
        repeated: by file, the rows whose image another row has before them; files without one are left out.
    """

    parts: Sequence[Place | RowGroup]
    repeated: Mapping[Place | RowGroup, frozenset[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: ResultsFolder) -> CountedFiles:
        """The finished files of a folder, which is listed once, for all that is done with them.

        Raises:
            ResultsError: if it holds none, or one cannot be read.
        """
        in_store = is_remote(folder.path)
        # A file of units in an object store is read whole.
        threads = PARTS_AT_ONCE if in_store else usable_cores()
        listed = in_threads(_listed, folder.parts(), threads, daemon=in_store)
        parts = [part for of_file, _ in listed for part in of_file]
        if not parts:
            raise ResultsError(f"{folder.path} holds no results yet; run `oodray run` to make some")
        return cls(parts, _repeated_rows(parts, [ids for _, of_file in listed for ids in of_file]))

    def tables(self, columns: list[str]) -> Iterator[pa.Table]:
        """The rows that count, some of their columns, file by file: one file is in memory at a time."""
        for part, table in zip(self.parts, read_each(self.parts, columns), strict=True):
            left_out = self.repeated.get(part)
            yield table.filter([row not in left_out for row in range(table.num_rows)]) if left_out else table

    def to_count(self, columns: list[str]) -> Iterator[pa.Table]:
        """The rows that count, some of their columns: of closed waves a few at a time, see `read_to_count`."""
        # Where rows are left out, it must be known of which part a table is.
        whole = any(part in self.repeated for part in self.parts)
        return self.tables(columns) if whole else read_to_count(self.parts, columns)

    def by_wave(self) -> Iterator[tuple[Place | None, CountedFiles]]:
        """The closed waves, each with its file, and the files of units between them, without one."""
        for wave, parts in groupby(self.parts, wave_of):
            yield wave, CountedFiles([*parts], self.repeated)

    def chunks(self, size: int) -> list[CountedFiles]:
        """The files in order, `size` at a time."""
        starts = range(0, len(self.parts), size)
        return [CountedFiles(self.parts[start : start + size], self.repeated) for start in starts]


def _listed(path: Place) -> tuple[list[Place | RowGroup], list[pa.ChunkedArray[Any]]]:
    """The parts of a file, and the ids of the images of each."""
    parts = pieces([path])
    return parts, [table["image_id"] for table in read_each(parts, ["image_id"])]


def _repeated_rows(
    parts: Sequence[Place | RowGroup], ids: Sequence[pa.ChunkedArray[Any]]
) -> dict[Place | RowGroup, frozenset[int]]:
    """Rows to leave out, so that every image counts once: a folder that was copied together can hold one twice."""
    rows = sum(len(of_part) for of_part in ids)
    every = pa.chunked_array([chunk for of_part in ids for chunk in of_part.chunks], pa.string())
    if pc.count_distinct(every, mode="all").as_py() == rows:
        return {}  # found out without an object for each
    seen: set[str | None] = set()
    repeated: dict[Place | RowGroup, frozenset[int]] = {}
    for part, of_part in zip(parts, ids, strict=True):
        again = set()
        for row, image_id in enumerate(of_part.to_pylist()):
            if image_id in seen:
                again.add(row)
            seen.add(image_id)
        if again:
            repeated[part] = frozenset(again)
    return repeated
