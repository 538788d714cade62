"""From the files of a run to its counts: tallies added up, in parallel where there are many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from oodray.ahead import map_ahead
from oodray.analysis.files import FILES_PER_TASK, CountedFiles
from oodray.cluster.shares import usable_cores
from oodray.method.rule import Rule
from oodray.metrics.adding import load_loops
from oodray.metrics.evaluation import RunningTotals, Totals
from oodray.results import kept_totals
from oodray.results.kept_totals import read_totals, totals_file, write_totals
from oodray.results.rows import OK
from oodray.results.sums import COLUMNS, RowSums
from oodray.storage.place import Place

MOST_THREADS = 4
"""That count rows of a large run in this process: each takes some 100 MB."""

MERGED_AT_ONCE = 8
"""Totals that one task adds up: the driver never holds more than one."""


def total(files: CountedFiles, rule: Rule | None, *, on_ray: bool, keep: bool = False) -> Totals:
    """The counts of all files. Those of large waves are taken from where they are kept.

    Args:
        files: of a run.
        rule: the setting at which clusters are judged; None where there are none, as with imported scores.
        on_ray: whether more than `FILES_PER_TASK` files are read, and added up, by Ray tasks.
        keep: whether to keep the counts of large waves.

    Raises:
        ResultsError: a file cannot be read.
        RunError: counts cannot be kept.
    """
    running, left = RunningTotals(), []
    for wave, chunk in files.by_wave():
        kept = None if wave is None or files.repeated else read_totals(totals_file(wave, rule))
        if kept is None:
            left.append((wave, chunk))
        else:
            running.add(kept)
    many = sum(len(chunk.parts) for _, chunk in left) > FILES_PER_TASK
    by_tasks = on_ray and many
    if by_tasks:
        running.add(_total_by_tasks(left, rule, keep=keep))
    else:
        for totals in _totals_here(left, rule, keep=keep, compiled=many):
            running.add(totals)
    return running.total()


def _totals_here(
    left: Sequence[tuple[Place | None, CountedFiles]], rule: Rule | None, *, keep: bool, compiled: bool
) -> Iterator[Totals]:
    """The counts of each wave, and of `FILES_PER_TASK` files of units, in their order, by a few threads.

    Where little is counted, this thread does it.
    """
    parts = [
        (part, wave if keep else None)
        for wave, chunk in left
        for part in ([chunk] if wave is not None else chunk.chunks(FILES_PER_TASK))
    ]

    def count(part: tuple[CountedFiles, Place | None]) -> Totals:
        return _total_of(part[0], rule, part[1], kept_totals.KEPT_FROM, compiled=compiled)

    if not compiled:
        yield from map(count, parts)
        return
    load_loops()
    # Decoding and adding hold no lock of Python's.
    workers = min(MOST_THREADS, usable_cores())
    with ThreadPoolExecutor(workers, "count rows") as threads:
        yield from map_ahead(threads, count, parts, 2 * workers)


def _total_of(
    files: CountedFiles, rule: Rule | None, wave: Place | None, kept_from: int, *, compiled: bool = True
) -> Totals:
    """The counts of some files, kept as those of a wave if they are, and it has so many images."""
    totals = total_here(files, rule, compiled=compiled)
    if wave is not None and not files.repeated and totals.images + totals.failed >= kept_from:
        write_totals(totals_file(wave, rule), totals)
    return totals


def total_here(files: CountedFiles, rule: Rule | None, *, compiled: bool = False) -> Totals:
    """The counts of a few files, by this process; see `total`, and for `compiled` `DenseCounts`."""
    sums = RowSums(rule, compiled=compiled)
    for table in files.to_count(COLUMNS):
        sums.add(table)
    return sums.total()


def image_totals(files: CountedFiles, rule: Rule | None) -> Iterator[Totals]:
    """The counts of each image that was processed; see `total`."""
    for table in files.to_count(COLUMNS):
        for row in np.flatnonzero(table["status"].to_numpy() == OK):
            sums = RowSums(rule)
            sums.add(table.slice(int(row), 1))
            yield sums.total()


def failed(files: CountedFiles) -> Totals:
    """The images that were not processed, as counts."""
    return Totals(
        failed=sum(int(np.count_nonzero(table["status"].to_numpy() != OK)) for table in files.tables(["status"]))
    )


def _total_by_tasks(left: Sequence[tuple[Place | None, CountedFiles]], rule: Rule | None, *, keep: bool) -> Totals:
    """A wave, or `FILES_PER_TASK` files of units, a task; then `MERGED_AT_ONCE` of what they found, until it is one."""
    import ray

    from oodray.cluster.session import tasks

    task, merge = ray.remote(_total_of), ray.remote(_merged)
    with tasks():
        found = []
        for wave, chunk in left:
            parts = [chunk] if keep and wave is not None else chunk.chunks(FILES_PER_TASK)
            found += [task.remote(part, rule, wave if keep else None, kept_totals.KEPT_FROM) for part in parts]
        while len(found) > 1:
            groups = [found[start : start + MERGED_AT_ONCE] for start in range(0, len(found), MERGED_AT_ONCE)]
            found = [merge.remote(*group) for group in groups]
        totals: Totals = ray.get(found[0])
        return totals


def _merged(*parts: Totals) -> Totals:
    return Totals.sum(parts)
