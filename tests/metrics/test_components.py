"""Regions against SegmentMeIfYouCan's steps written out plainly, one region after the other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from oodray.errors import ConfigError
from oodray.metrics.components import (
    ALARM,
    LEVELS,
    LIMITS,
    OBJECT,
    Component,
    Limits,
    find_components,
    limits_named,
    summarize,
)

Image = tuple[NDArray[np.bool_], NDArray[np.uint8]]


def draw(seed: int, side: int = 40) -> Image:
    """A prediction and a label of blobs, some of which touch, are tiny, cover each other or lie in ignored pixels."""
    random = np.random.default_rng(seed)

    def blobs() -> NDArray[np.bool_]:
        noise = ndimage.gaussian_filter(random.normal(size=(side, side)), random.choice([0.5, 1.5, 3]))
        return np.asarray(noise > np.quantile(noise, random.choice([0.5, 0.8, 0.95, 1.0])))

    ood = blobs()
    labels = ood.astype(np.uint8)
    labels[blobs() & (random.random() < 0.7)] = 255
    moved = np.roll(ood, random.integers(-3, 4, 2), axis=(0, 1))
    return (moved if random.random() < 0.5 else blobs()) | (blobs() & (random.random() < 0.3)), labels


def written_out(image: Image, limits: Limits) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """Sizes and values of objects and of alarms."""
    predicted, labels = image[0] & (image[1] != 255), image[1].copy()
    eight = np.ones((3, 3))
    objects, _ = ndimage.label(labels == 1, eight)
    alarms, _ = ndimage.label(predicted, eight)
    for region in range(alarms.max() + 1):
        if (alarms == region).sum() < limits.alarm:
            alarms[alarms == region] = 0
    for region in range(objects.max() + 1):
        if (objects == region).sum() < limits.object:
            labels[objects == region] = 255
    objects, alarms = objects[labels != 255], alarms[labels != 255]
    found = []
    for region in np.unique(objects[objects > 0]):
        mine = objects == region
        touching = np.unique(alarms[mine & (alarms > 0)])
        union = np.isin(alarms, touching)
        hit = (mine & union).sum()
        others = (union & (objects > 0) & ~mine).sum()
        found.append((int(mine.sum()), hit / (union.sum() + mine.sum() - hit - others)))
    called = [
        (int((alarms == region).sum()), ((objects > 0) & (alarms == region)).sum() / (alarms == region).sum())
        for region in np.unique(alarms[alarms > 0])
    ]
    return found, called


@pytest.mark.parametrize("limits", [Limits(1, 1), Limits(12, 5), Limits(alarm=3, object=60), LIMITS["anomaly"]])
def test_values_are_those_of_the_steps(limits: Limits) -> None:
    for seed in range(100):
        image = draw(seed)
        found = find_components(*image, limits)
        objects, alarms = written_out(image, limits)
        assert [(c.size, c.value) for c in found if c.kind == OBJECT] == objects, seed
        assert [(c.size, c.value) for c in found if c.kind == ALARM] == alarms, seed


def test_the_sums_over_a_dataset() -> None:
    images = [draw(seed) for seed in range(20)]
    limits = Limits(12, 5)
    metrics = summarize([c for image in images for c in find_components(*image, limits)], len(images))
    objects = [value for image in images for _, value in written_out(image, limits)[0]]
    alarms = [value for image in images for _, value in written_out(image, limits)[1]]
    f1 = []
    for level in np.linspace(0.25, 0.75, 11):
        tp, fp = sum(value >= level for value in objects), sum(value < level for value in alarms)
        f1.append(2 * tp / (2 * tp + len(objects) - tp + fp))
    assert metrics.f1 == pytest.approx(f1)
    assert metrics.f1_star == pytest.approx(np.mean(f1))
    assert (metrics.siou, metrics.ppv) == pytest.approx((np.mean(objects), np.mean(alarms)))
    assert metrics.tp_mean + metrics.fn_mean == pytest.approx(len(objects))
    assert metrics.fp_mean == pytest.approx(np.mean([sum(v < level for v in alarms) for level in LEVELS]))
    assert metrics.false_alarms == sum(value < 0.25 for value in alarms) / 20


def test_a_box_holds_its_region() -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[2:5, 7:11] = 1
    [found] = find_components(np.zeros((20, 30), bool), labels, Limits(1, 1))
    assert found == Component(OBJECT, 12, 0.0, top=2, left=7, bottom=5, right=11)


def test_found_objects_by_size() -> None:
    components = [
        *(Component(OBJECT, 500, value, 0, 0, 1, 1) for value in (0.1, 0.25, 0.9, 0.0)),
        Component(OBJECT, 32**2, 0.24, 0, 0, 1, 1),
    ]
    found = summarize(components, 1).found
    assert (found["small"], found["medium"]) == (0.5, 0.0)
    assert math.isnan(found["large"])


def test_nothing_at_all_has_no_mean() -> None:
    metrics = summarize([], 0)
    assert all(map(math.isnan, (metrics.siou, metrics.ppv, metrics.f1_star, metrics.false_alarms)))
    assert (metrics.tp_mean, metrics.fn_mean, metrics.fp_mean) == (0, 0, 0)


def test_an_unknown_track_is_refused() -> None:
    with pytest.raises(ConfigError, match="'anomalies'; did you mean 'anomaly'"):
        limits_named("anomalies")
