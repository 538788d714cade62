"""AP, FPR at a TPR and AUROC from arrays of scores and labels, with the conventions of a run's default.

These are what `oodray.metrics.average_precision`, `fpr_at_tpr` and `auroc` are. The functions of the same names in
`oodray.metrics.curves` take counts instead, as a run has them; here every distinct score is counted first, in the
dtype that it has: nothing is rounded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oodray.metrics import curves
from oodray.metrics.curve import Counts
from oodray.metrics.tally import IGNORE, IN_DISTRIBUTION, OOD


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Average precision: the step sum over recall, as scikit-learn's `average_precision_score`.

    Args:
        scores: numbers of any shape, higher = more OoD; floating point or integers.
        labels: of the same shape, integers or booleans: 0 in-distribution, 1 OoD, 255 ignored.

    Returns:
        A share within 0..1; nan where there is no OoD or no in-distribution pixel.

    Raises:
        TypeError: scores are no real numbers, or labels no integers.
        ValueError: shapes differ, a label is another, or a score that is not ignored is NaN or infinite.

    >>> average_precision(np.array([0.9, 0.8, 0.8, 0.1]), np.array([1, 0, 1, 255]))
    0.8333333333333333
    """
    return curves.average_precision(*_counts(scores, labels))


def fpr_at_tpr(scores: ArrayLike, labels: ArrayLike, tpr: float = 0.95) -> float:
    """False positive rate at the first threshold, from the highest score down, whose TPR is at least `tpr`.

    Scores, labels, nan and errors are those of `average_precision`; a `tpr` outside 0 < tpr <= 1 is a ValueError too.
    It means the decimal number that it prints as, so 19 of 20 OoD pixels reach 0.95.

    >>> fpr_at_tpr([[0.9, 0.8], [0.8, 0.1]], [[1, 0], [1, 0]])
    0.5
    """
    return curves.fpr_at_tpr(*_counts(scores, labels), tpr)


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Chance that an OoD pixel has a higher score than an in-distribution one, a tie counting half.

    Scores, labels, nan and errors are those of `average_precision`.

    >>> auroc([3, 2, 2, 1], [1, 0, 1, 0])
    0.875
    """
    return curves.auroc(*_counts(scores, labels))


def _counts(scores: ArrayLike, labels: ArrayLike) -> tuple[Counts, Counts]:
    """OoD and in-distribution pixels of each distinct score, the highest first."""
    ood, ind = _scores_by_label(np.asarray(scores), np.asarray(labels))
    ood_scores, ood_counts = np.unique(ood, return_counts=True)
    ind_scores, ind_counts = np.unique(ind, return_counts=True)
    distinct = np.union1d(ood_scores, ind_scores)
    counts = np.zeros((2, len(distinct)), np.int64)
    counts[0, np.searchsorted(distinct, ood_scores)] = ood_counts
    counts[1, np.searchsorted(distinct, ind_scores)] = ind_counts
    return counts[0, ::-1], counts[1, ::-1]


def _scores_by_label(scores: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The scores of the OoD and of the in-distribution pixels, after refusing what is none of both arrays."""
    if scores.shape != labels.shape:
        raise ValueError(f"scores of shape {scores.shape} and labels of shape {labels.shape} must have one shape")
    if not scores.size:
        return scores, scores  # an empty list arrives as float64
    if scores.dtype.kind not in "fiu":
        raise TypeError(f"scores must be real numbers, not {scores.dtype}")
    if labels.dtype.kind not in "iub":
        raise TypeError(f"labels must be integers or booleans, not {labels.dtype}")
    ood, ind = labels == OOD, labels == IN_DISTRIBUTION
    unknown = np.unique(labels[~(ood | ind | (labels == IGNORE))])
    if unknown.size:
        raise ValueError(
            f"labels must be {IN_DISTRIBUTION} (in-distribution), {OOD} (OoD) or {IGNORE} (ignored), "
            f"not {', '.join(map(str, unknown[:5]))}"
        )
    if not (np.isfinite(scores) | ~(ood | ind)).all():
        raise ValueError(f"scores hold NaN or infinity where the label is not {IGNORE}; leave those pixels out")
    return scores[ood], scores[ind]
