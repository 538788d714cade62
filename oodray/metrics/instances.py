"""Instance AP, as OoDIS takes it: how well predicted objects match labelled ones, the most confident first.

OoDIS (Nekrasov et al., arXiv 2406.11835) measures with the evaluator of Cityscapes, all objects being of one class:
`scoring_program/evaluate.py` of https://github.com/kumuji/anomaly-benchmark-suite, commit 110a360. A prediction finds
an object where their IoU lies above a level, of 0.5 to 0.95. One that finds none is false, unless a share of its
pixels above the level is ignored or belongs to objects too small to count.

What the evaluator takes are masks with a confidence. Here they are the connected regions of the pixels whose score lies
above a threshold, each with the mean of its scores. Neither these nor objects overlap, so that above an IoU of 0.5 an
object is found by one prediction at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oodray.metrics.components import Box, boxes_of, connected_regions
from oodray.metrics.tally import IGNORE, OOD

IOU_LEVELS = tuple(np.arange(0.5, 1.0, 0.05).tolist())
"""IoU above which a prediction finds an object; AP is the mean over them, AP50 that of the first."""

SMALLEST = 10
"""Pixels of the smallest object that counts, and of the smallest region that is a prediction."""


@dataclass(frozen=True, eq=False)
class Instances:
    """The objects and the predictions of an image, `o` and `p` of them, and the `n` pairs that share a pixel.

    Attributes:
        sizes: `(o,)`, pixels of each object.
        predicted: `(p,)`, pixels of each prediction.
        confidences: `(p,)`, the mean score of each prediction.
        ignored: `(p,)`, its ignored pixels.
        pairs: `(2, n)`, of each pair its object and its prediction.
        shared: `(n,)`, the pixels of each pair.
        boxes: of the objects, then of the predictions.
    """

    sizes: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidences: NDArray[np.float64]
    ignored: NDArray[np.int64]
    pairs: NDArray[np.int64]
    shared: NDArray[np.int64]
    boxes: tuple[Box, ...]

    @classmethod
    def of(
        cls,
        above: NDArray[np.bool_],
        scores: NDArray[np.floating],
        objects: NDArray[np.int32],
        labels: NDArray[np.uint8],
    ) -> Instances:
        """The instances of an image; all arrays are `(H, W)`.

        Args:
            above: pixels whose score lies above the threshold.
            scores: higher = more OoD.
            objects: the number of the object that each pixel belongs to, from 1 on; 0 is none, see `objects_of`.
            labels: 255 is ignored.

        >>> labels = np.zeros((6, 8), np.uint8)
        >>> labels[1:5, 1:5] = 1
        >>> scores = np.roll(labels, 1, axis=1) * np.float32(0.5)
        >>> found = Instances.of(scores > 0, scores, objects_of(labels), labels)
        >>> found.iou().tolist(), found.confidences.tolist()
        ([0.6], [0.5])
        """
        regions = _large_enough(connected_regions(above))
        sizes, predicted = (np.bincount(numbers.ravel())[1:] for numbers in (objects, regions))
        count = len(predicted) + 1
        totals = np.bincount(regions.ravel(), weights=np.where(regions > 0, scores, 0).ravel(), minlength=count)[1:]
        both = (objects > 0) & (regions > 0)
        keys, shared = np.unique(objects[both].astype(np.int64) * count + regions[both], return_counts=True)
        return cls(
            sizes=sizes,
            predicted=predicted,
            confidences=totals / predicted,
            ignored=np.bincount(regions[labels == IGNORE], minlength=count)[1:],
            pairs=np.stack(np.divmod(keys, count)) - 1,
            shared=shared,
            boxes=(*boxes_of(objects), *boxes_of(regions)),
        )

    def iou(self) -> NDArray[np.float64]:
        """Of each pair, `(n,)`."""
        return np.asarray(self.shared / (self.sizes[self.pairs[0]] + self.predicted[self.pairs[1]] - self.shared))

    def best_iou(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The largest IoU of each object, and of each prediction."""
        best = np.zeros(len(self.sizes)), np.zeros(len(self.predicted))
        for values, owners in zip(best, self.pairs, strict=True):
            np.maximum.at(values, owners, self.iou())
        return best

    def judged(self, level: float) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        """Confidences of the predictions that find an object and of the false ones; and how many objects are missed."""
        counts = self.sizes >= SMALLEST
        matching = self.iou() > level
        objects, predictions = self.pairs[:, matching]
        found = counts[objects]
        small = ~counts[self.pairs[0]]
        excused = self.ignored + np.bincount(
            self.pairs[1][small], weights=self.shared[small], minlength=len(self.predicted)
        )
        false = excused / self.predicted <= level
        false[predictions] = False
        return self.confidences[predictions[found]], self.confidences[false], int(counts.sum() - found.sum())


def objects_of(labels: NDArray[np.uint8], ids: NDArray[np.integer] | None = None) -> NDArray[np.int32]:
    """The objects of a label: the number of each pixel's object from 1 on, 0 where there is none.

    Args:
        labels: `(H, W)`, 1 is OoD.
        ids: `(H, W)`, which OoD pixels belong together, where somebody has labelled that; 0 where nobody has. Without
            it, and there, objects are connected regions with eight neighbours.

    >>> labels = np.array([[1, 1, 0, 1]], np.uint8)
    >>> objects_of(labels).tolist(), objects_of(labels, np.array([[7, 9, 9, 9]])).tolist()
    ([[1, 1, 0, 2]], [[1, 2, 0, 2]])
    """
    ood = labels == OOD
    if ids is None:
        return connected_regions(ood)
    known = ood & (ids != 0)
    objects = connected_regions(ood & ~known)
    if known.any():
        _, number = np.unique(ids[known], return_inverse=True)
        objects[known] = number + 1 + objects.max()
    return objects


@dataclass(frozen=True)
class InstanceMetrics:
    """What predictions are worth as instances, over a dataset.

    Attributes:
        ap: the mean of `by_level`; nan where there is no object, as the next two.
        ap50: AP at an IoU of 0.5.
        by_level: AP at each of `IOU_LEVELS`.
        objects: objects that count.
        predictions: predicted instances.
    """

    ap: float
    ap50: float
    by_level: tuple[float, ...]
    objects: int
    predictions: int


def instance_metrics(images: Sequence[Instances]) -> InstanceMetrics:
    """Instance AP over the images of a dataset.

    >>> instance_metrics([]).ap
    nan
    """
    by_level = tuple(_average_precision(images, level) for level in IOU_LEVELS)
    return InstanceMetrics(
        ap=float(np.mean(by_level)),
        ap50=by_level[0],
        by_level=by_level,
        objects=sum(int(np.count_nonzero(image.sizes >= SMALLEST)) for image in images),
        predictions=sum(len(image.predicted) for image in images),
    )


def _average_precision(images: Sequence[Instances], level: float) -> float:
    """The area under precision over recall, by straight lines, from precision 1 at recall 0 on."""
    judged = [image.judged(level) for image in images]
    nothing = np.empty(0)
    found, false = (np.concatenate([nothing, *(part[which] for part in judged)]) for which in (0, 1))
    objects = len(found) + sum(missed for _, _, missed in judged)
    if not objects:
        return math.nan
    thresholds = np.unique(np.concatenate([found, false]))[::-1]
    hits, alarms = (len(part) - np.searchsorted(np.sort(part), thresholds) for part in (found, false))
    precision = np.concatenate([[1.0], hits / (hits + alarms)])
    recall = np.concatenate([[0.0], hits / objects])
    return float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2))


def _large_enough(regions: NDArray[np.int32]) -> NDArray[np.int32]:
    """Regions of at least `SMALLEST` pixels, numbered from 1 on."""
    kept = np.bincount(regions.ravel()) >= SMALLEST
    kept[0] = False
    return np.asarray(np.where(kept, np.cumsum(kept), 0).astype(np.int32)[regions])
