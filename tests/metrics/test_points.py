from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from oodray.metrics.points import BINS, curve_points, ratio_histogram, score_histogram
from oodray.metrics.score_counts import ScoreCounts
from oodray.metrics.tally import Tally, score_keys

COUNTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30)


@given(COUNTS)
def test_points_lie_on_the_curves(counts: list[tuple[int, int]]) -> None:
    ood, ind = np.array(counts, np.int64).T
    points = curve_points(ood, ind)
    if not (ood.any() and ind.any()):
        assert points is None
        return
    assert points is not None
    scores = -np.repeat(np.arange(len(counts)), ood + ind)
    labels = np.concatenate([[1] * a + [0] * b for a, b in counts])
    precision, recall, _ = precision_recall_curve(labels, scores)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    rounded = {(round(a, 9), round(b, 9)) for a, b in zip(recall, precision, strict=True)}
    assert {(round(a, 9), round(b, 9)) for a, b in zip(points.recall, points.precision, strict=True)} <= rounded
    on_roc = {(round(a, 9), round(b, 9)) for a, b in zip(fpr, tpr, strict=True)}
    assert {(round(a, 9), round(b, 9)) for a, b in zip(points.fpr, points.recall, strict=True)} <= on_roc
    assert (points.recall[-1], points.fpr[-1]) == (1, 1)


def test_a_long_curve_keeps_its_shape() -> None:
    """Between two points neither axis moves by more than the spacing that was asked for."""
    random = np.random.default_rng(3)
    ood, ind = random.integers(0, 9, (2, 60_000))
    points = curve_points(ood, ind)
    assert points is not None
    assert len(points.recall) < 700
    assert max(np.diff(points.recall).max(), np.diff(points.fpr).max()) < 0.006


def histogram_of(values: NDArray[np.float64], counts: NDArray[np.int64], edges: NDArray[np.float64]) -> list[int]:
    found, _ = np.histogram(values.clip(edges[0], edges[-1]), edges, weights=counts)
    return [int(count) for count in found]


def test_a_histogram_counts_each_pixel_once() -> None:
    random = np.random.default_rng(5)
    scores = random.normal(2, 3, 20_000).astype(np.float16)
    labels = random.choice(np.array([0, 1, 255], np.uint8), 20_000)
    found = score_histogram(ScoreCounts.of_tally(Tally.of(score_keys(scores), labels)))
    assert found is not None
    values = scores.astype(np.float64)
    for label, counts in ((0, found.ind), (1, found.ood)):
        assert counts.tolist() == histogram_of(values, (labels == label).astype(np.int64), found.edges)
    assert found.all.sum() == 20_000
    low, high = np.quantile(values, [0.001, 0.999])
    assert abs(found.edges[0] - low) < 0.1
    assert abs(found.edges[-1] - high) < 0.1


def test_ratios_are_counted_by_the_pixels_of_their_clusters() -> None:
    clusters = np.array([[0, 5, 10], [10, 10, 10], [1, 2, 3], [9, 8, 6]])
    found = ratio_histogram(clusters)
    assert found is not None
    assert (found.edges[0], found.edges[-1], len(found.all)) == (0, 1, BINS)
    assert [found.all[at] for at in (0, BINS // 2, -1)] == [10, 10, 10]
    assert [found.ood[at] for at in (0, BINS // 2, -1)] == [1, 2, 3]


def test_nothing_has_no_histogram() -> None:
    assert score_histogram(ScoreCounts.of_tally(Tally.sum(()))) is None
    assert ratio_histogram(np.zeros((4, 0), np.int64)) is None
    constant = score_histogram(ScoreCounts.of_tally(Tally.from_arrays([40000], [0], [7])))
    assert constant is not None
    assert constant.all.sum() == 7
