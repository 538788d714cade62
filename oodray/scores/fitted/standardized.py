"""Standardized max-logits: how low the maximum logit is among those of the class that is predicted.

    sml            -(m - mu_c) / sigma_c, of the predicted class c
    sml-smoothed   the same, its class boundaries filled in from the inside of classes, then smoothed

Jung et al., Standardized Max Logits, ICCV 2021 (arXiv 2107.11264), sections 3.2 and 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from oodray.scores.fitted.sums import Sums

FEWEST_PIXELS = 2
"""Of a class: the deviation of a single pixel is 0."""

BOUNDARY_WIDTHS = (4, 3, 2, 1)
"""Widths of the boundaries that are filled in, one after the other: published are 4 iterations from width 4 on."""

KERNEL, SIGMA, DILATION = 7, 1.0, 6
"""Of the Gaussian that smooths."""


@dataclass(frozen=True, eq=False)
class StandardizedParameters:
    """Mean and deviation of m by predicted class.

    Attributes:
        means: `(C,)` float64.
        deviations: `(C,)` float64, above 0.
        pooled: classes without statistics of their own, which have those of all pixels.
    """

    means: NDArray[np.float64]
    deviations: NDArray[np.float64]
    pooled: tuple[int, ...]


def fit_standardized(sums: Sums) -> StandardizedParameters:
    """Mean and deviation of m by class.

    A class with fewer than `FEWEST_PIXELS` pixels, or whose pixels have all one m, gets those of all pixels.

    Raises:
        ValueError: m is the same everywhere, or no pixel counts.
    """
    if not sums.m.deviation > 0:
        raise ValueError(f"the maximum logit has no deviation over {sums.m.count} pixels")
    counts = np.maximum(sums.pixels, 1)
    means = sums.m_sum / counts
    deviations = np.sqrt(np.maximum(sums.m_squares / counts - np.square(means), 0))
    # What rounding leaves of a deviation that is 0.
    smallest = 1e-6 * np.maximum(np.abs(means), sums.m.deviation)
    lacking = (sums.pixels < FEWEST_PIXELS) | (deviations <= smallest)
    return StandardizedParameters(
        means=np.where(lacking, sums.m.mean, means),
        deviations=np.where(lacking, sums.m.deviation, deviations),
        pooled=tuple(map(int, np.flatnonzero(lacking))),
    )


def standardized(m: Tensor, classes: Tensor, parameters: StandardizedParameters) -> Tensor:
    """The score `sml`.

    Args:
        m: maximum logit of pixels, floating, any shape.
        classes: predicted, integers of that shape.
        parameters: as fitted.

    >>> of_two = StandardizedParameters(np.array([4.0, 9.0]), np.array([2.0, 1.0]), ())
    >>> standardized(torch.tensor([2.0, 8.5]), torch.tensor([0, 1]), of_two).tolist()
    [1.0, 0.5]
    """
    means, deviations = (
        torch.from_numpy(values).to(m.device, m.dtype)[classes.long()]
        for values in (parameters.means, parameters.deviations)
    )
    return (means - m) / deviations


def smoothed(scores: Tensor, classes: Tensor) -> Tensor:
    """The score `sml-smoothed`, `(H, W)`, of `sml` and the predicted classes, `(H, W)` each."""
    return dilated_smoothing(suppress_boundaries(scores, classes))


def suppress_boundaries(scores: Tensor, classes: Tensor) -> Tensor:
    """Fill in class boundaries from the inside of classes, wide boundaries first.

    In each iteration a boundary pixel gets the mean of the pixels around it, 3 x 3, that are none. Where there is no
    such pixel it keeps its score.
    """
    for width in BOUNDARY_WIDTHS:
        inside = ~boundaries(classes, width)
        weights = inside.to(scores.dtype)
        around, inner = (_sum_3x3(values) for values in (torch.where(inside, scores, 0), weights))
        scores = torch.where(inside | (inner == 0), scores, around / inner.clamp(min=1))
    return scores


def boundaries(classes: Tensor, width: int) -> Tensor:
    """Pixels with one of another class at most `width` steps away, along rows and columns: `(H, W)` bool.

    >>> boundaries(torch.tensor([[0, 0, 0, 1]]), 2).tolist()
    [[False, True, True, True]]
    """
    found = torch.zeros_like(classes, dtype=torch.bool)
    for axis in (0, 1):
        size = classes.shape[axis]
        differs = classes.narrow(axis, 1, size - 1) != classes.narrow(axis, 0, size - 1)
        found.narrow(axis, 1, size - 1).logical_or_(differs)
        found.narrow(axis, 0, size - 1).logical_or_(differs)
    for _ in range(width - 1):
        found = _grown(found)
    return found


def dilated_smoothing(scores: Tensor) -> Tensor:
    """A Gaussian of `KERNEL` x `KERNEL` taps, `DILATION` pixels apart; the outermost pixels are repeated outwards."""
    offsets = torch.arange(KERNEL, dtype=torch.float64) - KERNEL // 2
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2))
    taps = (weights / weights.sum()).to(scores.device, scores.dtype)
    reach = KERNEL // 2 * DILATION
    padded = functional.pad(scores[None, None], (reach, reach, reach, reach), mode="replicate")
    down = functional.conv2d(padded, taps.view(1, 1, KERNEL, 1), dilation=DILATION)
    return functional.conv2d(down, taps.view(1, 1, 1, KERNEL), dilation=DILATION)[0, 0]


def _grown(pixels: Tensor) -> Tensor:
    """These pixels, and their neighbours along rows and columns."""
    grown = pixels.clone()
    for axis in (0, 1):
        size = pixels.shape[axis]
        grown.narrow(axis, 1, size - 1).logical_or_(pixels.narrow(axis, 0, size - 1))
        grown.narrow(axis, 0, size - 1).logical_or_(pixels.narrow(axis, 1, size - 1))
    return grown


def _sum_3x3(values: Tensor) -> Tensor:
    """The sum of a pixel and its eight neighbours; at the edge of the image the outermost pixels are repeated."""
    padded = functional.pad(values[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
