"""Metrics of connected regions, as SegmentMeIfYouCan takes them: sIoU of objects, PPV of alarms, and F1 of both.

An object is a connected region of OoD pixels of the label, an alarm one of the prediction; eight neighbours connect.
Of Chan et al., SegmentMeIfYouCan, NeurIPS Datasets and Benchmarks 2021 (`SegEval` of its code, commit 1c7804e).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oodray.errors import ConfigError
from oodray.metrics.tally import IGNORE, OOD
from oodray.spelling import did_you_mean

LEVELS = tuple(np.linspace(0.25, 0.75, 11).tolist())
"""sIoU from which on an object is found, and PPV from which on an alarm is none that is false."""

OBJECT, ALARM = "object", "alarm"

SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, math.inf)}
"""Pixels of small, medium and large objects, as COCO divides them: from the first number on, below the second."""

_NEIGHBOURS = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class Limits:
    """The smallest regions that count, in pixels.

    Attributes:
        alarm: smaller regions of the prediction are removed.
        object: smaller regions of the label are ignored.
    """

    alarm: int
    object: int


LIMITS = {"anomaly": Limits(alarm=500, object=100), "obstacle": Limits(alarm=50, object=10), "issu": Limits(49, 49)}
"""By track: RoadAnomaly21; RoadObstacle21 and LostAndFound; ISSU."""


class Box(NamedTuple):
    """A bounding box: its first row and column, and the ones behind its last."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class Component:
    """A region.

    Attributes:
        kind: `OBJECT` or `ALARM`.
        size: its pixels that are not ignored.
        value: sIoU of an object, PPV of an alarm.
        top: first row of its bounding box.
        left: first column.
        bottom: one behind the last row.
        right: one behind the last column.
    """

    kind: str
    size: int
    value: float
    top: int
    left: int
    bottom: int
    right: int


def limits_named(track: str) -> Limits:
    """The limits of a track.

    Raises:
        ConfigError: the name is none of `LIMITS`.
    """
    if track not in LIMITS:
        raise ConfigError(
            f"no limits of components are known as {track!r}; {did_you_mean(track, LIMITS, what='known')}"
        )
    return LIMITS[track]


def find_components(predicted: NDArray[np.bool_], labels: NDArray[np.uint8], limits: Limits) -> list[Component]:
    """The objects of an image and the alarms of a prediction, each with its value.

    Args:
        predicted: `(H, W)`, what is called OoD.
        labels: `(H, W)`, 0 in-distribution, 1 OoD, 255 ignore.
        limits: the smallest that count.

    >>> labels = np.zeros((4, 8), np.uint8)
    >>> labels[1:3, 1:4] = 1
    >>> for found in find_components(np.roll(labels, 1, axis=1) == 1, labels, Limits(1, 1)):
    ...     print(found.kind, found.size, round(found.value, 3), found.left, found.right)
    object 6 0.5 1 4
    alarm 6 0.667 2 5
    """
    objects = connected_regions(labels == OOD)
    alarms = connected_regions(predicted & (labels != IGNORE))
    object_boxes, alarm_boxes = boxes_of(objects), boxes_of(alarms)
    alarms = _without(alarms, _sizes(alarms, len(alarm_boxes)) < limits.alarm)
    small = _sizes(objects, len(object_boxes)) < limits.object
    # Region 0 is all that is no object: it is ignored, too, where it is as small.
    ignored = small[objects] | (labels == IGNORE)
    objects, alarms = np.where(ignored, 0, objects), np.where(ignored, 0, alarms)
    overlap = _Overlap.of(objects, alarms, len(object_boxes), len(alarm_boxes))
    return [
        *_components(OBJECT, overlap.object_sizes, overlap.adjusted_iou(), object_boxes),
        *_components(ALARM, overlap.alarm_sizes, overlap.precision(), alarm_boxes),
    ]


@dataclass(frozen=True, eq=False)
class _Overlap:
    """How many pixels objects and alarms share. Regions are numbered from 1 on; 0 is no region.

    Attributes:
        object_sizes: by object.
        alarm_sizes: by alarm.
        objects: `(n,)`, of each pair that shares a pixel, its object.
        alarms: `(n,)`, its alarm.
        shared: `(n,)`, its pixels.
    """

    object_sizes: NDArray[np.int64]
    alarm_sizes: NDArray[np.int64]
    objects: NDArray[np.intp]
    alarms: NDArray[np.intp]
    shared: NDArray[np.int64]

    @classmethod
    def of(cls, objects: NDArray[np.int32], alarms: NDArray[np.int32], count: int, alarm_count: int) -> _Overlap:
        both = (objects > 0) & (alarms > 0)
        pairs, shared = np.unique(objects[both].astype(np.int64) * (alarm_count + 1) + alarms[both], return_counts=True)
        of_objects, of_alarms = np.divmod(pairs, alarm_count + 1)
        object_sizes = np.bincount(objects[objects > 0], minlength=count + 1)
        alarm_sizes = np.bincount(alarms[alarms > 0], minlength=alarm_count + 1)
        return cls(object_sizes, alarm_sizes, of_objects, of_alarms, shared)

    def adjusted_iou(self) -> NDArray[np.float64]:
        """sIoU by object: what its alarms share with other objects does not count against it."""
        hit = self._by_object(self.shared)
        called = self._by_object(self.alarm_sizes[self.alarms])
        claimed = np.bincount(self.alarms, weights=self.shared, minlength=len(self.alarm_sizes)).astype(np.int64)
        of_others = self._by_object(claimed[self.alarms] - self.shared)
        return np.asarray(hit / np.maximum(called + self.object_sizes - hit - of_others, 1))

    def precision(self) -> NDArray[np.float64]:
        """PPV by alarm."""
        hit = np.bincount(self.alarms, weights=self.shared, minlength=len(self.alarm_sizes))
        return np.asarray(hit / np.maximum(self.alarm_sizes, 1))

    def _by_object(self, pixels: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(self.objects, weights=pixels, minlength=len(self.object_sizes)).astype(np.int64)


@dataclass(frozen=True)
class ComponentMetrics:
    """What a prediction is worth by its regions, over a dataset; nan where a mean is of nothing.

    Attributes:
        siou: mean over all objects.
        ppv: mean over all alarms.
        f1_star: mean of `f1`.
        tp_mean: found objects, a mean over `LEVELS`, as the next two.
        fn_mean: missed objects.
        fp_mean: false alarms.
        f1: at each of `LEVELS`.
        found: share of the objects that are found at the lowest level, by size as in `SIZES`.
        false_alarms: alarms that are false at the lowest level, per image.
    """

    siou: float
    ppv: float
    f1_star: float
    tp_mean: float
    fn_mean: float
    fp_mean: float
    f1: tuple[float, ...]
    found: dict[str, float]
    false_alarms: float


def summarize(components: Sequence[Component], images: int) -> ComponentMetrics:
    """The metrics of the regions of so many images.

    >>> found = Component(OBJECT, 2000, 0.5, 0, 0, 9, 9), Component(ALARM, 900, 1.0, 0, 0, 9, 9)
    >>> metrics = summarize(found, images=2)
    >>> metrics.f1[0], round(metrics.f1_star, 4), metrics.found["medium"], metrics.false_alarms
    (1.0, 0.5455, 1.0, 0.0)
    """
    siou, ppv = (np.array([c.value for c in components if c.kind == kind]) for kind in (OBJECT, ALARM))
    sizes = np.array([component.size for component in components if component.kind == OBJECT])
    hits = np.array([np.count_nonzero(siou >= level) for level in LEVELS])
    misses = len(siou) - hits
    false = np.array([np.count_nonzero(ppv < level) for level in LEVELS])
    f1 = _shares(2 * hits, 2 * hits + misses + false)
    return ComponentMetrics(
        siou=_mean(siou),
        ppv=_mean(ppv),
        f1_star=_mean(f1),
        tp_mean=float(hits.mean()),
        fn_mean=float(misses.mean()),
        fp_mean=float(false.mean()),
        f1=tuple(f1.tolist()),
        found={
            name: _mean(siou[(sizes >= low) & (sizes < high)] >= LEVELS[0]) if len(siou) else math.nan
            for name, (low, high) in SIZES.items()
        },
        false_alarms=float(false[0] / images) if images else math.nan,
    )


def connected_regions(where: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The number of the region that each pixel lies in, from 1 on, and 0 where in none; eight neighbours connect."""
    from scipy import ndimage

    regions, _ = ndimage.label(where, _NEIGHBOURS)
    return np.asarray(regions)


def boxes_of(regions: NDArray[np.int32]) -> list[Box]:
    """The bounding box of each region, from that of region 1 on."""
    from scipy import ndimage

    return [Box(rows.start, columns.start, rows.stop, columns.stop) for rows, columns in ndimage.find_objects(regions)]


def _sizes(regions: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    sizes = np.bincount(regions[regions > 0], minlength=count + 1)  # most pixels lie in none
    sizes[0] = regions.size - sizes.sum()
    return sizes


def _without(regions: NDArray[np.int32], removed: NDArray[np.bool_]) -> NDArray[np.int32]:
    kept = np.where(removed, 0, np.arange(len(removed), dtype=np.int32))
    return np.asarray(kept[regions])


def _components(kind: str, sizes: NDArray[np.int64], values: NDArray[np.float64], boxes: list[Box]) -> list[Component]:
    return [
        Component(kind, int(sizes[region]), float(values[region]), *boxes[region - 1])
        for region in np.flatnonzero(sizes).tolist()
    ]


def _shares(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    shares = np.full(len(part), math.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else math.nan
