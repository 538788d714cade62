"""How good a network is on what it was taught: IoU of its classes, and how far its probabilities can be trusted.

Everything follows from counts that add up over images: pixels by (in the mask, true class, predicted class), pixels and
sums by bin of confidence, and a sum of squares.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.metrics.tally import IGNORE

BINS = 15
"""Bins of confidence of equal width; confidence 1 has one of its own, as torchmetrics has it."""

_EDGES = np.linspace(0, 1, BINS + 1, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class ConfidenceTally:
    """The part of an `IdTally` that no mask is needed for; see there for its attributes."""

    pixels: NDArray[np.int64]
    correct: NDArray[np.int64]
    confidence: NDArray[np.float64]
    squares: float

    @classmethod
    def of(
        cls, confidence: NDArray[np.floating[Any]], right: NDArray[np.bool_], squares: NDArray[np.float64]
    ) -> ConfidenceTally:
        """The counts of in-distribution pixels, in lists: confidence, whether the class is right, and the square.

        >>> found = ConfidenceTally.of(np.array([0.9, 1.0]), np.array([True, False]), np.array([0.02, 2.0]))
        >>> found.pixels.tolist()[-3:], found.correct.tolist()[-3:], found.squares
        ([1, 0, 1], [1, 0, 0], 2.02)
        """
        bins = np.searchsorted(_EDGES, confidence, side="right") - 1
        return cls(
            np.bincount(bins, minlength=BINS + 1).astype(np.int64),
            np.bincount(bins[right], minlength=BINS + 1).astype(np.int64),
            np.bincount(bins, weights=confidence, minlength=BINS + 1).astype(np.float64),
            float(squares.sum()),
        )


def confusion_of(
    classes: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], mask: NDArray[np.bool_], count: int
) -> NDArray[np.int64]:
    """Pixels outside and inside a mask by true and predicted class, `(2, count + 1, count)`; see `IdTally`.

    Args:
        classes: `(H, W)`, 0..count-1 the true class, `count` an OoD pixel, 255 ignored.
        predicted: `(H, W)`, 0..count-1.
        mask: `(H, W)`, what is called OoD.
        count: of the classes.

    Raises:
        ValueError: a class is unknown.
    """
    labelled = classes != IGNORE
    known = classes[labelled].astype(np.int64)
    if known.size and not 0 <= known.min() <= known.max() <= count:
        raise ValueError(f"classes must lie within 0..{count}, or be {IGNORE}: {known.min()} to {known.max()}")
    cells = (mask[labelled] * (count + 1) + known) * count + predicted[labelled]
    return np.bincount(cells, minlength=2 * (count + 1) * count).reshape(2, count + 1, count)


@dataclass(frozen=True, eq=False)
class IdTally:
    """Counts of any number of images, for a network of C classes.

    Attributes:
        confusion: `(2, C + 1, C)` int64: pixels outside and inside the mask, by true class, of which the last is OoD,
            and by predicted class.
        pixels: `(BINS + 1,)` int64, in-distribution pixels by bin of confidence, the largest probability.
        correct: `(BINS + 1,)` int64, those among them whose class is right.
        confidence: `(BINS + 1,)` float64, the sum of their confidences.
        squares: the sum over in-distribution pixels and classes of (p - y)^2.
    """

    confusion: NDArray[np.int64]
    pixels: NDArray[np.int64]
    correct: NDArray[np.int64]
    confidence: NDArray[np.float64]
    squares: float

    @classmethod
    def of(
        cls, probabilities: NDArray[np.floating[Any]], classes: NDArray[np.integer[Any]], mask: NDArray[np.bool_]
    ) -> IdTally:
        """The counts of an image.

        Args:
            probabilities: `(C, H, W)`, the softmax.
            classes: `(H, W)`, 0..C-1 the true class, C an OoD pixel, 255 ignored.
            mask: `(H, W)`, what is called OoD.

        Raises:
            ValueError: shapes differ, or a class is unknown.

        >>> tally = IdTally.of(np.array([[[0.9, 0.2]], [[0.1, 0.8]]]), np.array([[0, 2]]), np.array([[False, True]]))
        >>> tally.confusion.tolist(), round(tally.squares, 3)
        ([[[1, 0], [0, 0], [0, 0]], [[0, 0], [0, 0], [0, 1]]], 0.02)
        """
        if probabilities.shape[1:] != classes.shape or mask.shape != classes.shape:
            raise ValueError(f"shapes differ: {probabilities.shape}, {classes.shape}, {mask.shape}")
        predicted = probabilities.argmax(axis=0)
        confusion = confusion_of(classes, predicted, mask, len(probabilities))
        inside = (classes >= 0) & (classes < len(probabilities))
        shares, known = probabilities[:, inside], classes[inside].astype(np.int64)
        pixel = np.arange(len(known))
        # The sum of (p - y)^2 over classes, of which one has y = 1.
        squares = np.square(shares, dtype=np.float64).sum(axis=0) + 1 - 2 * shares[known, pixel].astype(np.float64)
        found = ConfidenceTally.of(shares[predicted[inside], pixel], predicted[inside] == known, squares)
        return cls.joined(confusion, found)

    @classmethod
    def joined(cls, confusion: NDArray[np.int64], found: ConfidenceTally) -> IdTally:
        """The counts of an image from their two parts."""
        return cls(confusion, found.pixels, found.correct, found.confidence, found.squares)

    @staticmethod
    def sum(tallies: Iterable[IdTally]) -> IdTally:
        """All counts as one.

        Raises:
            ValueError: there are none.
        """
        parts = list(tallies)
        if not parts:
            raise ValueError("the sum of no counts has no number of classes")
        if len({part.confusion.shape for part in parts}) > 1:
            raise ValueError("counts of networks with other numbers of classes do not add up")
        columns: list[Any] = [
            np.sum([getattr(part, name) for part in parts], axis=0)
            for name in ("confusion", "pixels", "correct", "confidence")
        ]
        confusion, pixels, correct, confidence = columns
        return IdTally(
            confusion,
            pixels,
            correct,
            confidence,
            math.fsum(part.squares for part in parts),
        )


@dataclass(frozen=True)
class IdQuality:
    """What a network is worth on in-distribution pixels, as fractions; nan where there is no pixel.

    Attributes:
        iou: of each class; nan where it is neither true nor predicted anywhere.
        miou: their mean, absent classes left out.
        miou_kept: the same on the pixels that the mask keeps.
        open_iou: the same where the mask is a class of its own, OoD pixels are its truth, and it does not count itself:
            what a false alarm takes from a class is lost, what is found of OoD is not held against one (ISSU).
        ece: expected calibration error of the confidence.
        brier: mean over pixels of the sum over classes of (p - y)^2.
        pixels: in-distribution pixels that have a class.
    """

    iou: tuple[float, ...]
    miou: float
    miou_kept: float
    open_iou: float
    ece: float
    brier: float
    pixels: int = 0


def id_quality(tally: IdTally) -> IdQuality:
    """The quality that counts tell.

    >>> tally = IdTally.of(np.array([[[0.9, 0.2]], [[0.1, 0.8]]]), np.array([[0, 1]]), np.zeros((1, 2), bool))
    >>> quality = id_quality(tally)
    >>> quality.miou, round(quality.ece, 3), round(quality.brier, 3)
    (1.0, 0.15, 0.05)
    """
    outside, inside = tally.confusion
    iou = _iou((outside + inside)[:-1])
    kept = _iou(outside[:-1])
    total = int(tally.pixels.sum())
    gaps = np.abs(tally.correct - tally.confidence)
    return IdQuality(
        iou=tuple(iou.tolist()),
        miou=_mean(iou),
        miou_kept=_mean(kept),
        open_iou=_mean(_open_iou(tally.confusion)),
        ece=float(gaps.sum() / total) if total else math.nan,
        brier=tally.squares / total if total else math.nan,
        pixels=total,
    )


def _iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU by class of pixels by (true class, predicted class)."""
    hit = np.diagonal(confusion)
    return _shares(hit, confusion.sum(axis=0) + confusion.sum(axis=1) - hit)


def _open_iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU by class where pixels inside the mask are predicted to be of none of them."""
    outside, inside = confusion
    hit = np.diagonal(outside[:-1])
    true = (outside + inside)[:-1].sum(axis=1)
    return _shares(hit, true + outside.sum(axis=0) - hit)


def _shares(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    shares = np.full(len(part), math.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def _mean(values: NDArray[np.float64]) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else math.nan
