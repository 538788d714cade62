"""Evaluating pixel scores: tallies against scikit-learn, on the same float16 scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from benchmarks.timing import Comparison, compare
from oodray.metrics.curves import auroc, average_precision, fpr_at_tpr
from oodray.metrics.score_counts import ScoreCounts
from oodray.metrics.tally import Tally, score_keys

IMAGE_PIXELS = 1280 * 720
IMAGES = 6
OOD_SHARE = 0.1


def run() -> Comparison:
    """AP, FPR95 and AUROC of 5.5 million pixels, image by image against all at once."""
    images = [_image(index) for index in range(IMAGES)]
    scores, labels = (np.concatenate(arrays) for arrays in zip(*images, strict=True))
    return compare(
        f"AP, FPR95 and AUROC of {scores.size / 1e6:.1f} M pixels",
        ours=("tallies", lambda: _from_tallies(images)),
        theirs=("scikit-learn", lambda: _from_pixels(scores, labels)),
        difference=lambda a, b: float(np.abs(np.subtract(a, b)).max()),
    )


def _from_tallies(images: list[tuple[NDArray[np.float16], NDArray[np.uint8]]]) -> tuple[float, ...]:
    counts = ScoreCounts.of_tally(Tally.sum(Tally.of(score_keys(scores), labels) for scores, labels in images)).ranked()
    return average_precision(*counts), fpr_at_tpr(*counts), auroc(*counts)


def _from_pixels(scores: NDArray[np.float16], labels: NDArray[np.uint8]) -> tuple[float, ...]:
    values = scores.astype(np.float64)
    fpr, tpr, _ = roc_curve(labels, values, drop_intermediate=False)
    return average_precision_score(labels, values), float(fpr[np.argmax(tpr >= 0.95)]), roc_auc_score(labels, values)


def _image(index: int) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    rng = np.random.default_rng(index)
    labels = (rng.random(IMAGE_PIXELS) < OOD_SHARE).astype(np.uint8)
    return (rng.normal(size=IMAGE_PIXELS) * 3 - 8 + 2 * labels).astype(np.float16), labels
