"""What a run is worth: from the counts of its files to the metrics of its scores and of its mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from oodray.analysis.files import FILES_PER_TASK, CountedFiles
from oodray.analysis.totals import failed, image_totals, total
from oodray.datasets.manifest import count_images
from oodray.errors import ResultsError
from oodray.method.rule import Rule
from oodray.metrics.bootstrap import with_intervals
from oodray.metrics.by_image import ByImage
from oodray.metrics.conventions import DEFAULT, Convention
from oodray.metrics.curves import OperatingPoint
from oodray.metrics.evaluation import RankedPixels, ScoreMetrics, Totals
from oodray.metrics.further import Further, FurtherNumbers, image_level
from oodray.metrics.id_quality import IdQuality, id_quality
from oodray.results.folder import ResultsFolder, write_json, write_table
from oodray.results.rows import OK

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
_FURTHER: list[tuple[str, pa.DataType]] = [
    *((name, pa.float64()) for name in ("tpr_at_fpr05", "aupr_in", "autc", "detection_error")),
    *((f"{metric}_q{quarter}", pa.float64()) for metric in ("ap", "fpr95") for quarter in (25, 50, 75)),
    *((name, pa.float64()) for name in ("image_auroc", "image_ap")),
]
METRICS_SCHEMA = pa.schema(_COLUMNS)
"""One row per score and convention; the ends of intervals are null without a bootstrap."""

FURTHER_SCHEMA = pa.schema([*_COLUMNS, *_FURTHER])
"""The same with the further numbers that were asked for, in the rows of the default convention."""


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
        blurred: whether score maps were blurred before they were counted.
        exact: whether all scores were counted as float32.
        further: further numbers of each score, if they were asked for.
        largest_ratio: the largest r_k of any cluster; None where there are no clusters.
        lacking: images without an OoD or without an in-distribution pixel; None where nobody counted.
        id_quality: of the network on its own classes; None where the run did not measure it.
        class_names: of these classes, where they are known.
    """

    rule: Rule | None
    images: int
    failed: int
    scores: list[ScoreMetrics]
    mask: OperatingPoint
    left: int = 0
    conventions: tuple[Convention, ...] = (DEFAULT,)
    blurred: bool = False
    exact: bool = False
    further: dict[str, Further] | None = None
    lacking: int | None = None
    largest_ratio: float | None = None
    id_quality: IdQuality | None = None
    class_names: tuple[str, ...] = ()

    @property
    def mask_is_empty(self) -> bool:
        """Whether the rule calls no cluster of any image OoD."""
        return self.rule is not None and self.largest_ratio is not None and self.largest_ratio <= self.rule.ood_ratio

    def of(self, convention: Convention) -> list[ScoreMetrics]:
        """The metrics under one of the conventions."""
        count = len(self.scores) // len(self.conventions)
        start = self.conventions.index(convention) * count
        return self.scores[start : start + count]


def evaluate_run(
    folder: ResultsFolder,
    conventions: Sequence[Convention] = (),
    resamples: int = 0,
    *,
    further: bool = False,
    on_ray: bool = True,
    files: CountedFiles | None = None,
) -> Evaluation:
    """Evaluate the finished files of a run as `measure_run` does, and write `metrics.parquet` and `metrics.json`.

    Raises:
        DatasetError: an image lacks a class, which a convention refuses.
        ResultsError: if the folder holds no results.
    """
    evaluation = measure_run(folder, conventions, resamples, further=further, on_ray=on_ray, keep=True, files=files)
    write_table(metrics_table(folder, evaluation), folder.metrics)
    write_json(folder.metrics_json, asdict(evaluation))
    return evaluation


def metrics_table(folder: ResultsFolder, evaluation: Evaluation) -> pa.Table:
    """The metrics of a run as a table of `METRICS_SCHEMA`, with the setting at which it ran in every row."""
    setting = _setting(folder, evaluation.rule)
    rows = [asdict(metrics) | setting for metrics in evaluation.scores]
    if evaluation.further is None:
        return pa.Table.from_pylist(rows, schema=METRICS_SCHEMA)
    further = {score: further_columns(numbers) for score, numbers in evaluation.further.items()}
    count = len(further)
    first, rest = rows[:count], rows[count:]
    return pa.Table.from_pylist([row | further[row["score"]] for row in first] + rest, schema=FURTHER_SCHEMA)


def further_columns(numbers: Further) -> dict[str, float]:
    """Further numbers as columns of a table."""
    columns = asdict(numbers)
    for metric in ("ap", "fpr95"):
        quartiles = zip((25, 50, 75), columns.pop(f"{metric}_quartiles"), strict=True)
        columns |= {f"{metric}_q{quarter}": value for quarter, value in quartiles}
    return columns


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
    folder: ResultsFolder,
    conventions: Sequence[Convention] = (),
    resamples: int = 0,
    *,
    further: bool = False,
    on_ray: bool = True,
    keep: bool = False,
    files: CountedFiles | None = None,
) -> Evaluation:
    """Evaluate the finished files of a run.

    Args:
        folder: of the run.
        conventions: further ones beside the default.
        resamples: of a bootstrap over images, for confidence intervals; 0 for none. They hold the counts of every
            image in memory: about 1 MB a megapixel image, and up to 20 MB of imported scores.
        further: whether to take the further numbers of `oodray.metrics.further`, too.
        on_ray: whether Ray may add up a large run, see `total`.
        keep: whether the counts of large files are kept in the folder, for the next evaluation.
        files: its finished files, where they are known.

    Raises:
        DatasetError: an image lacks a class, which a convention refuses.
        ResultsError: if the folder holds no results.
    """
    rule = folder.rule()
    files = files or CountedFiles.of(folder)
    asked = (DEFAULT, *(convention for convention in conventions if convention != DEFAULT))
    by_image = bool(resamples) or further or any(convention.by_image for convention in asked)
    # Keys of imported scores are many, and the counts of all hold them anyway: they are read once.
    held = [*image_totals(files, rule)] if by_image and rule is None and len(files.parts) <= FILES_PER_TASK else None
    totals = total(files, rule, on_ray=on_ray, keep=keep) if held is None else Totals.sum([*held, failed(files)])
    scores = folder.score_names() if totals.images else []  # else there is nothing to rank
    measured = _Measured(totals, scores, asked, resamples, further=further)
    if measured.by_image:
        for image in image_totals(files, rule) if held is None else held:
            measured.add(image)
    return Evaluation(
        rule=rule,
        images=totals.images,
        failed=totals.failed,
        scores=measured.metrics(),
        mask=totals.mask(),
        left=count_images(folder.manifest) - totals.images - totals.failed,
        conventions=asked,
        blurred=_is_blurred(folder),
        exact=rule is None,
        further=_further(files, rule, measured) if further else None,
        lacking=measured.lacking if measured.by_image else None,
        id_quality=None if totals.classes is None else id_quality(totals.classes),
        class_names=folder.class_names(),
        largest_ratio=float(np.max(totals.clusters[0] / totals.clusters[1])) if totals.clusters.size else None,
    )


def _is_blurred(folder: ResultsFolder) -> bool:
    content = folder.read_run()
    return bool(content["config"].get("blur") or content.get("imported", {}).get("blur"))


class _Measured:
    """The metrics of each score under each convention, from all counts and, for those that need them, of each image."""

    def __init__(
        self, totals: Totals, scores: Sequence[str], conventions: Sequence[Convention], resamples: int, *, further: bool
    ) -> None:
        self._rows = [(convention, score) for convention in conventions for score in scores]
        self._resamples = resamples
        self._pooled = {score: RankedPixels.of(totals, score) for score in scores}
        self._by_image = {
            (convention, score): ByImage(score, convention, totals, self._pooled[score])
            for convention, score in self._rows
            if convention.by_image
        }
        self.further = {score: FurtherNumbers(score, totals) for score in scores} if further else {}
        self.hold_ood: list[bool] = []
        self.lacking = 0
        self._images: list[Totals] = []

    @property
    def by_image(self) -> bool:
        """Whether images are to be added."""
        return bool(self._resamples or self._by_image or self.further)

    def add(self, image: Totals) -> None:
        """Take the counts of an image."""
        for by_image in self._by_image.values():
            by_image.add(image)
        for further in self.further.values():
            further.add(image)
        pixels = image.labelled(next(iter(self._pooled)))
        self.hold_ood.append(pixels[0] > 0)
        self.lacking += not all(pixels)
        if self._resamples:
            self._images.append(image)

    def metrics(self) -> list[ScoreMetrics]:
        """Convention by convention, and for each score by score."""
        found = [
            self._by_image[row].metrics() if row in self._by_image else self._pooled[row[1]].metrics(row[0])
            for row in self._rows
        ]
        if not self._resamples:
            return found
        return [
            with_intervals(metrics, self._images, convention, self._resamples)
            for metrics, (convention, _) in zip(found, self._rows, strict=True)
        ]


def _further(files: CountedFiles, rule: Rule | None, measured: _Measured) -> dict[str, Further]:
    """The further numbers of each score; those of whole images belong to the one that `image_score` is of."""
    tables = list(files.tables(["status", "image_score"]))
    scores: list[Any] = [row["image_score"] for table in tables for row in table.to_pylist() if row["status"] == OK]
    of_images = image_level(scores, measured.hold_ood)
    own = next((name for name in measured.further if rule is None or name == "ratio"), None)
    return {
        name: numbers.numbers(of_images) if name == own else numbers.numbers()
        for name, numbers in measured.further.items()
    }


def _setting(folder: ResultsFolder, rule: Rule | None) -> dict[str, Any]:
    """The columns of a rule; tau as it was asked for, and as the tallies serve it exactly."""
    if rule is None:
        return {}
    return asdict(rule) | {"tau": folder.read_run()["config"]["tau"], "tau_used": rule.tau}
