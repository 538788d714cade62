"""What each unit of images gave to a fit, on disk: written by the workers, added up by the driver.

    statistics/unit-000012.safetensors   sums and bank of the images of a unit
    statistics/added.safetensors         those of all units before the next one, in the order of the units
    statistics/limit.json                the priority that no further vector of the bank may exceed

A unit's file is written whole, and before the unit is known to be finished; written twice it is the same. The driver
adds units in their order alone, writes the sum whole, and then removes the files that are in it. So however a fit is
interrupted, every unit is in the result exactly once.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.errors import ResultsError
from oodray.scores.fitted.bank import Bank
from oodray.scores.fitted.folder import Arrays, read_arrays, write_arrays
from oodray.scores.fitted.sums import Sums
from oodray.scores.maskomaly import QueryUse
from oodray.storage.atomic import remove_leftovers, replacing
from oodray.storage.place import Place, remove_folder

UNITS_PER_FILE = 16
"""Units that are added before the sum is written: it is as large as the bank."""


@dataclass(frozen=True, eq=False)
class Gathered:
    """What some images gave. All is None where no image could be processed.

    Attributes:
        sums: over them.
        bank: of them.
        queries: what they make of the queries of a mask classifier; None for other networks.
    """

    sums: Sums | None = None
    bank: Bank | None = None
    queries: QueryUse | None = None

    @classmethod
    def total(cls, parts: Sequence[Gathered]) -> Gathered:
        """All parts, added in their order."""
        banks = [part.bank for part in parts if part.bank is not None]
        queries = [part.queries for part in parts if part.queries is not None]
        return cls(
            Sums.total(part.sums for part in parts if part.sums is not None),
            Bank.merged(banks) if banks else None,
            reduce(QueryUse.__add__, queries) if queries else None,
        )

    def write(self, target: Place, **about: Any) -> None:
        """Write them, whole or not at all, and what else is to be known.

        Raises:
            RunError: they cannot be written.
        """
        arrays: Arrays = {}
        if self.sums is not None:
            arrays |= {f"sums/{name}": values for name, values in self.sums.to_arrays().items()}
        if self.bank is not None:
            arrays |= {f"bank/{name}": values for name, values in self.bank.to_arrays().items()}
            about |= {"size": self.bank.size, "image_ids": self.bank.image_ids}
        if self.queries is not None:
            arrays |= {f"queries/{name}": values for name, values in self.queries.to_arrays().items()}
        # Beside the arrays, so that one file is all of it.
        arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
        write_arrays(target, arrays)

    @classmethod
    def read(cls, path: Place) -> tuple[Gathered, dict[str, Any]]:
        """What `write` wrote.

        Raises:
            ResultsError: it is not there, or damaged.
        """
        arrays = read_arrays(path)
        try:
            about = json.loads(arrays["about"].tobytes())
            sums, bank, queries = (_of(kind, arrays) for kind in ("sums", "bank", "queries"))
            return cls(
                Sums.from_arrays(sums) if sums else None,
                Bank.from_arrays(bank, size=about["size"], image_ids=about["image_ids"]) if bank else None,
                QueryUse.from_arrays(queries) if queries else None,
            ), about
        except (KeyError, ValueError) as error:
            raise ResultsError(f"{path} is damaged ({error}): fit again with --overwrite") from error


class PartsFolder:
    """The files of a fit that is not finished."""

    def __init__(self, path: Place) -> None:
        self.path = path / "statistics"
        self.added = self.path / "added.safetensors"
        self.limit = self.path / "limit.json"

    def unit(self, unit: int) -> Place:
        """The file of a unit."""
        return self.path / f"unit-{unit:06d}.safetensors"

    def read_limit(self) -> int | None:
        """The priority that no further vector may exceed, as far as it is known.

        An old one is greater, so that more vectors are written than are needed, and the result is the same.
        """
        try:
            return int(json.loads(self.limit.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None

    def remove(self) -> None:
        """Remove all of it."""
        remove_leftovers(self.path)
        remove_folder(self.path)


class Adding:
    """Adds units in their order, as they are finished.

    Args:
        folder: of the parts.

    Raises:
        ResultsError: what was added before cannot be read.
    """

    def __init__(self, folder: PartsFolder) -> None:
        self._folder = folder
        self._next = self._written = 0
        self._total = Gathered()
        if folder.added.exists():
            self._total, about = Gathered.read(folder.added)
            self._next = self._written = about["next"]

    def take(self, finished: Collection[int]) -> None:
        """Add the units that come next, as far as they are finished.

        Raises:
            ResultsError: the file of a unit is lost or damaged.
            RunError: the sum cannot be written.
        """
        parts = []
        while self._next in finished:
            parts.append(Gathered.read(self._folder.unit(self._next))[0])
            self._next += 1
        if not parts:
            return
        before = self._limit()
        self._total = Gathered.total([self._total, *parts])
        limit = self._limit()
        if limit is not None and limit != before:
            with replacing(self._folder.limit) as temporary:
                temporary.write_text(json.dumps(limit), encoding="utf-8")
        if self._next - self._written >= UNITS_PER_FILE:
            self._write()

    def total(self, units: int) -> Gathered:
        """The sum of all units.

        Raises:
            ResultsError: some are not finished.
        """
        if self._next != units:
            raise ResultsError(f"{units - self._next} of {units} units are not finished")
        return self._total

    def _write(self) -> None:
        self._total.write(self._folder.added, next=self._next)
        for unit in range(self._written, self._next):
            self._folder.unit(unit).unlink(missing_ok=True)
        self._written = self._next

    def _limit(self) -> int | None:
        return None if self._total.bank is None else self._total.bank.limit


def _of(kind: str, arrays: Arrays) -> dict[str, NDArray[Any]]:
    return {name.partition("/")[2]: values for name, values in arrays.items() if name.startswith(f"{kind}/")}
