"""Waves in an object store, which has neither links nor renames: see `oodray.results.waves`.

The units of a wave have files of their own in `results/`. When all are there, their rows are put into the file of the
wave, in one request, and then the files of the units are removed. Between the two, and wherever that is killed, there
are both: the file of the wave counts, and those of its units do not. So oodray sees every row once at any moment.
Another program, which reads all files, sees some rows twice until the units are removed.

Where an image of a closed wave is tried again, it is the other way round: its units get files of their own, which count
once the file of the wave is removed.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa

from oodray.datasets.manifest import read_manifest
from oodray.results.encoding import write_rows
from oodray.results.folder import ResultsFolder
from oodray.results.joining import join, outside, waves_of
from oodray.results.kept_totals import keep_totals, sums_for
from oodray.results.names import Wave, part_name, unit_of
from oodray.results.reading import row_groups
from oodray.storage.atomic import replacing
from oodray.storage.place import Place, concurrently


def close_in_store(folder: ResultsFolder, but: Collection[int] = ()) -> None:
    """Close every wave that has all its units, and none of some; remove the files of units in closed waves.

    Raises:
        ResultsError: the manifest, or a file of a unit, cannot be read.
        RunError: a file cannot be written.
    """
    units = _units(folder)
    for wave in open_waves_of(folder):
        whole = all(unit in units for unit in range(wave.first, wave.last + 1))
        if whole and not any(unit in wave for unit in but):
            parts = [units[unit] for unit in range(wave.first, wave.last + 1)]
            sums = sums_for(folder, parts)
            with replacing(folder.results / wave.name) as temporary:
                join(parts, wave, temporary, sums)
            # At once: until then, other programs see these rows twice.
            remove_covered(folder)
            keep_totals(folder, wave, sums)


def open_waves_of(folder: ResultsFolder) -> list[Wave]:
    """The waves of a run that are not closed.

    Raises:
        ResultsError: the manifest cannot be read.
    """
    return waves_of(outside(read_manifest(folder.manifest), folder.waves()))


def remove_covered(folder: ResultsFolder) -> None:
    """Remove the files of units that a closed wave holds, which do not count."""
    listed = [*folder.results.glob("part-*")]
    closed = [wave for path in listed if (wave := Wave.of(path.name)) is not None]
    units = [(unit, path) for path in listed if (unit := unit_of(path.name)) is not None]
    covered = [path for unit, path in units if any(unit in wave for wave in closed)]
    concurrently(lambda path: path.unlink(missing_ok=True), covered, in_store=True)


def open_in_store(folder: ResultsFolder, units: set[int]) -> None:
    """Give the units of closed waves files of their own, where some of them are computed again.

    Raises:
        ResultsError: the file of a wave cannot be read.
        RunError: a file cannot be written.
    """
    remove_covered(folder)
    for wave in folder.waves():
        if any(unit in units for unit in range(wave.first, wave.last + 1)):
            for table in row_groups(folder.results / wave.name):
                column = table["unit"].to_numpy()
                parts = [(unit, table.filter(pa.array(column == unit))) for unit in np.unique(column).tolist()]
                concurrently(lambda part: _write(folder, *part), parts, in_store=True)
            (folder.results / wave.name).unlink()


def _write(folder: ResultsFolder, unit: int, rows: pa.Table) -> None:
    write_rows(rows.combine_chunks(), folder.results / part_name(unit))


def _units(folder: ResultsFolder) -> dict[int, Place]:
    """The files of units, those of closed waves too."""
    found = ((unit_of(path.name), path) for path in folder.results.glob("part-*"))
    return {unit: path for unit, path in found if unit is not None}
