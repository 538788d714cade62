"""Confidence intervals by a bootstrap over images, from their exact counts.

Images are drawn with replacement, as many as there are; the pixels of an image stay together, as they are anything
but independent. A drawn image counts as often as it was drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from oodray.metrics.by_image import is_measured, seen, within_unit
from oodray.metrics.conventions import Convention, measure_curve
from oodray.metrics.curve import Curve, Weights
from oodray.metrics.evaluation import ScoreMetrics, Totals
from oodray.metrics.frames import Frame

LEVEL = 0.95
"""Share of the resampled values that lie in an interval."""

MOST_RANKS = 2**17
"""Ranks that are told apart at most. Scores with a rank for every pixel, as float32 maps of others can be, are joined
with their neighbours: then a rank holds at most about 1 / 65,536 of the OoD pixels, and as much of the others."""

_BLOCK_NUMBERS = 4_000_000  # of the dense table of one block of ranks: 32 MB


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """Pixels of each image by rank of their score: one entry for each image and rank that has pixels.

    Attributes:
        images: number of images.
        image: `(n,)`, the image of each entry.
        rank: `(n,)`, the rank of its score among all distinct scores, the most anomalous being 0; ascending.
        ood: `(n,)`, its OoD pixels.
        ind: `(n,)`, its in-distribution pixels.
    """

    images: int
    image: NDArray[np.intp]
    rank: NDArray[np.intp]
    ood: Weights
    ind: Weights

    @classmethod
    def of(cls, frames: Sequence[Frame]) -> ImageCounts:
        """The counts of images by score."""
        owner = np.repeat(np.arange(len(frames)), [len(frame.scores) for frame in frames])
        scores, ood, ind = (np.concatenate([getattr(f, name) for f in frames]) for name in ("scores", "ood", "ind"))
        _, rank = np.unique(-scores, return_inverse=True)
        rank = _joined(rank, ood, ind)
        by_rank = np.argsort(rank, kind="stable")
        return cls(len(frames), owner[by_rank], rank[by_rank], ood[by_rank], ind[by_rank])

    def pooled(self, weights: NDArray[np.float64]) -> tuple[Weights, Weights]:
        """OoD and in-distribution pixels by rank, `(b, ranks)`, of images that count `weights` `(b, images)` times."""
        ranks = int(self.rank[-1]) + 1 if len(self.rank) else 0
        totals = np.zeros((2, len(weights), ranks), self.ood.dtype)
        step = max(1, _BLOCK_NUMBERS // self.images)
        for start in range(0, ranks, step):
            end = min(start + step, ranks)
            entries = slice(*np.searchsorted(self.rank, [start, end]))
            for total, counts in zip(totals, (self.ood, self.ind), strict=True):
                dense = np.zeros((self.images, end - start))
                np.add.at(dense, (self.image[entries], self.rank[entries] - start), counts[entries])
                # Products of whole numbers below 2**53: exact in float64.
                total[:, start:end] = weights @ dense
        return totals[0], totals[1]


def _joined(rank: NDArray[np.intp], ood: Weights, ind: Weights) -> NDArray[np.intp]:
    """Ranks of which there are at most `MOST_RANKS`: neighbours are joined, each time about as many pixels.

    >>> _joined(np.array([2, 0, 1]), np.array([1, 1, 1]), np.array([0, 5, 5])).tolist()
    [2, 0, 1]
    """
    count = int(rank.max()) + 1 if len(rank) else 0
    if count <= MOST_RANKS:
        return rank
    shares = np.zeros(count)
    for pixels in (ood, ind):
        total = float(np.sum(pixels))
        if total:
            shares += np.bincount(rank, weights=pixels, minlength=count) / total
    before = np.cumsum(shares) - shares
    joined = np.floor(before / (before[-1] + shares[-1]) * (MOST_RANKS - 1)).astype(np.intp)
    return (np.cumsum(np.diff(joined, prepend=joined[0]) > 0))[rank]


def with_intervals(
    metrics: ScoreMetrics, images: Sequence[Totals], convention: Convention, resamples: int, seed: int = 0
) -> ScoreMetrics:
    """The metrics of a score with the ends of their confidence intervals; without, where fewer than two images count.

    Draws that lack a class have no metrics and are left out.

    Args:
        metrics: of the images.
        images: the counts of each image.
        convention: the one of the metrics.
        resamples: how often the dataset is drawn anew.
        seed: of the drawing.
    """
    chosen = [image for image in images if is_measured(image.labelled(metrics.score), convention)]
    if len(chosen) < 2:
        return metrics
    values = resampled(chosen, metrics.score, convention, resamples, seed)
    measured = values[~np.isnan(values).any(axis=1)]
    if not len(measured):
        return metrics
    low, high = np.percentile(measured, [50 * (1 - LEVEL), 50 * (1 + LEVEL)], axis=0).tolist()
    return replace(
        metrics,
        ap_low=low[0],
        ap_high=high[0],
        fpr95_low=low[1],
        fpr95_high=high[1],
        auroc_low=low[2],
        auroc_high=high[2],
    )


def resampled(
    images: Sequence[Totals], score: str, convention: Convention, resamples: int, seed: int = 0
) -> NDArray[np.float64]:
    """AP, FPR95 and AUROC of datasets drawn from the images: `(resamples, 3)`; nan where one lacks a class."""
    random = np.random.default_rng(seed)
    weights = random.multinomial(len(images), np.full(len(images), 1 / len(images)), resamples).astype(np.float64)
    if convention.pooling == "image":
        return _means(images, score, convention, weights)
    levels = all(within_unit(image, score) for image in images)
    counts = ImageCounts.of([seen(image, score, convention, levels=levels) for image in images])
    values = np.empty((resamples, 3))
    for start in range(0, resamples, 50):
        pooled = counts.pooled(weights[start : start + 50])
        values[start : start + 50] = [_three(ood, ind, convention) for ood, ind in zip(*pooled, strict=True)]
    return values


def _means(
    images: Sequence[Totals], score: str, convention: Convention, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    own = np.array([_three(*image.counts(score), convention) for image in images])
    if convention.weigh_pixels:
        weights = weights * [sum(image.labelled(score)) for image in images]
    return np.asarray(weights @ own / weights.sum(axis=1, keepdims=True))


def _three(ood: Weights, ind: Weights, convention: Convention) -> tuple[float, float, float]:
    measures = measure_curve(Curve.of(ood, ind), convention)
    return measures.ap, measures.fpr95, measures.auroc
