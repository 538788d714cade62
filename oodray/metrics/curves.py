"""AP, FPR at a TPR, AUROC and F1 from exact counts, and the operating point of a mask.

A curve is taken from two int64 arrays of shape (n,): the OoD and the in-distribution pixels of each distinct
score, most anomalous score first. Pixels of one score are always on the same side of a threshold, and ignored
pixels do not count. `mask_ranking` has a compiled twin of AP and FPR95 for sweeps: change both.

The defaults are the conventions that most evaluators share; `oodray.metrics.conventions` names the others:

* AP is the step sum over recall (scikit-learn's `average_precision_score`), not a trapezoid.
* FPR95 is the FPR at the first threshold, from the most anomalous down, whose TPR is at least 0.95, without
  interpolation.
* AUROC is the trapezoid (scikit-learn's `roc_auc_score`): a tie counts half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from oodray.metrics.tally import IN_DISTRIBUTION, OOD, Tally

Counts: TypeAlias = NDArray[np.int64]
ApRule: TypeAlias = Literal["step", "trapezoid"]
FprRule: TypeAlias = Literal[">=", ">", "nearest", "linear"]

MAX_CLUSTER_PIXELS = 2**26  # up to it, different ratios are different float64 numbers


def average_precision(ood: Counts, ind: Counts, rule: ApRule = "step") -> float:
    """Area under the precision-recall curve.

    Args:
        ood: OoD pixels of each distinct score, most anomalous first.
        ind: in-distribution pixels of the same scores.
        rule: "step", the sum of (gain in recall) x (precision there), or "trapezoid", straight lines between the
            points of the curve, which starts at recall 0 and precision 1.

    Returns:
        A share within 0..1; nan where there is no OoD or no in-distribution pixel.

    Raises:
        TypeError: the counts are not integers.
        ValueError: they are negative, or not two lists of one length.

    >>> average_precision(np.array([2, 1, 1]), np.array([0, 1, 3]))
    0.8125
    >>> average_precision(np.array([0, 1]), np.array([1, 1]), "trapezoid")  # from precision 0 to 1/3
    0.16666666666666666
    """
    ood, ind = _checked(ood=ood, ind=ind)
    if not (ood.any() and ind.any()):
        return math.nan
    true_positives = np.cumsum(ood)
    predicted = true_positives + np.cumsum(ind)
    # Elsewhere recall stands still, and before the first pixel there is no precision.
    gains = np.flatnonzero(ood > 0)
    precision = true_positives[gains] / predicted[gains]
    if rule == "trapezoid":
        # Where recall stands still precision falls: a gain starts from the lower end of that fall. No pixel before
        # it is the point at recall 0.
        before = np.maximum(gains - 1, 0)
        reached = np.where(gains > 0, predicted[before], 0)
        start = np.where(reached > 0, true_positives[before] / np.maximum(reached, 1), 1.0)
        precision = (start + precision) / 2
    # One after the other, as a loop adds: a sweep, compiled, has the same last bit.
    return float(np.add.accumulate(ood[gains] * precision)[-1] / true_positives[-1])


def fpr_at_tpr(ood: Counts, ind: Counts, tpr: float = 0.95, rule: FprRule = ">=") -> float:
    """FPR at a TPR, thresholds taken from the most anomalous down and compared without rounding.

    `tpr` means the decimal number that it prints as, so 19 of 20 OoD pixels reach 0.95. Counts, nan and
    errors are those of `average_precision`; a `tpr` outside 0 < tpr <= 1 is a ValueError too.

    Args:
        ood: OoD pixels of each distinct score, most anomalous first.
        ind: in-distribution pixels of the same scores.
        tpr: the level.
        rule: which point of the ROC curve, that starts at (0, 0), answers:
            ">=" the first whose TPR is at least the level;
            ">" the first whose TPR is above it, or the last one where none is;
            "nearest" the one whose TPR is nearest to it, the first of several;
            "linear" the straight line between the points around it, as `numpy.interp(tpr, TPR, FPR)`.

    >>> ood, ind = np.array([19, 1]), np.array([3, 7])
    >>> fpr_at_tpr(ood, ind), fpr_at_tpr(ood, ind, rule=">"), fpr_at_tpr(ood, ind, 0.97)
    (0.3, 1.0, 1.0)
    >>> fpr_at_tpr(ood, ind, 0.97, "nearest"), round(fpr_at_tpr(ood, ind, 0.97, "linear"), 6)
    (0.3, 0.58)
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr must be above 0 and at most 1, not {tpr}")
    ood, ind = _checked(ood=ood, ind=ind)
    if not (ood.any() and ind.any()):
        return math.nan
    true_positives = np.concatenate([[0], np.cumsum(ood)])
    false_positives = np.concatenate([[0], np.cumsum(ind)])
    level = Fraction(str(tpr)) * int(true_positives[-1])
    return float(_false_positives_at(true_positives, false_positives, level, rule) / int(false_positives[-1]))


def _false_positives_at(
    true_positives: Counts, false_positives: Counts, level: Fraction, rule: FprRule
) -> Fraction | int:
    """False positives where the true positives reach a level; both ascend from a 0."""
    last = len(true_positives) - 1
    reached = int(np.searchsorted(true_positives, math.ceil(level)))
    above = int(np.searchsorted(true_positives, math.floor(level), side="right"))
    if rule == ">=":
        return int(false_positives[reached])
    if rule == ">":
        return int(false_positives[min(above, last)])
    below = max(above - 1, 0)  # the last point at or under the level
    if rule == "nearest":
        high = int(true_positives[min(above, last)])
        low = int(true_positives[below])
        nearest = low if level - low <= high - level or above > last else high
        return int(false_positives[np.searchsorted(true_positives, nearest)])
    if above > last:
        return int(false_positives[last])
    low, high = int(true_positives[below]), int(true_positives[above])
    start, end = int(false_positives[below]), int(false_positives[above])
    return start + (level - low) * (end - start) / (high - low)


def best_f1(ood: Counts, ind: Counts) -> tuple[float, int]:
    """The largest F1 of any threshold, and which of the scores is that threshold: pixels down to it are called OoD.

    Of several, the most anomalous. Counts, nan and errors are those of `average_precision`; with nan goes -1.

    >>> best_f1(np.array([3, 1, 0]), np.array([0, 1, 9]))
    (0.8888888888888888, 1)
    """
    ood, ind = _checked(ood=ood, ind=ind)
    if not (ood.any() and ind.any()):
        return math.nan, -1
    true_positives = np.cumsum(ood)
    f1 = 2 * true_positives / (true_positives + np.cumsum(ind) + true_positives[-1])
    best = int(np.argmax(f1))
    return float(f1[best]), best


def auroc(ood: Counts, ind: Counts) -> float:
    """Chance that an OoD pixel has a higher score than an in-distribution one, a tie counting half.

    Counts, nan and errors are those of `average_precision`.

    >>> auroc(np.array([1, 1]), np.array([0, 2]))
    0.75
    """
    ood, ind = _checked(ood=ood, ind=ind)
    if not (ood.any() and ind.any()):
        return math.nan
    true_positives = np.cumsum(ood)
    doubled = 2 * true_positives - ood  # twice the mean height of each trapezoid: TP before it + TP after it
    # Shares first: a product of two counts may not fit 64 bits.
    return float(np.sum((ind / ind.sum()) * (doubled / (2 * true_positives[-1]))))


def ratio_values(unsure: Counts, pixels: Counts) -> NDArray[np.float64]:
    """The distinct ratios that `ratio_counts` counts, highest first."""
    return -np.unique(-(unsure / pixels))


def ratio_counts(unsure: Counts, pixels: Counts, ood: Counts, ind: Counts) -> tuple[Counts, Counts]:
    """OoD and in-distribution pixels of the score `ratio`: r = unsure / pixels of each cluster (eq. 3).

    Args:
        unsure: pixels of each cluster whose confidence is below tau, (c,); clusters of any images.
        pixels: all pixels of each cluster, ignored ones too.
        ood: its OoD pixels.
        ind: its in-distribution pixels.

    Returns:
        Counts by distinct ratio, highest first. Ratios are compared as exact fractions: 1/3 and 2/6 are one.

    Raises:
        TypeError: the counts are not integers.
        ValueError: they are negative, differ in length or contradict each other, or a cluster has no pixel or
            more than `MAX_CLUSTER_PIXELS`.

    >>> ratio_counts(np.array([1, 1, 2]), np.array([3, 2, 6]), np.array([0, 2, 1]), np.array([3, 0, 4]))
    (array([2, 1]), array([0, 7]))
    """
    unsure, pixels, ood, ind = _checked(unsure=unsure, pixels=pixels, ood=ood, ind=ind)
    if np.any(pixels == 0) or np.any(unsure > pixels) or np.any(ood + ind > pixels):
        raise ValueError("a cluster must have a pixel, and no more unsure or labelled pixels than pixels")
    if np.any(pixels > MAX_CLUSTER_PIXELS):
        raise ValueError(f"a cluster has {pixels.max()} pixels; ratios are exact up to {MAX_CLUSTER_PIXELS}")
    # Float64 quotients order these fractions exactly. Equal fractions are one real number, rounded to one
    # float. Different ones, a/b and c/d, lie at least 1/(bd) >= 2**-52 apart. Rounding never swaps them, and
    # moves each by at most 2**-54 (half the largest gap between floats up to 1), too little to meet.
    ratios, ranks = np.unique(-(unsure / pixels), return_inverse=True)
    return _summed(ood, ranks, len(ratios)), _summed(ind, ranks, len(ratios))


def mask_then_logit_counts(inside: Tally, outside: Tally) -> tuple[Counts, Counts]:
    """OoD and in-distribution pixels of the score `mask-then-logit`.

    All pixels inside the mask come before all pixels outside; in each part the lowest confidence comes first.

    Args:
        inside: the tally of *confidence* inside the mask, pooled over images.
        outside: the same outside the mask.
    """
    return _occupied(
        np.concatenate([inside.dense(OOD), outside.dense(OOD)]),
        np.concatenate([inside.dense(IN_DISTRIBUTION), outside.dense(IN_DISTRIBUTION)]),
    )


@dataclass(frozen=True)
class OperatingPoint:
    """What one mask achieves, as shares within 0..1; nan where a share is of nothing (0/0)."""

    precision: float
    recall: float
    fpr: float
    f1: float
    iou: float


def operating_point(tp: int, fp: int, fn: int, tn: int) -> OperatingPoint:
    """Operating point of a mask from its pixels: OoD inside and outside (tp, fn), in-distribution (fp, tn).

    Raises:
        ValueError: a count is negative.

    >>> operating_point(tp=3, fp=1, fn=2, tn=4)
    OperatingPoint(precision=0.75, recall=0.6, fpr=0.2, f1=0.6666666666666666, iou=0.5)
    """
    if min(tp, fp, fn, tn) < 0:
        raise ValueError(f"counts must not be negative: tp {tp}, fp {fp}, fn {fn}, tn {tn}")
    return OperatingPoint(
        precision=_share(tp, tp + fp),
        recall=_share(tp, tp + fn),
        fpr=_share(fp, fp + tn),
        f1=_share(2 * tp, 2 * tp + fp + fn),
        iou=_share(tp, tp + fp + fn),
    )


def _share(part: int, whole: int) -> float:
    return int(part) / int(whole) if whole else math.nan


def _occupied(ood: Counts, ind: Counts) -> tuple[Counts, Counts]:
    """The counts of the scores that have a labelled pixel."""
    occupied = (ood > 0) | (ind > 0)
    return ood[occupied], ind[occupied]


def _summed(counts: Counts, groups: NDArray[np.intp], group_count: int) -> Counts:
    # np.bincount with weights would add in float64.
    total = np.zeros(group_count, np.int64)
    np.add.at(total, groups, counts)
    return total


def _checked(**counts: NDArray[Any]) -> list[Counts]:
    """The counts as int64, after refusing what is not a set of lists of one length with counts in them."""
    shapes = {array.shape for array in counts.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"{', '.join(counts)} must be lists of one length, not of shapes {sorted(shapes)}")
    for name, array in counts.items():
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name} must be integers, not {array.dtype}")
        if np.any(array < 0):
            raise ValueError(f"{name} must not be negative")
    return [array.astype(np.int64, copy=False) for array in counts.values()]
