from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import auc, average_precision_score, f1_score, precision_recall_curve, roc_auc_score, roc_curve

from oodray.errors import ConfigError
from oodray.metrics.conventions import (
    DEFAULT,
    Convention,
    make_convention,
    mean_measures,
    measure,
)
from oodray.metrics.curve import Counts, FprRule
from oodray.metrics.curves import average_precision, best_f1, fpr_at_tpr

# Counts by distinct score with both classes: ties, lone classes at either end, empty scores, one score only.
curves = (
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=8)
    .map(lambda rows: (np.array([row[0] for row in rows]), np.array([row[1] for row in rows])))
    .filter(lambda counts: bool(counts[0].any() and counts[1].any()))
)
levels = st.sampled_from([0.05, 0.3, 0.5, 0.75, 0.9, 0.95, 1.0])


def pixels(ood: Counts, ind: Counts) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """One entry a pixel: whether it is OoD, and its score."""
    scores = -np.arange(len(ood), dtype=np.float64)
    return np.repeat([True, False], [ood.sum(), ind.sum()]), np.concatenate(
        [np.repeat(scores, ood), np.repeat(scores, ind)]
    )


@given(curves)
def test_the_trapezoid_is_that_under_scikit_learns_curve(counts: tuple[Counts, Counts]) -> None:
    precision, recall, _ = precision_recall_curve(*pixels(*counts))
    assert average_precision(*counts, "trapezoid") == pytest.approx(auc(recall, precision), abs=1e-12)
    assert average_precision(*counts) == pytest.approx(average_precision_score(*pixels(*counts)), abs=1e-12)


def fpr_by_definition(ood: Counts, ind: Counts, tpr: float, rule: FprRule) -> float:
    """On scikit-learn's points, in fractions where a comparison must not be rounded."""
    fpr, found, _ = roc_curve(*pixels(ood, ind), drop_intermediate=False)
    if rule == "nearest":
        return float(fpr[np.argmin(np.abs(found - tpr))])
    exact = [Fraction(round(share * int(ood.sum())), int(ood.sum())) for share in found]
    level = Fraction(str(tpr))
    if rule == ">=":
        return float(fpr[next(i for i, share in enumerate(exact) if share >= level)])
    if rule == ">":
        return float(fpr[next((i for i, share in enumerate(exact) if share > level), -1)])
    return float(np.interp(tpr, found, fpr))


@given(curves, levels, st.sampled_from([">=", ">", "nearest", "linear"]))
def test_the_fpr_is_read_where_the_rule_says(counts: tuple[Counts, Counts], tpr: float, rule: FprRule) -> None:
    assert fpr_at_tpr(*counts, tpr, rule) == pytest.approx(fpr_by_definition(*counts, tpr, rule), abs=1e-12)


@given(curves)
def test_the_best_f1_is_the_best_of_all_thresholds(counts: tuple[Counts, Counts]) -> None:
    ood, scores = pixels(*counts)
    occupied = [rank for rank in range(len(counts[0])) if counts[0][rank] or counts[1][rank]]
    by_threshold = {rank: f1_score(ood, scores >= -rank) for rank in occupied}
    value, best = best_f1(*counts)
    assert value == pytest.approx(max(by_threshold.values()), abs=1e-12)
    assert f1_score(ood, scores >= -best) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("counts", [([0, 0], [1, 2]), ([1, 2], [0, 0]), ([], [])])
def test_a_missing_class_has_no_metric(counts: tuple[list[int], list[int]]) -> None:
    ood, ind = (np.array(numbers, np.int64) for numbers in counts)
    measures = measure(ood, ind, Convention(ap_rule="trapezoid", fpr_rule="linear", tpr=0.5))
    assert all(map(math.isnan, (measures.ap, measures.fpr95, measures.fpr_at_tpr, measures.auroc, measures.best_f1)))
    assert measures.best == -1


def test_counts_of_many_pixels_do_not_overflow() -> None:
    many = 10**15
    ood, ind = np.array([3 * many, many]), np.array([many, 9 * many])
    small = np.array([3, 1]), np.array([1, 9])
    for rule in ("step", "trapezoid"):
        assert average_precision(ood, ind, rule) == pytest.approx(average_precision(*small, rule), abs=1e-12)
    for fpr_rule in (">=", ">", "nearest", "linear"):
        assert fpr_at_tpr(ood, ind, 0.75, fpr_rule) == pytest.approx(fpr_at_tpr(*small, 0.75, fpr_rule), abs=1e-12)
    assert best_f1(ood, ind) == pytest.approx(best_f1(*small))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"pooling": "batch"}, "pooling must be one of dataset, image, not 'batch'"),
        ({"fpr_rule": "first"}, "fpr_rule must be one of"),
        ({"tpr": 0.0}, "tpr must be above 0"),
        ({"tpr": math.nan}, "tpr must be above 0"),
    ],
)
def test_a_wrong_convention_is_refused(asked: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_convention(asked)


def test_nothing_asked_is_the_default() -> None:
    assert make_convention({"pooling": None, "tpr": None}) == DEFAULT


@given(st.lists(curves, min_size=1, max_size=5))
def test_a_mean_over_images_is_numpys(images: list[tuple[Counts, Counts]]) -> None:
    found = mean_measures(measure(*counts) for counts in images)
    expected = np.mean([average_precision_score(*pixels(*c)) for c in images])
    assert found.ap == pytest.approx(expected, abs=1e-12)
    assert found.auroc == pytest.approx(np.mean([roc_auc_score(*pixels(*c)) for c in images]), abs=1e-12)


def test_a_mean_of_nothing_is_nan() -> None:
    assert math.isnan(mean_measures([]).ap)
