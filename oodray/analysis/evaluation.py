"""From the files of a run to dataset-wide numbers: tallies added up, in parallel where there are many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from oodray.datasets.manifest import read_manifest
from oodray.errors import ResultsError
from oodray.method.rule import Rule, exceeds
from oodray.metrics.bootstrap import with_intervals
from oodray.metrics.conventions import DEFAULT, Convention
from oodray.metrics.curves import OperatingPoint
from oodray.metrics.evaluation import ScoreMetrics, Totals, evaluate, evaluate_images
from oodray.metrics.tally import IN_DISTRIBUTION, OOD, first_key_at_least
from oodray.results.cells import clusters_of, score_cells
from oodray.results.folder import OK, ResultsFolder, write_json, write_table
from oodray.results.reading import read_rows

FILES_PER_TASK = 128
"""Files that one process reads; with more than this, Ray reads them in parallel.

A megapixel image takes 20 ms, and starting Ray five seconds.
"""

MERGED_AT_ONCE = 8
"""Totals that one task adds up: the driver never holds more than one."""

Item = TypeVar("Item")

Repeated = Mapping[Path, frozenset[int]]
"""Rows of each file whose image another row has before them."""

NOTHING_REPEATED: Repeated = MappingProxyType({})


@dataclass(frozen=True)
class Evaluation:
    """What a run is worth: the metrics of every score, and those of its mask.

    Attributes:
        rule: the setting; None for imported scores, which have no clusters.
        images: images that the numbers are of.
        failed: images with an error, which are not in the numbers.
        scores: one entry per score and convention, the default convention first.
        mask: what the mask achieves.
        left: images that the run has not done yet.
        conventions: those of the metrics, in order.
    """

    rule: Rule | None
    images: int
    failed: int
    scores: list[ScoreMetrics]
    mask: OperatingPoint
    left: int = 0
    conventions: tuple[Convention, ...] = (DEFAULT,)

    def of(self, convention: Convention) -> list[ScoreMetrics]:
        """The metrics under one of the conventions."""
        count = len(self.scores) // len(self.conventions)
        start = self.conventions.index(convention) * count
        return self.scores[start : start + count]


def evaluate_run(folder: ResultsFolder, conventions: Sequence[Convention] = (), resamples: int = 0) -> Evaluation:
    """Evaluate the finished files of a run as `measure_run` does, and write `metrics.parquet` and `metrics.json`.

    Raises:
        DatasetError: an image lacks a class, which a convention refuses.
        ResultsError: if the folder holds no results.
    """
    evaluation = measure_run(folder, conventions, resamples)
    write_table(metrics_table(folder, evaluation), folder.metrics)
    write_json(folder.metrics_json, asdict(evaluation))
    return evaluation


def metrics_table(folder: ResultsFolder, evaluation: Evaluation) -> pa.Table:
    """The metrics of a run as a table of `METRICS_SCHEMA`, with the setting at which it ran in every row."""
    setting = _setting(folder, evaluation.rule)
    return pa.Table.from_pylist([asdict(metrics) | setting for metrics in evaluation.scores], schema=METRICS_SCHEMA)


def read_metrics(folder: ResultsFolder) -> pa.Table:
    """The metrics that the last evaluation of a run has written.

    Raises:
        ResultsError: if they cannot be read.
    """
    try:
        with folder.metrics.open("rb") as file:
            return pq.ParquetFile(file).read()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ResultsError(
            f"cannot read {folder.metrics}: {error}; `oodray evaluate {folder.path}` writes it anew"
        ) from error


def measure_run(folder: ResultsFolder, conventions: Sequence[Convention] = (), resamples: int = 0) -> Evaluation:
    """Evaluate the finished files of a run.

    Args:
        folder: of the run.
        conventions: further ones beside the default.
        resamples: of a bootstrap over images, for confidence intervals; 0 for none. They, means over images, and
            leaving images out, hold the counts of every image in memory: about 1 MB a megapixel image.

    Raises:
        DatasetError: an image lacks a class, which a convention refuses.
        ResultsError: if the folder holds no results.
    """
    rule = folder.rule()
    parts = folder.parts()
    if not parts:
        raise ResultsError(f"{folder.path} holds no results yet; run `oodray run` to make some")
    repeated = repeated_rows(parts)
    totals = total(parts, rule, repeated)
    asked = (DEFAULT, *(convention for convention in conventions if convention != DEFAULT))
    scores = folder.read_run()["config"]["scores"] if totals.images else []  # else there is nothing to rank
    images = list(image_totals(parts, rule, repeated)) if resamples or any(map(_by_image, asked)) else []
    return Evaluation(
        rule=rule,
        images=totals.images,
        failed=totals.failed,
        scores=[
            with_intervals(metrics, images, convention, resamples) if resamples else metrics
            for convention in asked
            for metrics in (
                evaluate_images(images, scores, convention)
                if _by_image(convention)
                else evaluate(totals, scores, convention)
            )
        ],
        mask=totals.mask(),
        left=read_manifest(folder.manifest).num_rows - totals.images - totals.failed,
        conventions=asked,
    )


METRICS_SCHEMA = pa.schema(
    [
        ("score", pa.string()),
        ("ap", pa.float64()),
        ("fpr95", pa.float64()),
        ("auroc", pa.float64()),
        ("pixels_id", pa.int64()),
        ("pixels_ood", pa.int64()),
        ("k", pa.int32()),
        ("tau", pa.float64()),
        ("tau_used", pa.float64()),
        ("ood_ratio", pa.float64()),
        ("pooling", pa.string()),
        ("ap_rule", pa.string()),
        ("fpr95_rule", pa.string()),
        ("tie_rule", pa.string()),
        ("lacking", pa.string()),
        ("like", pa.string()),
        ("tpr", pa.float64()),
        ("fpr_at_tpr", pa.float64()),
        ("best_f1", pa.float64()),
        ("best_f1_threshold", pa.float64()),
        *((f"{metric}_{end}", pa.float64()) for metric in ("ap", "fpr95", "auroc") for end in ("low", "high")),
    ]
)
"""One row per score and convention; the ends of intervals are null without a bootstrap."""


def total(parts: Sequence[Path], rule: Rule | None, repeated: Repeated) -> Totals:
    """The counts of all files; more than `FILES_PER_TASK` are read, and added up, by Ray tasks."""
    if len(parts) <= FILES_PER_TASK:
        return total_files(parts, rule, repeated)
    import ray

    from oodray.cluster.session import tasks

    task, merge = ray.remote(total_files), ray.remote(_merged)
    with tasks():
        found = [task.remote(chunk, rule, repeated) for chunk in chunked(parts, FILES_PER_TASK)]
        while len(found) > 1:
            found = [merge.remote(*group) for group in chunked(found, MERGED_AT_ONCE)]
        totals: Totals = ray.get(found[0])
        return totals


def chunked(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """The items in order, `size` at a time.

    >>> chunked("abcde", 2)
    ['ab', 'cd', 'e']
    """
    return [items[start : start + size] for start in range(0, len(items), size)]


def total_files(parts: Iterable[Path], rule: Rule | None, repeated: Repeated = NOTHING_REPEATED) -> Totals:
    """The counts of a few files, one in memory at a time."""
    return Totals.sum(_totals(_table(part, repeated), rule) for part in parts)


def image_totals(parts: Sequence[Path], rule: Rule | None, repeated: Repeated) -> Iterator[Totals]:
    """The counts of each image that was processed."""
    for part in parts:
        table = _table(part, repeated)
        for row in np.flatnonzero(table["status"].to_numpy() == OK):
            yield _totals(table.slice(int(row), 1), rule)


def repeated_rows(parts: Iterable[Path]) -> Repeated:
    """Rows to leave out, so that every image counts once: a folder that was copied together can hold one twice."""
    seen: set[str] = set()
    repeated: dict[Path, frozenset[int]] = {}
    for part in parts:
        again = set()
        for row, image_id in enumerate(read_rows([part], ["image_id"])["image_id"].to_pylist()):
            if image_id in seen:
                again.add(row)
            seen.add(image_id)
        if again:
            repeated[part] = frozenset(again)
    return repeated


def keep_rows(table: pa.Table, part: Path, repeated: Repeated) -> pa.Table:
    """The rows of a file whose images count there."""
    left_out = repeated.get(part)
    return table.filter(pa.array([row not in left_out for row in range(table.num_rows)])) if left_out else table


def _table(part: Path, repeated: Repeated) -> pa.Table:
    return keep_rows(read_rows([part], ["status", "clusters", "tallies"]), part, repeated)


def _setting(folder: ResultsFolder, rule: Rule | None) -> dict[str, Any]:
    """The columns of a rule; tau as it was asked for, and as the tallies serve it exactly."""
    if rule is None:
        return {}
    return asdict(rule) | {"tau": folder.read_run()["config"]["tau"], "tau_used": rule.tau}


def _by_image(convention: Convention) -> bool:
    """Whether a convention needs the counts of each image."""
    return convention.pooling == "image" or convention.lacking != "keep"


def _merged(*parts: Totals) -> Totals:
    return Totals.sum(parts)


def _totals(table: pa.Table, rule: Rule | None) -> Totals:
    images = int(np.count_nonzero(table["status"].to_numpy() == OK))
    names, cells = score_cells(table["tallies"])
    scores = {str(name): cells.tally((names == name)[cells.owner]) for name in dict.fromkeys(names)}
    if rule is None:
        return Totals(images=images, failed=table.num_rows - images, scores=scores)
    clusters = clusters_of(table["clusters"])
    chosen = clusters.k == rule.k
    unsure = clusters.unsure(first_key_at_least(rule.tau))
    flagged = chosen & exceeds(unsure, clusters.pixels, rule.ood_ratio)
    counts = (
        unsure,
        clusters.pixels,
        clusters.labelled(OOD),
        clusters.labelled(IN_DISTRIBUTION),
    )
    owner = clusters.cells.owner
    return Totals(
        images=images,
        failed=table.num_rows - images,
        scores=scores,
        inside=clusters.cells.tally(flagged[owner]),
        outside=clusters.cells.tally((chosen & ~flagged)[owner]),
        clusters=np.stack(counts)[:, chosen],
    )
