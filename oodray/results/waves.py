"""Waves: the files of many units become one, so that a run of a million images ends as some hundred files.

The name of a wave, `results/part-000000-000511.parquet`, is a link to a folder while its units are computed: each has a
file of its own there. When all are done, the wave is closed: a file with all their rows, written whole under another
name, takes the place of the link. That is one rename. So at any moment, wherever a process is killed, a reader of the
folder `results/` finds every row once: the folder of the parts has a hidden name, and counts through the link alone.

A closed wave is opened again the same way, where an image of it is tried again: the link takes the place of the file.

In an object store, which has no links, see `oodray.results.store_waves`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from oodray.errors import RunError
from oodray.results.encoding import write_rows
from oodray.results.folder import ResultsFolder
from oodray.results.joining import join, outside, waves_of
from oodray.results.kept_totals import keep_totals, sums_for
from oodray.results.names import Wave, part_name, unit_of
from oodray.results.reading import row_groups
from oodray.results.store_waves import close_in_store, open_in_store, open_waves_of, remove_covered
from oodray.storage.atomic import NO_LINKS, replacing
from oodray.storage.place import Place
from oodray.storage.remote import is_remote


def open_waves(folder: ResultsFolder, manifest: pa.Table, units: Iterable[int]) -> None:
    """Before units are computed: every wave has a name in `results/`, and theirs are open.

    Raises:
        ResultsError: a file of a wave that has to be opened cannot be read.
        RunError: the folder cannot be written to.
    """
    wanted, there = set(units), folder.waves()
    if is_remote(folder.path):
        open_in_store(folder, wanted)
        return
    with _write_errors(folder):
        for wave in waves_of(outside(manifest, there)):
            if not _link(folder, wave):
                return
        for wave in there:
            if not folder.is_open(wave) and any(unit in wanted for unit in range(wave.first, wave.last + 1)):
                _open_again(folder, wave)
        _take_in(folder)


def close_waves(folder: ResultsFolder, but: Collection[int] = ()) -> None:
    """Close every open wave that has all its units, and none of some.

    Their parts stay for now, out of sight, as somebody may be about to list them; see `remove_closed_parts`.

    Args:
        folder: of the results.
        but: units whose files will be written again.

    Raises:
        ResultsError: a file of a unit cannot be read.
        RunError: the folder cannot be written to.
    """
    if is_remote(folder.path):
        close_in_store(folder, but)
        return
    for wave in folder.waves():
        if folder.is_open(wave) and not any(unit in wave for unit in but):
            parts = _parts(folder, wave)
            if len(parts) == len(wave):
                _close(folder, wave, parts)


def remove_closed_parts(folder: ResultsFolder) -> None:
    """Remove the parts of closed waves, and what a closing or opening has left that was cut short."""
    if is_remote(folder.path):
        remove_covered(folder)
        return
    for hidden in folder.results.glob(".part-*"):
        wave = Wave.of(f"{hidden.name[1:]}.parquet")
        if wave is not None and not folder.is_open(wave):
            shutil.rmtree(str(hidden), ignore_errors=True)


def remove_waves(folder: ResultsFolder) -> None:
    """Remove the files of all waves.

    Raises:
        OSError: one cannot be removed.
    """
    if is_remote(folder.path):
        remove_covered(folder)
    for wave in folder.waves():
        path = folder.results / wave.name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(_on_disk(path))
        path.unlink(missing_ok=True)
    remove_closed_parts(folder)


class Closing:
    """Closes waves beside a run, in a thread; a context, left when all units are done or the run has failed.

    A run that is continued does not begin with it: of a session that was killed, processes may still write for a while.

    Args:
        folder: of the results.
        tried_again: units of which some images are computed again. They have files from the start, so their waves are
            closed at the end alone.
    """

    def __init__(self, folder: ResultsFolder, tried_again: Collection[int] = ()) -> None:
        self._folder, self._tried_again = folder, frozenset(tried_again)
        waves = open_waves_of(folder) if is_remote(folder.path) else folder.waves()
        self._until_next = max(map(len, waves), default=0)
        self._between = self._until_next
        self._thread = ThreadPoolExecutor(1, "close waves")
        self._closing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._thread.shutdown(wait=True)
        if kind is None:
            if self._closing is not None:
                self._closing.result()
            close_waves(self._folder)

    def unit_done(self) -> None:
        """Hear of a unit that has a file; after as many as a wave has, those that are whole are closed.

        Raises:
            OodrayError: the last ones could not be closed.
        """
        self._until_next -= 1
        if self._until_next > 0 or (self._closing is not None and not self._closing.done()):
            return
        if self._closing is not None:
            self._closing.result()
        self._until_next = self._between
        self._closing = self._thread.submit(self._close)

    def _close(self) -> None:
        remove_closed_parts(self._folder)  # those of the last time
        close_waves(self._folder, self._tried_again)


def _parts(folder: ResultsFolder, wave: Wave) -> list[Place]:
    """The files of the units of an open wave, in their order."""
    found = [(unit_of(path.name), path) for path in (folder.results / wave.name).glob("part-*")]
    return [path for unit, path in sorted((unit, path) for unit, path in found if unit is not None and unit in wave)]


def _close(folder: ResultsFolder, wave: Wave, parts: list[Place]) -> None:
    if not (folder.results / wave.name).is_symlink():
        _link_copied(folder, wave)
    sums = sums_for(folder, parts)
    with replacing(folder.results / wave.name) as temporary:
        join(parts, wave, temporary, sums)
    _flush_names(folder.results)
    keep_totals(folder, wave, sums)


def _link(folder: ResultsFolder, wave: Wave) -> bool:
    """Make the link of a wave to the folder of its parts; it takes the place of a file, if there is one.

    Gives False where a drive has no links: as in an object store, units then keep files of their own.
    """
    hidden, target = _on_disk(folder.results / wave.folder_name), _on_disk(folder.results / wave.name)
    hidden.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.symlink_to(hidden.name)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        hidden.rmdir()
        return False
    temporary.replace(target)
    return True


def _link_copied(folder: ResultsFolder, wave: Wave) -> None:
    """In a copy that was made along links, make the folder of the parts what it was."""
    hidden = _on_disk(folder.results / wave.folder_name)
    shutil.rmtree(hidden, ignore_errors=True)
    _on_disk(folder.results / wave.name).replace(hidden)
    _link(folder, wave)


def _open_again(folder: ResultsFolder, wave: Wave) -> None:
    """Give the units of a closed wave files of their own."""
    shutil.rmtree(str(folder.results / wave.folder_name), ignore_errors=True)
    for table in row_groups(folder.results / wave.name):
        units = table["unit"].to_numpy()
        for unit in np.unique(units).tolist():
            rows = table.filter(pa.array(units == unit))
            write_rows(rows.combine_chunks(), folder.results / wave.folder_name / part_name(unit))
    _link(folder, wave)


def _take_in(folder: ResultsFolder) -> None:
    """Files of units that an earlier version, or an import, has left beside the waves become parts of these."""
    for path in folder.results.glob("part-*"):
        unit = unit_of(path.name)
        wave = None if unit is None else folder.wave_of(unit)
        if wave is not None and folder.is_open(wave):
            _on_disk(path).replace(_on_disk(folder.results / wave.name / path.name))


def _flush_names(folder: Place) -> None:
    """The new name is on the disk before the old files go."""
    with contextlib.suppress(OSError):  # some file systems cannot
        descriptor = os.open(str(folder), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _on_disk(place: Place) -> Path:
    return Path(str(place))


@contextlib.contextmanager
def _write_errors(folder: ResultsFolder) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write to {folder.results}: {error.strerror or error}") from error
