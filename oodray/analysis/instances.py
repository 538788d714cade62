"""Instance AP of a run: of the mask of its rule, and of each score at one threshold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from oodray.analysis.score_maps import ImageMaps, Judged, ReadMap, ScoreMaps, each_image
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


def evaluate_instances(
    folder: ResultsFolder,
    *,
    instance_labels: Path | None = None,
    threshold: float | None = None,
    read_map: ReadMap | None = None,
    on_ray: bool = True,
) -> InstanceReport:
    """Find the instances of a run, and write `instances.parquet` and `instances_summary.parquet`.

    Args:
        folder: of the run.
        instance_labels: a folder of instance images; by default those that the dataset ships beside its labels.
        threshold: of every score; by default of each that of the best F1 of its curve, as SegmentMeIfYouCan has it.
        read_map: how imported scores are read again.
        on_ray: whether many files are read by Ray tasks.

    Raises:
        DatasetError: no image has a label; for `instance_labels` see `InstanceLabels.below`.
        ImageError: a label, an instance image or a score map cannot be read.
        ResultsError: the folder holds no results.
    """
    ids = InstanceLabels() if instance_labels is None else _labels_below(instance_labels, folder)
    maps = ScoreMaps.of(folder, threshold, read_map)
    found = each_image(folder, maps, _Job(maps, ids), on_ray=on_ray)
    with_ids = sum(image.has_ids for image in found)
    places = {name: place for place, name in enumerate(maps.names())}
    judged = maps.judged(lambda name: instance_metrics([image.instances[places[name]] for image in found]))
    rows = [row for name, place in places.items() for image in found for row in image.rows(place, name)]
    write_table(pa.Table.from_pylist(rows, INSTANCES_SCHEMA), folder.instances)
    report = InstanceReport(judged, len(found), with_ids, [*maps.left_out], [*maps.without_threshold])
    write_table(instance_table(report), folder.instances_summary)
    return report


def _labels_below(instance_labels: Path, folder: ResultsFolder) -> InstanceLabels:
    return InstanceLabels.below(instance_labels, label_uris(read_manifest(folder.manifest)))


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
class _Found:
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

    def __call__(self, image: ImageMaps) -> _Found:
        labels = image.labels
        ids = self.ids.ids(image.image_id, image.label_uri, (labels.shape[0], labels.shape[1]))
        objects = objects_of(labels, ids)
        instances = [Instances.of(*self.maps.cut(image, name), objects, labels) for name in self.maps.names()]
        return _Found(image.image_id, ids is not None, instances)
