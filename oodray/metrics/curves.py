"""AP, FPR at a TPR, AUROC and F1 from exact counts, and the operating point of a mask.

A curve is taken from two int64 arrays of shape (n,): the OoD and the in-distribution pixels of each distinct
score, most anomalous score first. Pixels of one score are always on the same side of a threshold, and ignored
pixels do not count. `oodray.metrics.curve` does the work, and reads several numbers from one curve. `mask_ranking`
has a compiled twin of AP and FPR95 for sweeps: change both.

The defaults are the conventions that most evaluators share; `oodray.metrics.conventions` names the others:

* AP is the step sum over recall (scikit-learn's `average_precision_score`), not a trapezoid.
* FPR95 is the FPR at the first threshold, from the most anomalous down, whose TPR is at least 0.95, without
  interpolation.
* AUROC is the trapezoid (scikit-learn's `roc_auc_score`): a tie counts half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.metrics.curve import ApRule, Counts, Curve, FprRule
from oodray.metrics.tally import IN_DISTRIBUTION, OOD, Tally

MAX_CLUSTER_PIXELS = 2**26  # up to it, different ratios are different float64 numbers


def curve_of(ood: Counts, ind: Counts) -> Curve:
    """The curve of counts; errors are those of `average_precision`."""
    return Curve.of(*_checked(ood=ood, ind=ind))


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
    return curve_of(ood, ind).average_precision(rule)


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
            "nearest" the one whose TPR is nearest to it, as float64 has them, the first of several;
            "nearest-last" the last of several with that TPR, but the first of those that find every OoD pixel;
            "linear" the straight line between the points around it, as `numpy.interp(tpr, TPR, FPR)`.

    >>> ood, ind = np.array([19, 1]), np.array([3, 7])
    >>> fpr_at_tpr(ood, ind), fpr_at_tpr(ood, ind, rule=">"), fpr_at_tpr(ood, ind, 0.97)
    (0.3, 1.0, 1.0)
    >>> fpr_at_tpr(ood, ind, 0.97, "nearest"), round(fpr_at_tpr(ood, ind, 0.97, "linear"), 6)
    (0.3, 0.58)
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr must be above 0 and at most 1, not {tpr}")
    return curve_of(ood, ind).fpr_at_tpr(tpr, rule)


def best_f1(ood: Counts, ind: Counts) -> tuple[float, int]:
    """The largest F1 of any threshold, and which of the scores is that threshold: pixels down to it are called OoD.

    Of several, the most anomalous. Counts, nan and errors are those of `average_precision`; with nan goes -1.

    >>> best_f1(np.array([3, 1, 0]), np.array([0, 1, 9]))
    (0.8888888888888888, 1)
    """
    return curve_of(ood, ind).best_f1()


def auroc(ood: Counts, ind: Counts) -> float:
    """Chance that an OoD pixel has a higher score than an in-distribution one, a tie counting half.

    Counts, nan and errors are those of `average_precision`.

    >>> auroc(np.array([1, 1]), np.array([0, 2]))
    0.75
    """
    return curve_of(ood, ind).auroc()


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
