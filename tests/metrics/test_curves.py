from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from oodray.metrics.curve import Counts
from oodray.metrics.curves import (
    MAX_CLUSTER_PIXELS,
    OperatingPoint,
    auroc,
    average_precision,
    fpr_at_tpr,
    mask_then_logit_counts,
    operating_point,
    ratio_counts,
)
from oodray.metrics.score_counts import ScoreCounts
from oodray.metrics.tally import (
    IGNORE,
    IN_DISTRIBUTION,
    OOD,
    Tally,
    cluster_tallies,
    first_key_at_least,
    score_keys,
)

LABELS = np.array([IN_DISTRIBUTION, OOD, IGNORE], np.uint8)
CURVES: list[Callable[[Counts, Counts], float]] = [average_precision, fpr_at_tpr, auroc]


def counts(*numbers: int) -> Counts:
    return np.array(numbers, np.int64)


def oracle(scores: NDArray[np.float64], labels: NDArray[np.uint8]) -> tuple[float, float, float]:
    """AP, FPR95 and AUROC of pixels by scikit-learn, higher score = more anomalous."""
    known = labels != IGNORE
    truth, scores = (labels[known] == OOD).ravel(), scores[known].ravel()
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    return (
        average_precision_score(truth, scores),
        float(fpr[np.argmax(tpr >= 0.95)]),
        roc_auc_score(truth, scores),
    )


def assert_curves(found: tuple[Counts, Counts], expected: tuple[float, float, float]) -> None:
    assert [curve(*found) for curve in CURVES] == pytest.approx(expected, abs=1e-9, rel=0)


def exact_average_precision(ood: list[int], ind: list[int]) -> Fraction:
    area, tp, fp = Fraction(0), 0, 0
    for positives, negatives in zip(ood, ind, strict=True):
        tp, fp = tp + positives, fp + negatives
        area += Fraction(positives * tp, tp + fp) if positives else 0
    return area / tp


def exact_auroc(ood: list[int], ind: list[int]) -> Fraction:
    wins, above = Fraction(0), 0
    for positives, negatives in zip(ood, ind, strict=True):
        wins += negatives * (above + Fraction(positives, 2))
        above += positives
    return wins / (above * sum(ind))


def exact_fpr_at_tpr(ood: list[int], ind: list[int], tpr: Fraction) -> Fraction:
    tp, fp = 0, 0
    for positives, negatives in zip(ood, ind, strict=True):
        tp, fp = tp + positives, fp + negatives
        if Fraction(tp, sum(ood)) >= tpr:
            return Fraction(fp, sum(ind))
    raise AssertionError("a TPR of 1 is always reached")


def pixel_ratios(clusters: list[int], confidences: list[float], tau: float) -> list[Fraction]:
    """The ratio of every pixel's cluster, in one image."""
    members = {k: [m for cluster, m in zip(clusters, confidences, strict=True) if cluster == k] for k in clusters}
    ratios = {k: Fraction(sum(m < tau for m in members[k]), len(members[k])) for k in members}
    return [ratios[k] for k in clusters]


class TestAgainstScikitLearn:
    @pytest.mark.parametrize("distinct", [2, 5, 100, 10_000])
    @pytest.mark.parametrize("seed", range(5))
    def test_pixel_scores_with_and_without_ties(self, distinct: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        labels = rng.choice(LABELS, (50, 60), p=[0.7, 0.2, 0.1])
        scores = np.round(rng.normal(labels == OOD, 1.5) * distinct / 6).astype(np.float16) / np.float16(7)
        found = ScoreCounts.of_tally(Tally.of(score_keys(scores), labels)).ranked()
        assert_curves(found, oracle(scores.astype(np.float64), labels))

    def test_one_score_for_all(self) -> None:
        labels = np.array([0, 1, 0, 0, 255], np.uint8)
        found = ScoreCounts.of_tally(Tally.of(score_keys(np.full(5, 0.3, np.float16)), labels)).ranked()
        assert_curves(found, (0.25, 1.0, 0.5))
        assert_curves(found, oracle(np.full(5, 0.3), labels))

    @pytest.mark.parametrize(("sign", "expected"), [(1, (1.0, 0.0, 1.0)), (-1, (5 / 12, 1.0, 0.0))])
    def test_perfect_and_opposite(self, sign: int, expected: tuple[float, float, float]) -> None:
        labels = np.array([0, 0, 1, 1], np.uint8)
        scores = sign * np.array([-2, -1, 0, 3], np.float16)
        found = ScoreCounts.of_tally(Tally.of(score_keys(scores), labels)).ranked()
        assert_curves(found, expected)
        assert_curves(found, oracle(scores.astype(np.float64), labels))

    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
    def test_any_small_counts(self, rows: list[tuple[int, int]]) -> None:
        ood, ind = (np.array(column, np.int64) for column in zip(*rows, strict=True))
        if not (ood.sum() and ind.sum()):
            assert all(math.isnan(curve(ood, ind)) for curve in CURVES)
            return
        ranks = -np.arange(len(rows), dtype=np.float64)
        scores = np.concatenate([ranks.repeat(ood), ranks.repeat(ind)])
        labels = np.repeat(np.array([OOD, IN_DISTRIBUTION], np.uint8), [ood.sum(), ind.sum()])
        assert_curves((ood, ind), oracle(scores, labels))


class TestExactness:
    @pytest.mark.parametrize("seed", range(3))
    def test_a_quadrillion_pixels(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        ood = rng.integers(0, 10**13, 400) * (rng.random(400) < 0.7)
        ind = rng.integers(0, 10**13, 400) * (rng.random(400) < 0.7)
        assert int(ood.sum() + ind.sum()) > 10**15
        rows = ood.tolist(), ind.tolist()
        assert average_precision(ood, ind) == pytest.approx(float(exact_average_precision(*rows)), abs=1e-12, rel=0)
        assert auroc(ood, ind) == pytest.approx(float(exact_auroc(*rows)), abs=1e-12, rel=0)
        for tpr in ("0.95", "0.9", "1.0", "0.001"):
            exact = float(exact_fpr_at_tpr(*rows, Fraction(tpr)))
            assert fpr_at_tpr(ood, ind, float(tpr)) == pytest.approx(exact, abs=1e-15, rel=0)

    @given(st.lists(st.tuples(st.integers(0, 10**13), st.integers(0, 10**13)), min_size=1, max_size=20))
    def test_any_large_counts(self, rows: list[tuple[int, int]]) -> None:
        ood, ind = ([*column, 1] for column in zip(*rows, strict=True))
        found = [curve(counts(*ood), counts(*ind)) for curve in CURVES]
        exact = [
            exact_average_precision(ood, ind),
            exact_fpr_at_tpr(ood, ind, Fraction(19, 20)),
            exact_auroc(ood, ind),
        ]
        assert found == pytest.approx([float(number) for number in exact], abs=1e-12, rel=0)

    def test_a_tpr_of_exactly_the_level_is_enough(self) -> None:
        assert fpr_at_tpr(counts(19, 1), counts(3, 7)) == 0.3
        assert fpr_at_tpr(counts(18, 2), counts(3, 7)) == 1.0
        assert fpr_at_tpr(counts(9, 1), counts(3, 7), 0.9) == 0.3  # the float 0.9 is a little above 9/10

    def test_the_level_is_not_rounded(self) -> None:
        total = 10**15 + 19
        reached = math.floor(Fraction("0.95") * total)
        assert reached / total >= 0.95  # in float64; in truth it is a twentieth of a pixel short
        assert fpr_at_tpr(counts(reached, total - reached), counts(3, 7)) == 1.0
        assert fpr_at_tpr(counts(reached + 1, total - reached - 1), counts(3, 7)) == 0.3

    @pytest.mark.parametrize(("tpr", "fpr"), [(1, 0.8), (1.0, 0.8), (0.5, 0.2), (0.51, 0.5), (1e-9, 0.2)])
    def test_other_levels(self, tpr: float, fpr: float) -> None:
        assert fpr_at_tpr(counts(0, 5, 4, 1, 0), counts(2, 0, 3, 3, 2), tpr) == fpr

    @pytest.mark.parametrize("tpr", [0.0, -0.1, 1.0001, math.nan, 95])
    def test_impossible_levels(self, tpr: float) -> None:
        with pytest.raises(ValueError, match="tpr"):
            fpr_at_tpr(counts(1), counts(1), tpr)


class TestMissingClasses:
    @pytest.mark.parametrize("curve", CURVES)
    @pytest.mark.parametrize(
        ("ood", "ind"),
        [(counts(), counts()), (counts(0, 0), counts(1, 2)), (counts(3), counts(0)), (counts(0), counts(0))],
    )
    def test_no_curve(self, curve: Callable[[Counts, Counts], float], ood: Counts, ind: Counts) -> None:
        assert math.isnan(curve(ood, ind))

    def test_ignored_pixels_make_no_score(self) -> None:
        ignored = Tally.from_arrays([40000, 50000], [IGNORE, IGNORE], [3, 4])
        for ood, ind in (ScoreCounts.of_tally(ignored).ranked(), mask_then_logit_counts(ignored, ignored)):
            assert (ood.tolist(), ind.tolist()) == ([], [])


class TestScoreCounts:
    def test_highest_score_first_without_ignored_pixels(self) -> None:
        scores = np.array([-1, 2, 2, 0.5, 2, 9], np.float16)
        labels = np.array([OOD, OOD, IN_DISTRIBUTION, IN_DISTRIBUTION, IGNORE, IGNORE], np.uint8)
        ood, ind = ScoreCounts.of_tally(Tally.of(score_keys(scores), labels)).ranked()
        assert (ood.tolist(), ind.tolist()) == ([1, 0, 1], [1, 1, 0])

    def test_ignored_pixels_change_nothing(self) -> None:
        rng = np.random.default_rng(0)
        keys = score_keys(rng.normal(size=500).astype(np.float16))
        labels = rng.choice(LABELS, 500)
        with_ignored = ScoreCounts.of_tally(Tally.of(keys, labels)).ranked()
        without = ScoreCounts.of_tally(Tally.of(keys[labels != IGNORE], labels[labels != IGNORE])).ranked()
        assert all(np.array_equal(a, b) for a, b in zip(with_ignored, without, strict=True))


class TestRatioCounts:
    @pytest.mark.parametrize("seed", range(5))
    def test_against_pixels(self, seed: int) -> None:
        """From three images to curves, beside pixels that each carry the ratio of their cluster."""
        rng = np.random.default_rng(seed)
        clusters = rng.integers(0, 9, (3, 12, 16), dtype=np.uint8)
        labels = rng.choice(LABELS, (3, 12, 16), p=[0.6, 0.3, 0.1])
        confidence = rng.normal(1.5, 1, (3, 12, 16)).astype(np.float16)
        rows = [
            (tally.below(first_key_at_least(1.1)), *map(tally.pixels, (None, OOD, IN_DISTRIBUTION)))
            for image in range(3)
            for tally in cluster_tallies(clusters[image], score_keys(confidence[image]), labels[image]).values()
        ]
        ratios = [
            ratio
            for image in range(3)
            for ratio in pixel_ratios(clusters[image].ravel().tolist(), confidence[image].ravel().tolist(), 1.1)
        ]
        order = sorted(set(ratios))
        found = ratio_counts(*np.array(rows, np.int64).T)
        assert len(found[0]) == len(order)
        assert_curves(found, oracle(np.array([order.index(ratio) for ratio in ratios], np.float64), labels.ravel()))

    @given(
        st.lists(
            st.tuples(st.integers(0, 12), st.integers(1, 12), st.integers(1, 9), st.integers(0, 9)).map(
                lambda row: (min(row[0], row[1]) * 40, row[1] * 40, row[2], row[3])
            )
        )
    )
    def test_against_fractions(self, rows: list[tuple[int, int, int, int]]) -> None:
        sums: dict[Fraction, tuple[int, int]] = {}
        for unsure, pixels, ood, ind in rows:
            before = sums.get(Fraction(unsure, pixels), (0, 0))
            sums[Fraction(unsure, pixels)] = (before[0] + ood, before[1] + ind)
        expected = [sums[ratio] for ratio in sorted(sums, reverse=True)]
        found = ratio_counts(*np.array(rows, np.int64).reshape(-1, 4).T)
        assert list(zip(*(column.tolist() for column in found), strict=True)) == expected

    def test_nearest_fractions_of_the_largest_clusters_stay_apart(self) -> None:
        # a/b and c/d with ad - bc = 1, the least two different fractions of these sizes can differ, near 1.
        largest = MAX_CLUSTER_PIXELS
        pixels = counts(largest, largest - 1)
        unsure = counts(largest - 1, largest - 2)
        assert int(unsure[0]) * int(pixels[1]) - int(unsure[1]) * int(pixels[0]) == 1
        found = ratio_counts(unsure, pixels, counts(1, 2), counts(3, 4))
        assert [column.tolist() for column in found] == [[1, 2], [3, 4]]

    @given(st.integers(2**25, MAX_CLUSTER_PIXELS), st.integers(0, MAX_CLUSTER_PIXELS), st.data())
    def test_order_of_large_fractions(self, first: int, unsure: int, data: st.DataObject) -> None:
        second = data.draw(st.integers(2**25, MAX_CLUSTER_PIXELS))
        unsure = min(unsure, first)
        nearest = min(second, max(0, round(Fraction(unsure * second, first))))
        fractions = Fraction(unsure, first), Fraction(nearest, second)
        ood, _ = ratio_counts(counts(unsure, nearest), counts(first, second), counts(1, 2), counts(0, 0))
        expected = [3] if fractions[0] == fractions[1] else [1, 2] if fractions[0] > fractions[1] else [2, 1]
        assert ood.tolist() == expected

    def test_equal_fractions_are_one_score(self) -> None:
        pixels = counts(3, 3 * 7**6, 1, 9, 1, 49)
        unsure = counts(1, 7**6, 0, 0, 1, 49)  # the last would differ as 49 * (1 / 49)
        ood, ind = ratio_counts(unsure, pixels, counts(1, 5, 0, 1, 1, 1), counts(0, 7, 1, 2, 0, 3))
        assert (ood.tolist(), ind.tolist()) == ([2, 6, 1], [3, 7, 3])

    def test_no_cluster(self) -> None:
        ood, ind = ratio_counts(counts(), counts(), counts(), counts())
        assert (ood.tolist(), ind.tolist()) == ([], [])

    def test_clusters_too_large_to_be_exact(self) -> None:
        with pytest.raises(ValueError, match="67108865 pixels"):
            ratio_counts(counts(1), counts(MAX_CLUSTER_PIXELS + 1), counts(0), counts(0))

    @pytest.mark.parametrize("row", [(0, 0, 0, 0), (4, 3, 0, 0), (1, 3, 2, 2)])
    def test_contradictions(self, row: tuple[int, int, int, int]) -> None:
        with pytest.raises(ValueError, match="a cluster must have a pixel"):
            ratio_counts(*(counts(number) for number in row))


class TestMaskThenLogitCounts:
    @pytest.mark.parametrize("seed", range(5))
    def test_against_pixels(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        labels = rng.choice(LABELS, (30, 40), p=[0.7, 0.2, 0.1])
        confidence = (rng.normal(3, 2, (30, 40)) - (labels == OOD)).astype(np.float16)
        confidence[rng.random((30, 40)) < 0.3] = np.float16(1.25)  # ties, also between inside and outside
        mask = rng.random((30, 40)) < np.where(labels == OOD, 0.6, 0.1)
        keys = score_keys(confidence)
        found = mask_then_logit_counts(Tally.of(keys[mask], labels[mask]), Tally.of(keys[~mask], labels[~mask]))
        # 2**18 is above any float16 range and leaves room for the smallest: the sum is exact in float64.
        assert_curves(found, oracle(mask * 2.0**18 - confidence.astype(np.float64), labels))

    def test_lowest_confidence_first_inside_then_outside(self) -> None:
        inside = Tally.from_arrays([9, 7, 8], [OOD, OOD, IGNORE], [1, 2, 50])
        outside = Tally.from_arrays([1, 9], [IN_DISTRIBUTION, OOD], [3, 4])
        ood, ind = mask_then_logit_counts(inside, outside)
        assert (ood.tolist(), ind.tolist()) == ([2, 1, 0, 4], [0, 0, 3, 0])

    def test_no_mask_is_max_logit(self) -> None:
        rng = np.random.default_rng(1)
        confidence = rng.normal(size=300).astype(np.float16)
        labels = rng.choice(LABELS, 300)
        nothing = Tally.sum([])
        confidences, max_logits = (Tally.of(score_keys(sign * confidence), labels) for sign in (1, -1))
        expected = [column.tolist() for column in ScoreCounts.of_tally(max_logits).ranked()]
        for found in (
            mask_then_logit_counts(nothing, confidences),
            mask_then_logit_counts(confidences, nothing),
        ):
            assert [column.tolist() for column in found] == expected


class TestOperatingPoint:
    @given(*[st.integers(1, 10**15)] * 4)
    def test_definitions(self, tp: int, fp: int, fn: int, tn: int) -> None:
        point = operating_point(tp, fp, fn, tn)
        precision, recall = Fraction(tp, tp + fp), Fraction(tp, tp + fn)
        assert (point.precision, point.recall) == (float(precision), float(recall))
        assert point.fpr == float(1 - Fraction(tn, fp + tn))
        assert point.f1 == float(2 * precision * recall / (precision + recall))
        assert point.iou == float(Fraction(tp, fp + fn + tp))

    @pytest.mark.parametrize(
        ("pixels", "undefined"),
        [
            ((0, 0, 0, 0), {"precision", "recall", "fpr", "f1", "iou"}),
            ((0, 0, 0, 5), {"precision", "recall", "f1", "iou"}),
            ((0, 0, 5, 0), {"precision", "fpr"}),
            ((0, 5, 0, 0), {"recall"}),
            ((5, 0, 0, 0), {"fpr"}),
        ],
    )
    def test_shares_of_nothing(self, pixels: tuple[int, int, int, int], undefined: set[str]) -> None:
        shares = vars(operating_point(*pixels))
        assert {name for name, share in shares.items() if math.isnan(share)} == undefined

    def test_perfect_mask(self) -> None:
        assert operating_point(3, 0, 0, 9) == OperatingPoint(precision=1.0, recall=1.0, fpr=0.0, f1=1.0, iou=1.0)

    def test_numpy_counts(self) -> None:
        point = operating_point(*np.array([0, 0, 2, 3]))
        assert math.isnan(point.precision)
        assert (point.recall, point.fpr) == (0.0, 0.0)

    def test_negative_counts(self) -> None:
        with pytest.raises(ValueError, match="fn -1"):
            operating_point(1, 1, -1, 1)


class TestHostileCounts:
    @pytest.mark.parametrize("curve", CURVES)
    def test_refused(self, curve: Callable[[Counts, Counts], float]) -> None:
        with pytest.raises(ValueError, match="one length"):
            curve(counts(1, 2), counts(1))
        with pytest.raises(ValueError, match="one length"):
            curve(counts(1).reshape(1, 1), counts(1).reshape(1, 1))
        with pytest.raises(ValueError, match="ood must not be negative"):
            curve(counts(-1, 2), counts(1, 1))
        with pytest.raises(TypeError, match="ind must be integers, not float64"):
            curve(counts(1, 2), np.array([0.5, 1.0]))
