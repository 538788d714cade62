"""Regions of images of 1280x720, beside `scipy.ndimage.label` and a loop over regions, as one writes it plainly."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oodray.metrics.components import LIMITS, OBJECT, find_components
from oodray.metrics.instances import Instances, instance_metrics, objects_of

IMAGES = 60
PLAIN_IMAGES = 3
SIZE = (720, 1280)

Image = tuple[NDArray[np.bool_], NDArray[np.uint8]]


@dataclass(frozen=True)
class Measured:
    """CPU seconds for an image each way, and of instance AP, and the largest difference of an sIoU."""

    ours: float
    plain: float
    instances: float
    regions: float
    difference: float


def run() -> Measured:
    """Find the regions of all images, and of a few of them plainly."""
    images = [_image(seed) for seed in range(IMAGES)]
    start = time.process_time()
    found = [find_components(*image, LIMITS["anomaly"]) for image in images]
    ours = (time.process_time() - start) / IMAGES
    start = time.process_time()
    plain = [_plainly(*image) for image in images[:PLAIN_IMAGES]]
    seconds = (time.process_time() - start) / PLAIN_IMAGES
    start = time.process_time()
    instance_metrics([_instances(*image) for image in images])
    of_instances = (time.process_time() - start) / IMAGES
    values = [np.array([c.value for c in components if c.kind == OBJECT]) for components in found[:PLAIN_IMAGES]]
    difference = max(float(np.abs(a - b).max(initial=0)) for a, b in zip(values, plain, strict=True))
    return Measured(ours, seconds, of_instances, float(np.mean([len(components) for components in found])), difference)


def _image(seed: int) -> Image:
    """A noisy prediction of a few objects, as a score at a threshold is."""
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(size=SIZE), 40)
    labels = (smooth > np.quantile(smooth, 0.9)).astype(np.uint8)
    noise = ndimage.gaussian_filter(random.normal(size=SIZE), 4)
    return noise / noise.std() + 2 * labels > 1.5, labels


def _instances(predicted: NDArray[np.bool_], labels: NDArray[np.uint8]) -> Instances:
    return Instances.of(predicted, predicted.astype(np.float32), objects_of(labels), labels)


def _plainly(predicted: NDArray[np.bool_], labels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """sIoU of each object, and PPV of each alarm, one region after the other."""
    limits, eight = LIMITS["anomaly"], np.ones((3, 3))
    objects, count = ndimage.label(labels == 1, eight)
    alarms, alarm_count = ndimage.label(predicted, eight)
    for region in range(1, alarm_count + 1):
        if (alarms == region).sum() < limits.alarm:
            alarms[alarms == region] = 0
    values = []
    for region in range(1, count + 1):
        mine = objects == region
        if mine.sum() < limits.object:
            alarms[mine] = 0
            objects[mine] = 0
            continue
        union = np.isin(alarms, np.unique(alarms[mine & (alarms > 0)]))
        hit, others = (mine & union).sum(), (union & (objects > 0) & ~mine).sum()
        values.append(hit / (union.sum() + mine.sum() - hit - others))
    for region in np.unique(alarms[alarms > 0]):
        (objects[alarms == region] > 0).mean()
    return np.array(values)
