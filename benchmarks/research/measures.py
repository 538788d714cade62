"""AP and FPR95 of a score over the images of a set, with bootstrap intervals over the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVELS = 4096
"""Steps of a curve: quantiles of the score, half of them within its largest tenth, where AP is decided."""


@dataclass(frozen=True)
class Measured:
    """Percent, with the ends of 95 % intervals."""

    ap: float
    ap_low: float
    ap_high: float
    fpr: float
    fpr_low: float
    fpr_high: float

    def __str__(self) -> str:
        ap = f"{self.ap:.1f} ({self.ap_low:.1f}-{self.ap_high:.1f})"
        return f"{ap} / {self.fpr:.1f} ({self.fpr_low:.1f}-{self.fpr_high:.1f})"


def measure(scores: Sequence[NDArray[np.floating]], labels: Sequence[NDArray[np.uint8]], draws: int = 200) -> Measured:
    """Of scores and labels of each image; the pixels of all images are pooled."""
    everything = np.concatenate([of[label < 2] for of, label in zip(scores, labels, strict=True)])
    shares = np.concatenate([np.linspace(0, 0.9, LEVELS // 2), 0.9 + 0.1 * np.linspace(0, 1, LEVELS // 2) ** 0.5])
    some = everything[:: max(1, len(everything) // 2_000_000)]
    edges = np.unique(np.quantile(some, shares))
    counts = np.zeros((2, len(scores), len(edges) + 1), np.int64)
    for index, (of, label) in enumerate(zip(scores, labels, strict=True)):
        steps = np.searchsorted(edges, of, side="right")
        for kind in (0, 1):
            counts[kind, index] = np.bincount(steps[label == kind], minlength=len(edges) + 1)
    rng = np.random.default_rng(0)
    drawn = [rng.integers(len(scores), size=len(scores)) for _ in range(draws)]
    found = np.array([_of_counts(counts[:, rows].sum(1)) for rows in drawn])
    (ap_low, fpr_low), (ap_high, fpr_high) = np.nanpercentile(found, [2.5, 97.5], axis=0)
    ap, fpr = _of_counts(counts.sum(1))
    return Measured(ap, ap_low, ap_high, fpr, fpr_low, fpr_high)


def _of_counts(counts: NDArray[np.int64]) -> tuple[float, float]:
    known, ood = counts[:, ::-1].cumsum(1)
    if not ood[-1]:
        return np.nan, np.nan
    recall, precision = ood / ood[-1], ood / np.maximum(1, ood + known)
    ap = float((np.diff(recall, prepend=0) * precision).sum())
    return 100 * ap, 100 * float(known[np.searchsorted(recall, 0.95)] / known[-1])
