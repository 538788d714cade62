"""Instance AP of a run: of the mask of its rule, and of each score at one threshold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from oodray.analysis.mapped_run import MappedRun
from oodray.analysis.score_maps import ImageMaps, Judged, ScoreMaps
from oodray.datasets.instance_labels import InstanceLabels
from oodray.datasets.manifest import label_uris, read_manifest
from oodray.metrics.components import OBJECT
from oodray.metrics.instances import (
    IOU_LEVELS,
    SMALLEST,
    InstanceMetrics,
    Instances,
    instance_metrics,
    objects_of,
)
from oodray.results.folder import ResultsFolder, write_table

PREDICTION = "prediction"

_INSTANCE_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("score", pa.string()),
    ("image_id", pa.string()),
    ("kind", pa.string()),
    ("size", pa.int64()),
    ("confidence", pa.float64()),
    ("iou", pa.float64()),
    *((edge, pa.int32()) for edge in ("top", "left", "bottom", "right")),
]
INSTANCES_SCHEMA = pa.schema(_INSTANCE_COLUMNS)
"""One row per instance: `kind` is object or prediction, `iou` the largest with any of the other kind."""

_SUMMARY_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("score", pa.string()),
    *((name, pa.float64()) for name in ("threshold", "ap", "ap50")),
    *((f"ap_{round(100 * level)}", pa.float64()) for level in IOU_LEVELS),
    *((name, pa.int64()) for name in ("objects", "predictions", "images")),
]
SUMMARY_SCHEMA = pa.schema(_SUMMARY_COLUMNS)
"""One row per score; of the mask the threshold is null."""


@dataclass(frozen=True)
class InstanceReport:
    """The instances of a run.

    Attributes:
        judged: each score that has maps.
        images: labelled images that they are of.
        with_ids: of these, those whose objects an instance image tells apart.
        left_out: scores whose maps are kept nowhere.
        without_threshold: scores of which labels give no threshold.
    """

    judged: list[Judged[InstanceMetrics]]
    images: int
    with_ids: int
    left_out: list[str]
    without_threshold: list[str]


def instance_labels_of(folder: ResultsFolder, images: Path | None) -> InstanceLabels:
    """Where the instance images of a run lie.

    Args:
        folder: of the run.
        images: a folder of them; None: those that the dataset ships beside its labels.

    Raises:
        DatasetError: see `InstanceLabels.below`.
        ResultsError: the run has no manifest.
    """
    return (
        InstanceLabels() if images is None else InstanceLabels.below(images, label_uris(read_manifest(folder.manifest)))
    )


def evaluate_instances(run: MappedRun, ids: InstanceLabels, *, on_ray: bool = True) -> InstanceReport:
    """Find the instances of a run, and write `instances.parquet` and `instances_summary.parquet`.

    Args:
        run: whose maps are cut at thresholds.
        ids: tells objects apart.
        on_ray: whether many files are read by Ray tasks.

    Raises:
        DatasetError: no image has a label.
        ImageError: a label, an instance image or a score map cannot be read.
        ResultsError: a file of results cannot be read.
    """
    folder, maps = run.folder, run.maps
    by_image = run.each_image(_Job(maps, ids), on_ray=on_ray)
    places = {name: place for place, name in enumerate(maps.names())}
    judged = maps.judged(lambda name: instance_metrics([image.instances[places[name]] for image in by_image]))
    rows = [row for name, place in places.items() for image in by_image for row in image.rows(place, name)]
    write_table(pa.Table.from_pylist(rows, INSTANCES_SCHEMA), folder.instances)
    with_ids = sum(image.has_ids for image in by_image)
    report = InstanceReport(judged, len(by_image), with_ids, [*maps.left_out], [*maps.without_threshold])
    write_table(instance_table(report), folder.instances_summary)
    return report


def instance_table(report: InstanceReport) -> pa.Table:
    """A report as a table of `SUMMARY_SCHEMA`."""
    rows = []
    for judged in report.judged:
        columns = asdict(judged.metrics)
        levels = zip(IOU_LEVELS, columns.pop("by_level"), strict=True)
        columns |= {f"ap_{round(100 * level)}": value for level, value in levels}
        rows.append({"score": judged.score, "threshold": judged.threshold, "images": report.images} | columns)
    return pa.Table.from_pylist(rows, SUMMARY_SCHEMA)


@dataclass(frozen=True)
class _ImageInstances:
    """The instances of an image: by score, in the order of `ScoreMaps.names`."""

    image_id: str
    has_ids: bool
    instances: list[Instances]

    def rows(self, place: int, name: str) -> Iterator[dict[str, Any]]:
        found = self.instances[place]
        sizes = [*found.sizes.tolist(), *found.predicted.tolist()]
        confidences = [None] * len(found.sizes) + found.confidences.tolist()
        best = np.concatenate(found.best_iou()).tolist()
        for number, (size, confidence, iou, box) in enumerate(zip(sizes, confidences, best, found.boxes, strict=True)):
            kind = OBJECT if number < len(found.sizes) else PREDICTION
            if size >= SMALLEST:
                columns = {"score": name, "image_id": self.image_id, "kind": kind, "size": size}
                yield columns | {"confidence": confidence, "iou": iou} | box._asdict()


@dataclass(frozen=True)
class _Job:
    """What is done with every image; it travels to Ray's tasks."""

    maps: ScoreMaps
    ids: InstanceLabels

    def __call__(self, image: ImageMaps) -> _ImageInstances:
        labels = image.labels
        ids = self.ids.ids(image.image_id, image.label_uri, (labels.shape[0], labels.shape[1]))
        objects = objects_of(labels, ids)
        instances = [Instances.of(*self.maps.cut(image, name), objects, labels) for name in self.maps.names()]
        return _ImageInstances(image.image_id, ids is not None, instances)
