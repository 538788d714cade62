"""Metrics of arrays are those of scikit-learn on the pixels that are not ignored, to the last ties."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

import oodray
from oodray.metrics.conventions import measure
from oodray.metrics.score_counts import ScoreCounts
from oodray.metrics.tally import Tally, score_keys

METRICS = [oodray.metrics.average_precision, oodray.metrics.fpr_at_tpr, oodray.metrics.auroc]


def by_scikit_learn(scores: NDArray[Any], labels: NDArray[Any], tpr: float = 0.95) -> tuple[float, float, float]:
    counting = labels != 255
    ood, values = labels[counting] == 1, scores[counting]
    false, true, _ = roc_curve(ood, values, drop_intermediate=False)
    return average_precision_score(ood, values), float(false[np.argmax(true >= tpr)]), roc_auc_score(ood, values)


def found(scores: NDArray[Any], labels: NDArray[Any]) -> tuple[float, ...]:
    return tuple(metric(scores, labels) for metric in METRICS)


def labelled(seed: int, shape: tuple[int, ...], *, ignored: float = 0.2) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).choice([0, 1, 255], shape, p=[0.7 - ignored, 0.3, ignored]).astype(np.uint8)


@pytest.mark.parametrize("shape", [(500,), (20, 25), (2, 10, 25)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("levels", [3, 40, 10**5])
def test_they_are_those_of_scikit_learn(shape: tuple[int, ...], dtype: type, levels: int) -> None:
    labels = labelled(levels, shape)
    scores = (np.random.default_rng(1).integers(-levels, levels, shape) / 7 + (labels == 1)).astype(dtype)
    assert found(scores, labels) == pytest.approx(by_scikit_learn(scores, labels), abs=1e-12)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64])
def test_whole_numbers_are_scores(dtype: type[np.integer[Any]]) -> None:
    info, labels = np.iinfo(dtype), labelled(3, (300,))
    # Beside the greatest and the least, which float64 would round together.
    near: NDArray[Any] = np.random.default_rng(3).integers(0, 5, 300).astype(dtype)
    scores: NDArray[Any] = np.where(labels == 1, info.max - near, info.min + near).astype(dtype)
    scores[::7] = info.max - 3
    ranks = np.unique(scores, return_inverse=True)[1]
    assert found(scores, labels) == pytest.approx(by_scikit_learn(ranks, labels), abs=1e-12)


@given(
    arrays.arrays(np.float32, 30, elements=st.floats(-2, 2, width=32)),
    arrays.arrays(np.uint8, 30, elements=st.sampled_from([0, 1, 255])),
)
def test_any_scores(scores: NDArray[np.float32], labels: NDArray[np.uint8]) -> None:
    labels[:2] = 0, 1
    assert found(scores, labels) == pytest.approx(by_scikit_learn(scores, labels), abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_neighbours_of_a_dtype_are_told_apart(dtype: type) -> None:
    low = dtype(1)
    high = np.nextafter(low, dtype(2))
    assert np.float16(low) == np.float16(high)
    assert found(np.array([high, low]), np.array([1, 0])) == (1.0, 0.0, 1.0)
    assert found(np.array([low, high]), np.array([1, 0])) == (0.5, 1.0, 0.0)
    assert found(np.array([low, low]), np.array([1, 0])) == (0.5, 1.0, 0.5)


def test_zeros_of_both_signs_tie() -> None:
    assert found(np.array([-0.0, 0.0, 0.0, -0.0]), np.array([1, 0, 1, 0])) == (0.5, 1.0, 0.5)


def test_they_are_those_of_a_run() -> None:
    random = np.random.default_rng(5)
    labels = labelled(5, (40, 50))
    scores = (random.integers(-20, 20, (40, 50)) / 8 + (labels == 1)).astype(np.float16)
    expected = measure(*ScoreCounts.of_tally(Tally.of(score_keys(scores), labels)).ranked())
    assert found(scores, labels) == (expected.ap, expected.fpr95, expected.auroc)


def test_the_level_of_the_tpr() -> None:
    scores, labels = np.arange(40)[::-1], np.array([1, 0] * 20)
    assert oodray.metrics.fpr_at_tpr(scores, labels) == oodray.metrics.fpr_at_tpr(scores, labels, 0.95) == 18 / 20
    assert oodray.metrics.fpr_at_tpr(scores, labels, tpr=0.05) == 0.0
    assert oodray.metrics.fpr_at_tpr(scores, labels, tpr=0.051) == 1 / 20
    for wrong in (0, 1.01, math.nan):
        with pytest.raises(ValueError, match="tpr must be above 0 and at most 1"):
            oodray.metrics.fpr_at_tpr(scores, labels, tpr=wrong)


@pytest.mark.parametrize("kind", [bool, np.int8, np.int64, np.uint16])
def test_labels_of_any_whole_type(kind: type) -> None:
    labels = np.array([0, 1, 1, 0, 0])
    scores = np.array([0.1, 0.2, 0.2, 0.2, 0.5])
    assert found(scores, labels.astype(kind)) == found(scores, labels)


def test_lists_are_arrays() -> None:
    assert oodray.metrics.auroc([[1, 2], [3, 4]], [[0, 0], [1, 255]]) == 1.0


@pytest.mark.parametrize("metric", METRICS)
class TestEveryMetric:
    @pytest.mark.parametrize("labels", [[], [0, 0], [1, 1], [255, 255], [0, 255], [1, 255]])
    def test_it_is_nan_where_a_class_is_missing(self, metric: Any, labels: list[int]) -> None:
        assert math.isnan(metric(np.arange(len(labels), dtype=np.float32), np.array(labels, np.uint8)))

    def test_nothing_is_nan_in_any_shape(self, metric: Any) -> None:
        assert math.isnan(metric([], []))
        assert math.isnan(metric(np.zeros((0, 4)), np.zeros((0, 4), np.uint8)))

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("label", [0, 1])
    def test_a_score_without_a_place_is_refused_unless_ignored(self, metric: Any, value: float, label: int) -> None:
        scores = np.array([0.5, 0.1, value])
        assert metric(scores, np.array([1, 0, 255])) == metric(scores[:2], np.array([1, 0]))
        with pytest.raises(ValueError, match="NaN or infinity where the label is not 255"):
            metric(scores, np.array([1, 0, label]))

    @pytest.mark.parametrize("label", [2, -1, 254, 256])
    def test_other_labels_are_refused(self, metric: Any, label: int) -> None:
        with pytest.raises(ValueError, match=rf"0 \(in-distribution\), 1 \(OoD\) or 255 \(ignored\), not {label}$"):
            metric(np.zeros(3), np.array([0, 1, label]))

    @pytest.mark.parametrize("shapes", [((4,), (2, 2)), ((3,), (4,)), ((4,), (1, 4)), ((), (1,))])
    def test_other_shapes_are_refused(self, metric: Any, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
        with pytest.raises(ValueError, match="must have one shape"):
            metric(np.zeros(shapes[0]), np.zeros(shapes[1], np.uint8))

    @pytest.mark.parametrize("scores", [np.array(["a", "b"]), np.array([True, False]), np.array([1j, 2])])
    def test_other_scores_are_refused(self, metric: Any, scores: NDArray[Any]) -> None:
        with pytest.raises(TypeError, match="scores must be real numbers, not "):
            metric(scores, np.array([0, 1]))

    @pytest.mark.parametrize("labels", [np.array([0.0, 1.0]), np.array(["0", "1"])])
    def test_labels_that_are_no_integers_are_refused(self, metric: Any, labels: NDArray[Any]) -> None:
        with pytest.raises(TypeError, match="labels must be integers or booleans, not "):
            metric(np.zeros(2), labels)

    def test_the_arrays_are_left_as_they_are(self, metric: Any) -> None:
        scores, labels = np.array([3.0, 1.0, 2.0]), np.array([1, 0, 255])
        for array in (scores, labels):
            array.flags.writeable = False
        metric(scores, labels)
        assert (scores.tolist(), labels.tolist()) == ([3.0, 1.0, 2.0], [1, 0, 255])
