"""From the files of a run to its counts: tallies added up, in parallel where there are many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from oodray.analysis.files import FILES_PER_TASK, CountedFiles
from oodray.method.rule import Rule
from oodray.metrics.evaluation import Totals
from oodray.metrics.id_quality import IdTally
from oodray.metrics.tally import IN_DISTRIBUTION, OOD
from oodray.records import from_arrow
from oodray.results.cells import clusters_of, score_counts
from oodray.results.rows import OK, ClassCounts

MERGED_AT_ONCE = 8
"""Totals that one task adds up: the driver never holds more than one."""

_COLUMNS = ["status", "clusters", "tallies", "classes"]


def total(files: CountedFiles, rule: Rule | None, *, on_ray: bool) -> Totals:
    """The counts of all files.

    Args:
        files: of a run.
        rule: the setting at which clusters are judged; None where there are none, as with imported scores.
        on_ray: whether more than `FILES_PER_TASK` files are read, and added up, by Ray tasks.

    Raises:
        ResultsError: a file cannot be read.
    """
    by_tasks = on_ray and len(files.parts) > FILES_PER_TASK
    return _total_by_tasks(files, rule) if by_tasks else total_here(files, rule)


def total_here(files: CountedFiles, rule: Rule | None) -> Totals:
    """The counts of a few files, by this process; see `total`."""
    return Totals.sum(_totals(table, rule) for table in files.tables(_COLUMNS))


def image_totals(files: CountedFiles, rule: Rule | None) -> Iterator[Totals]:
    """The counts of each image that was processed; see `total`."""
    for table in files.tables(_COLUMNS):
        for row in np.flatnonzero(table["status"].to_numpy() == OK):
            yield _totals(table.slice(int(row), 1), rule)


def _total_by_tasks(files: CountedFiles, rule: Rule | None) -> Totals:
    """`FILES_PER_TASK` files a task; then `MERGED_AT_ONCE` of what they found a task, until one is left."""
    import ray

    from oodray.cluster.session import tasks

    task, merge = ray.remote(total_here), ray.remote(_merged)
    with tasks():
        found = [task.remote(chunk, rule) for chunk in files.chunks(FILES_PER_TASK)]
        while len(found) > 1:
            groups = [found[start : start + MERGED_AT_ONCE] for start in range(0, len(found), MERGED_AT_ONCE)]
            found = [merge.remote(*group) for group in groups]
        totals: Totals = ray.get(found[0])
        return totals


def _merged(*parts: Totals) -> Totals:
    return Totals.sum(parts)


def _totals(table: pa.Table, rule: Rule | None) -> Totals:
    """The counts of the rows of one file."""
    images = int(np.count_nonzero(table["status"].to_numpy() == OK))
    scores = score_counts(table["tallies"])
    if rule is None:
        return Totals(images=images, failed=table.num_rows - images, scores=scores)
    clusters = clusters_of(table["clusters"])
    judged = clusters.k == rule.k
    ood = judged & clusters.ood(rule)
    counts = (clusters.unsure(rule.tau), clusters.pixels, clusters.labelled(OOD), clusters.labelled(IN_DISTRIBUTION))
    cells = clusters.cells
    return Totals(
        images=images,
        failed=table.num_rows - images,
        scores=scores,
        inside=cells.tally(ood[cells.owner]),
        outside=cells.tally((judged & ~ood)[cells.owner]),
        clusters=np.stack(counts)[:, judged],
        classes=_classes(table["classes"]),
    )


def _classes(column: pa.ChunkedArray[Any]) -> IdTally | None:
    """What the network made of true classes in some rows."""
    lists: Any = column.combine_chunks()
    found = from_arrow(ClassCounts, lists.flatten())
    return IdTally.sum(counts.tally() for counts in found) if found else None
