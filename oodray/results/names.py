"""Names of the files of results: which units each holds, or is for."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBER = r"(\d{6}|[1-9]\d{6,})"
_PART = re.compile(rf"part-{_NUMBER}\.parquet")
_WAVE = re.compile(rf"part-{_NUMBER}-{_NUMBER}\.parquet")


def part_name(unit: int) -> str:
    """The name of the file of one unit. It depends on the unit alone, so a unit written twice is one file.

    >>> part_name(7)
    'part-000007.parquet'
    """
    return f"part-{unit:06d}.parquet"


def unit_of(name: str) -> int | None:
    """The unit of the file of a name; None where that is no file of one unit.

    >>> unit_of("part-000007.parquet"), unit_of("part-7.parquet"), unit_of("part-000000-000511.parquet")
    (7, None, None)
    """
    match = _PART.fullmatch(name)
    return int(match[1]) if match else None


@dataclass(frozen=True, order=True)
class Wave:
    """A fixed range of units, whose rows end up in one file.

    Attributes:
        first: unit of it.
        last: unit of it.
    """

    first: int
    last: int

    @classmethod
    def of(cls, name: str) -> Wave | None:
        """The wave of a name; None where that is no wave.

        >>> Wave.of("part-000000-000511.parquet")
        Wave(first=0, last=511)
        """
        match = _WAVE.fullmatch(name)
        return cls(int(match[1]), int(match[2])) if match else None

    @property
    def name(self) -> str:
        """Of its file, and before that of the link to the folder of its parts."""
        return f"part-{self.first:06d}-{self.last:06d}.parquet"

    @property
    def folder_name(self) -> str:
        """Of the folder of its parts. What reads Parquet leaves out names that begin with a dot."""
        return f".part-{self.first:06d}-{self.last:06d}"

    def __contains__(self, unit: int) -> bool:
        return self.first <= unit <= self.last

    def __len__(self) -> int:
        return self.last - self.first + 1
