"""Instance AP against the steps of Cityscapes' evaluator written out plainly, one instance after the other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from oodray.metrics.instances import IOU_LEVELS, Instances, instance_metrics, objects_of

Image = tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.int32], NDArray[np.uint8]]


def draw(random: np.random.Generator, side: int = 24) -> Image:
    """Blobs that match, miss, touch, are tiny or lie in ignored pixels; confidences that tie or do not."""

    def blobs() -> NDArray[np.bool_]:
        noise = ndimage.gaussian_filter(random.normal(size=(side, side)), random.choice([0.5, 1.5, 3]))
        return np.asarray(noise > np.quantile(noise, random.choice([0.5, 0.8, 0.95, 1.0])))

    ood = blobs()
    labels = ood.astype(np.uint8)
    labels[blobs() & (random.random() < 0.5)] = 255
    near = np.roll(ood, random.integers(-1, 2, 2), axis=(0, 1))
    above = (near if random.random() < 0.8 else blobs()) | (blobs() & (random.random() < 0.2))
    scores = random.random((side, side)).astype(np.float32) if random.random() < 0.7 else np.full((side, side), 0.5)
    ids = random.integers(0, 4, (2, 2)).repeat(side // 2, 0).repeat(side // 2, 1)
    return above, scores.astype(np.float32), objects_of(labels, ids if random.random() < 0.5 else None), labels


def written_out(images: list[Image], level: float) -> float:
    """AP at a level: `evaluateMatches` of Cityscapes, for one class and a smallest size of 10."""
    truth: list[float] = []
    confidences: list[float] = []
    missed = objects_in_all = 0
    for above, scores, objects, labels in images:
        regions, count = ndimage.label(above, np.ones((3, 3)))
        masks = [regions == number for number in range(1, count + 1)]
        predictions = [(mask, scores[mask].astype(np.float64).sum() / mask.sum()) for mask in masks if mask.sum() >= 10]
        labelled = [objects == number for number in range(1, objects.max() + 1)]
        for thing in labelled:
            if thing.sum() < 10:
                continue
            objects_in_all += 1
            hits = [c for mask, c in predictions if (mask & thing).sum() / (mask | thing).sum() > level]
            missed += not hits
            truth += [1.0] * len(hits)
            confidences += hits
        for mask, confidence in predictions:
            if any((mask & thing).sum() / (mask | thing).sum() > level for thing in labelled):
                continue
            excused = (mask & (labels == 255)).sum() + sum(
                (mask & thing).sum() for thing in labelled if thing.sum() < 10
            )
            if excused / mask.sum() <= level:
                truth.append(0.0)
                confidences.append(confidence)
    if not objects_in_all:
        return math.nan
    order = np.argsort(confidences, kind="stable")
    hit, score = np.array(truth)[order], np.array(confidences)[order]
    points = []
    for threshold in np.unique(score):
        kept = hit[score >= threshold]
        points.append((kept.sum() / len(kept), kept.sum() / (hit.sum() + missed)))
    precision = np.array([point[0] for point in points] + [1.0])
    recall = np.array([point[1] for point in points] + [0.0])
    padded = np.concatenate([recall[:1], recall, [0.0]])
    return float(precision @ np.convolve(padded, [-0.5, 0, 0.5], "valid"))


def of(image: Image) -> Instances:
    return Instances.of(*image)


@pytest.mark.parametrize("seed", range(50))
def test_the_steps_of_the_evaluator(seed: int) -> None:
    random = np.random.default_rng(seed)
    images = [draw(random) for _ in range(random.integers(1, 4))]
    found = instance_metrics([of(image) for image in images])
    expected = [written_out(images, level) for level in IOU_LEVELS]
    np.testing.assert_allclose(found.by_level, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.array([found.ap50, found.ap]), [expected[0], float(np.mean(expected))], atol=1e-12)


def test_the_draws_are_not_all_alike() -> None:
    values = []
    for seed in range(50):
        random = np.random.default_rng(seed)
        values.append(instance_metrics([of(draw(random)) for _ in range(random.integers(1, 4))]).ap50)
    drawn = np.array(values)
    assert np.count_nonzero(drawn > 0) > 10
    assert np.count_nonzero((drawn > 0) & (drawn < 1)) > 10


def square(top: int, left: int, side: int, size: int = 24) -> NDArray[np.bool_]:
    found = np.zeros((size, size), np.bool_)
    found[top : top + side, left : left + side] = True
    return found


def simple(predictions: list[tuple[NDArray[np.bool_], float]], things: list[NDArray[np.bool_]], **more: Any) -> Image:
    scores = np.zeros((24, 24), np.float32)
    for mask, confidence in predictions:
        scores[mask] = confidence
    labels = np.any([np.zeros((24, 24), np.bool_), *things], axis=0).astype(np.uint8)
    labels[more.get("ignored", np.zeros((24, 24), np.bool_))] = 255
    return scores > 0, scores, objects_of(labels), labels


def test_a_perfect_prediction_is_worth_one_and_none_nothing() -> None:
    thing = square(2, 2, 6)
    assert instance_metrics([of(simple([(thing, 0.5)], [thing]))]).ap == 1.0
    assert instance_metrics([of(simple([], [thing]))]).ap == 0.0
    assert math.isnan(instance_metrics([of(simple([(thing, 0.5)], []))]).ap)


def test_an_iou_of_exactly_a_level_finds_nothing() -> None:
    thing = np.zeros((24, 24), np.bool_)
    thing[0:4, 0:8] = True
    half = np.zeros((24, 24), np.bool_)
    half[0:4, 0:4] = True
    found = of(simple([(half, 0.5)], [thing]))
    assert found.iou().tolist() == [0.5]
    assert instance_metrics([found]).ap50 == 0.0


def test_false_predictions_cost_only_where_they_come_first() -> None:
    thing, elsewhere = square(2, 2, 6), square(14, 14, 6)
    assert instance_metrics([of(simple([(thing, 0.9), (elsewhere, 0.1)], [thing]))]).ap50 == 1.0
    # By straight lines from (0, 1): precision 0 at recall 0, then 1/2 at recall 1.
    assert instance_metrics([of(simple([(thing, 0.1), (elsewhere, 0.9)], [thing]))]).ap50 == 0.25


def test_a_prediction_in_ignored_pixels_is_not_false() -> None:
    thing, elsewhere = square(2, 2, 6), square(14, 14, 6)
    image = simple([(thing, 0.1), (elsewhere, 0.9)], [thing], ignored=square(14, 14, 6))
    assert instance_metrics([of(image)]).ap == 1.0


def test_objects_and_regions_below_ten_pixels_do_not_count() -> None:
    thing, small = square(2, 2, 6), square(14, 14, 3)
    metrics = instance_metrics([of(simple([(thing, 0.5), (small, 0.9)], [thing]))])
    assert (metrics.ap, metrics.objects, metrics.predictions) == (1.0, 1, 1)
    metrics = instance_metrics([of(simple([(thing, 0.5), (square(13, 13, 5), 0.9)], [thing, small]))])
    assert metrics.objects == 1
    # 9 of 25 pixels are of a small object: a share of 0.36, which excuses at no level.
    assert metrics.ap50 == 0.25


def test_ids_tell_objects_apart_that_touch_and_join_those_that_do_not() -> None:
    labels = np.array([[1, 1, 0, 1, 1, 255, 0]], np.uint8)
    assert objects_of(labels).tolist() == [[1, 1, 0, 2, 2, 0, 0]]
    ids = np.array([[24001, 24002, 24002, 24001, 0, 24001, 24003]], np.uint16)
    found = objects_of(labels, ids)
    assert found[0, 0] == found[0, 3] != found[0, 1] != found[0, 4] != found[0, 0]
    assert set(found[0, [2, 5, 6]].tolist()) == {0}
    assert sorted(set(found.ravel().tolist())) == [0, 1, 2, 3]


def test_one_object_in_parts_is_found_as_a_whole_or_not_at_all() -> None:
    labels = np.zeros((8, 20), np.uint8)
    labels[1:7, 1:7] = labels[1:7, 12:18] = 1
    ids = np.where(labels == 1, 5, 0)
    scores = labels.astype(np.float32)
    metrics = instance_metrics([Instances.of(scores > 0, scores, objects_of(labels, ids), labels)])
    # Two regions, each half of the object: an IoU of 0.5 is not above 0.5.
    assert (metrics.objects, metrics.predictions, metrics.ap50) == (1, 2, 0.0)
