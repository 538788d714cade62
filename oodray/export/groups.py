"""Groups of images that follow each other: what an export writes, notes down and continues as a whole.

A group is a range of units, so it is the same whether its rows lie in files of units, while a run goes on, or in that
of a closed wave.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from oodray.analysis.files import CountedFiles
from oodray.datasets.manifest import size_of_units
from oodray.results.folder import ResultsFolder
from oodray.results.names import unit_of
from oodray.results.reading import RowGroup, few_rows, read_rows
from oodray.results.rows import OK
from oodray.storage.place import Place

IMAGES_OF_A_GROUP, UNITS_OF_A_GROUP = 64, 8
"""What a group has at least: where units have one image each the first decides, where images are small the second."""


@dataclass(frozen=True)
class Group:
    """Images of the units from `first` to `last`.

    Attributes:
        number: of the group, counted from 0.
        first: unit.
        last: unit.
        files: what may have their rows, in their order.
    """

    number: int
    first: int
    last: int
    files: CountedFiles

    @property
    def name(self) -> str:
        """A name for files that are made of it."""
        return f"{self.number:06d}"

    def processed(self) -> list[str]:
        """The images that did not fail, in the order of the dataset.

        Raises:
            ResultsError: a file cannot be read.
        """
        columns = ["unit", "image_id", "status"]
        tables = [self._own(part, 0, read_rows([part], columns)) for part in self.files.parts]
        return [image_id for table in tables for image_id in cast("list[str]", table["image_id"].to_pylist())]

    def rows(self, columns: list[str]) -> Iterator[pa.Table]:
        """The rows of these images, as tables of one row: of the rest of a file, a few rows are in memory.

        Raises:
            ResultsError: a file cannot be read.
        """
        for part in self.files.parts:
            seen = 0
            for table in few_rows(part, [*dict.fromkeys(["unit", "status", *columns])]):
                own = self._own(part, seen, table)
                seen += table.num_rows
                yield from (own.slice(row, 1) for row in range(own.num_rows))

    def _own(self, part: Place | RowGroup, seen: int, table: pa.Table) -> pa.Table:
        """Those of some rows of a part that count, have a unit of this group, and did not fail."""
        units = table["unit"].to_numpy()
        again = self.files.repeated.get(part, frozenset())
        counts = np.array([seen + row not in again for row in range(table.num_rows)], np.bool_)
        inside = pa.array(counts & (self.first <= units) & (units <= self.last))
        return table.filter(pc.and_(inside, pc.equal(table["status"], pa.scalar(OK))))


def groups_of(folder: ResultsFolder, files: CountedFiles) -> list[Group]:
    """The groups of a run that have rows in some of its files, in their order.

    Raises:
        ResultsError: the manifest cannot be read.
    """
    units = max(UNITS_OF_A_GROUP, -(-IMAGES_OF_A_GROUP // max(1, size_of_units(folder.manifest))))
    parts: defaultdict[int, list[Place | RowGroup]] = defaultdict(list)
    for part in files.parts:
        first, last = part.units if isinstance(part, RowGroup) else _units_of(part)
        for number in range(first // units, last // units + 1):
            parts[number].append(part)
    return [
        Group(number, number * units, (number + 1) * units - 1, CountedFiles(found, files.repeated))
        for number, found in sorted(parts.items())
    ]


def _units_of(part: Place) -> tuple[int, int]:
    """The first and the last unit of a file."""
    unit = unit_of(part.name)
    if unit is not None:
        return unit, unit
    units = read_rows([part], ["unit"])["unit"]
    return (pc.min(units).as_py(), pc.max(units).as_py()) if len(units) else (0, 0)
