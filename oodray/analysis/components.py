"""Metrics of connected regions of a run: of the mask of its rule, and of each score at one threshold.

A score has to be there as a map. The mask and `ratio` are in the results, as PNGs of masks and of cluster ids; other
scores of a run are where `--keep-maps` kept them; imported scores are read again from their files. Scores whose maps
are kept nowhere are left out, and named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oodray.analysis.evaluation import measure_run
from oodray.analysis.files import FILES_PER_TASK, CountedFiles
from oodray.cluster.shares import usable_cores
from oodray.datasets.images import LabelCodes, decode_label, decode_mask, read_label
from oodray.datasets.layouts import layout_of
from oodray.errors import DatasetError, ResultsError
from oodray.method.rule import Rule
from oodray.metrics.components import (
    LEVELS,
    OBJECT,
    SIZES,
    Component,
    ComponentMetrics,
    Limits,
    find_components,
    summarize,
)
from oodray.metrics.evaluators import LIKE
from oodray.metrics.frames import as_float16
from oodray.metrics.scales import scale_named
from oodray.metrics.tally import KEY_COUNT
from oodray.results.cells import Clusters, clusters_of
from oodray.results.folder import ResultsFolder, write_table
from oodray.results.kept_maps import decode_map
from oodray.results.maps import kept_scores
from oodray.results.rows import OK

MASK, RATIO = "mask", "ratio"

ReadMap = Callable[[str, tuple[int, int]], NDArray[Any]]
"""The score map of an image, by its id and its height and width."""

_COLUMNS = ["image_id", "status", "label_uri", "mask_png", "clusters_png", "clusters", "width", "maps"]

_COMPONENT_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("score", pa.string()),
    ("image_id", pa.string()),
    ("kind", pa.string()),
    ("size", pa.int64()),
    ("siou", pa.float64()),
    ("ppv", pa.float64()),
    *((edge, pa.int32()) for edge in ("top", "left", "bottom", "right")),
]
COMPONENTS_SCHEMA = pa.schema(_COMPONENT_COLUMNS)
"""One row per region: `kind` is object or alarm; the box is from row `top` to below `bottom`, likewise in columns."""

_SUMMARY_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("score", pa.string()),
    *((name, pa.float64()) for name in ("threshold", "siou", "ppv", "f1_star", "tp_mean", "fn_mean", "fp_mean")),
    *((f"f1_{round(100 * level)}", pa.float64()) for level in LEVELS),
    *((f"found_{size}", pa.float64()) for size in SIZES),
    ("false_alarms_per_image", pa.float64()),
    ("images", pa.int64()),
]
SUMMARY_SCHEMA = pa.schema(_SUMMARY_COLUMNS)
"""One row per score; of the mask the threshold is null."""


@dataclass(frozen=True)
class Judged:
    """A score, or the mask, by its regions.

    Attributes:
        score: its name; `MASK` for the mask.
        threshold: pixels with a higher score are called OoD; None for the mask.
        metrics: of its regions.
    """

    score: str
    threshold: float | None
    metrics: ComponentMetrics


@dataclass(frozen=True)
class Report:
    """The regions of a run.

    Attributes:
        judged: each score that has maps.
        images: labelled images that they are of.
        left_out: scores whose maps are kept nowhere.
    """

    judged: list[Judged]
    images: int
    left_out: list[str]


def evaluate_components(
    folder: ResultsFolder,
    limits: Limits,
    *,
    threshold: float | None = None,
    read_map: ReadMap | None = None,
    on_ray: bool = True,
) -> Report:
    """Find the regions of a run, and write `components.parquet` and `components_summary.parquet`.

    Args:
        folder: of the run.
        limits: the smallest regions that count.
        threshold: of every score; by default of each that of the best F1 of its curve, as SegmentMeIfYouCan has it.
        read_map: how imported scores are read again.
        on_ray: whether more than `FILES_PER_TASK` files are read by Ray tasks.

    Raises:
        DatasetError: no image has a label.
        ImageError: a label or a score map cannot be read any more.
        ResultsError: the folder holds no results.
    """
    rule = folder.rule()
    known = folder.score_names()
    kept = kept_scores(folder)
    scores = [name for name in known if read_map is not None or name == RATIO or name in kept]
    thresholds = _thresholds(folder, scores, threshold, on_ray=on_ray)
    codes = layout_of(folder.read_run()["config"]).label_codes
    job = _Job(rule, limits, thresholds, codes, read_map)
    found, images = _found(CountedFiles.of(folder), job, on_ray=on_ray)
    if not images:
        raise DatasetError(f"no image of {folder.path} has a label: there are no objects to find")
    judged = [
        Judged(name, thresholds.get(name), summarize([row.component for row in found if row.score == name], images))
        for name in job.names()
    ]
    write_table(pa.Table.from_pylist([row.columns() for row in found], COMPONENTS_SCHEMA), folder.components)
    left_out = [name for name in known if name not in scores and name != "mask-then-logit"]
    report = Report(judged, images, left_out)
    write_table(summary_table(report), folder.components_summary)
    return report


def summary_table(report: Report) -> pa.Table:
    """A report as a table of `SUMMARY_SCHEMA`."""
    return pa.Table.from_pylist([_summary_columns(row, report.images) for row in report.judged], SUMMARY_SCHEMA)


@dataclass(frozen=True)
class _Found:
    """A region, and whose it is."""

    score: str
    image_id: str
    component: Component

    def columns(self) -> dict[str, Any]:
        columns = asdict(self.component) | {"score": self.score, "image_id": self.image_id}
        return columns | {"siou" if self.component.kind == OBJECT else "ppv": self.component.value}


@dataclass(frozen=True)
class _Job:
    """What is done with every image; it travels to Ray's tasks."""

    rule: Rule | None
    limits: Limits
    thresholds: Mapping[str, float]
    codes: LabelCodes
    read_map: ReadMap | None

    def names(self) -> list[str]:
        return [*([MASK] if self.rule else []), *self.thresholds]

    def regions(self, row: Mapping[str, Any], ratios: NDArray[np.float64]) -> list[_Found]:
        """The regions of a labelled image; `ratios` are those of its clusters, by id."""
        label = read_label(row["label_uri"])
        if label is None:
            return []
        labels = decode_label(label, self.codes)
        found = []
        for name in self.names():
            predicted = self._predicted(name, row, ratios, (labels.shape[0], labels.shape[1]))
            components = find_components(predicted, labels, self.limits)
            found += [_Found(name, row["image_id"], component) for component in components]
        return found

    def _predicted(
        self, name: str, row: Mapping[str, Any], ratios: NDArray[np.float64], size: tuple[int, int]
    ) -> NDArray[np.bool_]:
        if name == MASK:
            return decode_mask(row["mask_png"]) > 0
        if self.read_map is None and name == RATIO:
            return (as_float16(ratios) > self.thresholds[name])[decode_mask(row["clusters_png"])]
        if self.read_map is None:
            return _kept_above(row, name, self.thresholds[name])
        # A score at a threshold is a score at a threshold of float16: that is how the curve's was found.
        with np.errstate(over="ignore"):
            scores = self.read_map(row["image_id"], size).astype(np.float16)
        return np.asarray(scores > np.float64(self.thresholds[name]))


def _kept_above(row: Mapping[str, Any], name: str, threshold: float) -> NDArray[np.bool_]:
    """Where the map of a score that the results keep lies above a threshold, in float16."""
    kept = next((kept for kept in row["maps"] or () if kept["name"] == name), None)
    if kept is None:
        raise ResultsError(f"the results lack the map of {name} of {row['image_id']}: run again with --overwrite")
    keys = decode_map(kept["data"], row["width"])
    present = np.flatnonzero(np.bincount(keys.ravel(), minlength=KEY_COUNT))
    above = np.zeros(KEY_COUNT, np.bool_)
    above[present] = as_float16(scale_named(kept["scale"]).scores(present.astype(np.uint16))) > threshold
    return above[keys]


def _thresholds(
    folder: ResultsFolder, scores: Sequence[str], threshold: float | None, *, on_ray: bool
) -> dict[str, float]:
    if threshold is not None:
        return dict.fromkeys(scores, threshold)
    convention = LIKE["smiyc"]
    found = measure_run(folder, [convention], on_ray=on_ray).of(convention)
    best = {metrics.score: metrics.best_f1_threshold for metrics in found if metrics.score in scores}
    return {name: value for name, value in best.items() if value is not None}


def _found(files: CountedFiles, job: _Job, *, on_ray: bool) -> tuple[list[_Found], int]:
    """The regions of all images, in the order of the files, and how many images have a label."""
    if not on_ray or len(files.parts) <= FILES_PER_TASK:
        return _found_here(files, job)
    import ray

    from oodray.cluster.session import tasks

    task = ray.remote(_found_here)
    with tasks():
        parts: list[tuple[list[_Found], int]] = ray.get([task.remote(c, job) for c in files.chunks(FILES_PER_TASK)])
    return [row for rows, _ in parts for row in rows], sum(images for _, images in parts)


def _found_here(files: CountedFiles, job: _Job) -> tuple[list[_Found], int]:
    with ThreadPoolExecutor(usable_cores()) as threads:
        by_image = list(threads.map(lambda image: job.regions(*image), _images(files, job.rule)))
    return [row for rows in by_image for row in rows], len(by_image)


def _images(files: CountedFiles, rule: Rule | None) -> Iterator[tuple[dict[str, Any], NDArray[np.float64]]]:
    """The row of each labelled image that was processed, and the ratios of its clusters by id."""
    for table in files.tables(_COLUMNS):
        ratios = partial(_ratios, clusters_of(table["clusters"]), rule) if rule else None
        rows = table.drop_columns(["clusters"]).to_pylist()
        for place, row in enumerate(rows):
            if row["status"] == OK and row["label_uri"] is not None:
                yield row, ratios(place) if ratios else np.empty(0)


def _ratios(clusters: Clusters, rule: Rule, row: int) -> NDArray[np.float64]:
    """The ratio of each cluster of an image at a rule, by its id."""
    chosen = (clusters.row == row) & (clusters.k == rule.k)
    ratios = np.zeros(256)
    ratios[clusters.cluster[chosen]] = clusters.unsure(rule.tau)[chosen] / clusters.pixels[chosen]
    return ratios


def _summary_columns(judged: Judged, images: int) -> dict[str, Any]:
    metrics = judged.metrics
    plain = {name: getattr(metrics, name) for name in ("siou", "ppv", "f1_star", "tp_mean", "fn_mean", "fp_mean")}
    by_level = {f"f1_{round(100 * level)}": value for level, value in zip(LEVELS, metrics.f1, strict=True)}
    by_size = {f"found_{size}": share for size, share in metrics.found.items()}
    rest = {"false_alarms_per_image": metrics.false_alarms, "images": images}
    return {"score": judged.score, "threshold": judged.threshold} | plain | by_level | by_size | rest
