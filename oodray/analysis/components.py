"""Metrics of connected regions of a run: of the mask of its rule, and of each score at one threshold."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from oodray.analysis.mapped_run import MappedRun
from oodray.analysis.score_maps import ImageMaps, Judged, ScoreMaps
from oodray.datasets.layouts import get_layout
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
from oodray.results.folder import ResultsFolder, write_table

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


AUTO = "auto"
"""In place of a track: that of the run's dataset."""


def track_of(folder: ResultsFolder) -> str:
    """The track that a run's dataset belongs to.

    Raises:
        DatasetError: the dataset is unknown.
        ResultsError: this is no results folder.
    """
    return get_layout(folder.read_run()["config"]["dataset"]).track


@dataclass(frozen=True)
class Report:
    """The regions of a run.

    Attributes:
        judged: each score that has maps.
        images: labelled images that they are of.
        left_out: scores whose maps are kept nowhere.
        without_threshold: scores of which labels give no threshold.
    """

    judged: list[Judged[ComponentMetrics]]
    images: int
    left_out: list[str]
    without_threshold: list[str]


def evaluate_components(run: MappedRun, limits: Limits, *, on_ray: bool = True) -> Report:
    """Find the regions of a run, and write `components.parquet` and `components_summary.parquet`.

    Args:
        run: whose maps are cut at thresholds.
        limits: the smallest regions that count.
        on_ray: whether many files are read by Ray tasks.

    Raises:
        DatasetError: no image has a label.
        ImageError: a label or a score map cannot be read any more.
        ResultsError: a file of results cannot be read.
    """
    folder, maps = run.folder, run.maps
    by_image = run.each_image(_Job(maps, limits), on_ray=on_ray)
    regions, images = [row for rows in by_image for row in rows], len(by_image)
    judged = maps.judged(lambda name: summarize([row.component for row in regions if row.score == name], images))
    write_table(pa.Table.from_pylist([row.columns() for row in regions], COMPONENTS_SCHEMA), folder.components)
    report = Report(judged, images, [*maps.left_out], [*maps.without_threshold])
    write_table(summary_table(report), folder.components_summary)
    return report


def summary_table(report: Report) -> pa.Table:
    """A report as a table of `SUMMARY_SCHEMA`."""
    return pa.Table.from_pylist([_summary_columns(row, report.images) for row in report.judged], SUMMARY_SCHEMA)


@dataclass(frozen=True)
class _Region:
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

    maps: ScoreMaps
    limits: Limits

    def __call__(self, image: ImageMaps) -> list[_Region]:
        return [
            _Region(name, image.image_id, component)
            for name in self.maps.names()
            for component in find_components(self.maps.cut(image, name)[0], image.labels, self.limits)
        ]


def _summary_columns(judged: Judged[ComponentMetrics], images: int) -> dict[str, Any]:
    metrics = judged.metrics
    plain = {name: getattr(metrics, name) for name in ("siou", "ppv", "f1_star", "tp_mean", "fn_mean", "fp_mean")}
    by_level = {f"f1_{round(100 * level)}": value for level, value in zip(LEVELS, metrics.f1, strict=True)}
    by_size = {f"found_{size}": share for size, share in metrics.found.items()}
    rest = {"false_alarms_per_image": metrics.false_alarms, "images": images}
    return {"score": judged.score, "threshold": judged.threshold} | plain | by_level | by_size | rest
