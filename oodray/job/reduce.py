"""From the files of a run to dataset-wide numbers: tallies added up, in parallel where there are many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from oodray.datasets.manifest import read_manifest
from oodray.errors import ResultsError
from oodray.job.cells import clusters_of, score_cells
from oodray.job.reading import read_rows
from oodray.job.results import OK, ResultsFolder, write_json, write_table
from oodray.method.rule import Rule, exceeds
from oodray.metrics.curves import OperatingPoint
from oodray.metrics.evaluation import ScoreMetrics, Totals, evaluate
from oodray.metrics.tally import IN_DISTRIBUTION, OOD, first_key_at_least

FILES_PER_TASK = 128
"""Files that one process reads; with more than this, Ray reads them in parallel.

A megapixel image takes 20 ms, and starting Ray five seconds.
"""


@dataclass(frozen=True)
class Evaluation:
    """What a run is worth: the metrics of every score, and those of its mask.

    Attributes:
        rule: the setting.
        images: images that the numbers are of.
        failed: images with an error, which are not in the numbers.
        scores: one entry per score.
        mask: what the mask achieves.
        left: images that the run has not done yet.
    """

    rule: Rule
    images: int
    failed: int
    scores: list[ScoreMetrics]
    mask: OperatingPoint
    left: int = 0


def evaluate_run(folder: ResultsFolder) -> Evaluation:
    """Evaluate the finished files of a run, and write `metrics.parquet` and `metrics.json`.

    Raises:
        ResultsError: if the folder holds no results.
    """
    rule = folder.rule()
    parts = folder.parts()
    if not parts:
        raise ResultsError(f"{folder.path} holds no results yet; run `oodray run` to make some")
    totals = total(parts, rule)
    evaluation = Evaluation(
        rule=rule,
        images=totals.images,
        failed=totals.failed,
        scores=_metrics(totals, folder.read_run()["config"]["scores"]),
        mask=totals.mask(),
        left=read_manifest(folder.manifest).num_rows - totals.images - totals.failed,
    )
    rows = [asdict(rule) | asdict(metrics) for metrics in evaluation.scores]
    write_table(pa.Table.from_pylist(rows, schema=METRICS_SCHEMA), folder.metrics)
    write_json(folder.metrics_json, asdict(evaluation))
    return evaluation


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
        ("ood_ratio", pa.float64()),
        ("pooling", pa.string()),
        ("ap_rule", pa.string()),
        ("fpr95_rule", pa.string()),
        ("tie_rule", pa.string()),
    ]
)


def total(parts: Sequence[Path], rule: Rule) -> Totals:
    """The counts of all files; more than `FILES_PER_TASK` are read by Ray tasks."""
    if len(parts) <= FILES_PER_TASK:
        return total_files(parts, rule)
    import ray
    from ray.exceptions import RayTaskError

    from oodray.job.cluster import connected

    task = ray.remote(total_files)
    chunks = (parts[start : start + FILES_PER_TASK] for start in range(0, len(parts), FILES_PER_TASK))
    with connected():
        try:
            return Totals.sum(ray.get([task.remote(chunk, rule) for chunk in chunks]))
        except RayTaskError as error:
            # Ray's own message holds a traceback; the cause is that of a file.
            raise error.cause from error


def total_files(parts: Iterable[Path], rule: Rule) -> Totals:
    """The counts of a few files, one in memory at a time."""
    return Totals.sum(_total_file(part, rule) for part in parts)


def _metrics(totals: Totals, scores: Sequence[str]) -> list[ScoreMetrics]:
    # Where every image failed there is nothing to rank.
    return evaluate(totals, scores) if totals.images else []


def _total_file(part: Path, rule: Rule) -> Totals:
    table = read_rows([part], ["status", "clusters", "tallies"])
    images = int(np.count_nonzero(table["status"].to_numpy() == OK))
    names, cells = score_cells(table["tallies"])
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
        scores={str(name): cells.tally((names == name)[cells.owner]) for name in dict.fromkeys(names)},
        inside=clusters.cells.tally(flagged[owner]),
        outside=clusters.cells.tally((chosen & ~flagged)[owner]),
        clusters=np.stack(counts)[:, chosen],
    )
