"""What a run is worth: from the counts of its files to the metrics of its scores and of its mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from oodray.analysis.files import CountedFiles
from oodray.analysis.totals import image_totals, total
from oodray.datasets.manifest import read_manifest
from oodray.errors import ResultsError
from oodray.method.rule import Rule
from oodray.metrics.bootstrap import with_intervals
from oodray.metrics.conventions import DEFAULT, Convention
from oodray.metrics.curves import OperatingPoint
from oodray.metrics.evaluation import ScoreMetrics, Totals, evaluate, evaluate_images
from oodray.results.folder import ResultsFolder, write_json, write_table

_COLUMNS: list[tuple[str, pa.DataType]] = [
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
    ("largest_tie", pa.float64()),
    ("lacking", pa.string()),
    ("like", pa.string()),
    ("tpr", pa.float64()),
    ("fpr_at_tpr", pa.float64()),
    ("best_f1", pa.float64()),
    ("best_f1_threshold", pa.float64()),
    *((f"{metric}_{end}", pa.float64()) for metric in ("ap", "fpr95", "auroc") for end in ("low", "high")),
]
METRICS_SCHEMA = pa.schema(_COLUMNS)
"""One row per score and convention; the ends of intervals are null without a bootstrap."""


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


def evaluate_run(
    folder: ResultsFolder, conventions: Sequence[Convention] = (), resamples: int = 0, *, on_ray: bool = True
) -> Evaluation:
    """Evaluate the finished files of a run as `measure_run` does, and write `metrics.parquet` and `metrics.json`.

    Raises:
        DatasetError: an image lacks a class, which a convention refuses.
        ResultsError: if the folder holds no results.
    """
    evaluation = measure_run(folder, conventions, resamples, on_ray=on_ray)
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


def measure_run(
    folder: ResultsFolder, conventions: Sequence[Convention] = (), resamples: int = 0, *, on_ray: bool = True
) -> Evaluation:
    """Evaluate the finished files of a run.

    Args:
        folder: of the run.
        conventions: further ones beside the default.
        resamples: of a bootstrap over images, for confidence intervals; 0 for none. They, means over images, and
            leaving images out, hold the counts of every image in memory: about 1 MB a megapixel image.
        on_ray: whether Ray may add up a large run, see `total`.

    Raises:
        DatasetError: an image lacks a class, which a convention refuses.
        ResultsError: if the folder holds no results.
    """
    rule = folder.rule()
    files = CountedFiles.of(folder)
    totals = total(files, rule, on_ray=on_ray)
    asked = (DEFAULT, *(convention for convention in conventions if convention != DEFAULT))
    scores = folder.score_names() if totals.images else []  # else there is nothing to rank
    images = list(image_totals(files, rule)) if resamples or any(map(_by_image, asked)) else []
    return Evaluation(
        rule=rule,
        images=totals.images,
        failed=totals.failed,
        scores=[
            metrics for convention in asked for metrics in _measured(totals, images, scores, convention, resamples)
        ],
        mask=totals.mask(),
        left=read_manifest(folder.manifest).num_rows - totals.images - totals.failed,
        conventions=asked,
    )


def _measured(
    totals: Totals, images: Sequence[Totals], scores: Sequence[str], convention: Convention, resamples: int
) -> list[ScoreMetrics]:
    """The metrics of each score under a convention; `images` are needed by some conventions and by intervals."""
    by_image = _by_image(convention)
    found = evaluate_images(images, scores, convention) if by_image else evaluate(totals, scores, convention)
    return [with_intervals(metrics, images, convention, resamples) for metrics in found] if resamples else found


def _by_image(convention: Convention) -> bool:
    """Whether a convention needs the counts of each image."""
    return convention.pooling == "image" or convention.lacking != "keep"


def _setting(folder: ResultsFolder, rule: Rule | None) -> dict[str, Any]:
    """The columns of a rule; tau as it was asked for, and as the tallies serve it exactly."""
    if rule is None:
        return {}
    return asdict(rule) | {"tau": folder.read_run()["config"]["tau"], "tau_used": rule.tau}
