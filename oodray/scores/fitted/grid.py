"""What a network said of an image, at its own size and at the positions of its feature grid: the input of a fit."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodray.scores.fitted.sums import NO_CLASS, LogitMaps, Positions
from oodray.scores.queries import Queries
from oodray.scores.strips import strips

Scalar = TypeVar("Scalar", bound=np.generic)


@torch.no_grad()
def positions_of(
    features: Tensor,
    logits: Tensor,
    *,
    counts: NDArray[np.bool_] | None = None,
    true_classes: NDArray[np.int16] | None = None,
    head_inputs: Tensor | None = None,
) -> Positions:
    """The positions of a feature grid.

    Args:
        features: `(D, h, w)`.
        logits: `(C, h', w')` that cover the image, too. They are brought to the grid in one bilinear step.
        counts: whether a pixel counts, `(H, W)`; None counts all.
        true_classes: of every pixel, `(H, W)`, `NO_CLASS` where it does not count; None takes the likeliest class.
        head_inputs: `(D', h'', w'')`, brought to the grid in the same way.

    >>> features, logits = torch.arange(4.0).view(1, 2, 2), torch.tensor([[[1.0]], [[3.0]]])
    >>> found = positions_of(features, logits)
    >>> found.features.tolist(), found.classes.tolist(), found.m.tolist()
    ([[0.0], [1.0], [2.0], [3.0]], [1, 1, 1, 1], [3.0, 3.0, 3.0, 3.0])
    """
    height, width = features.shape[1:]
    there = _resized(logits, height, width)
    classes: NDArray[np.int16] = there.argmax(0).short().cpu().numpy()
    if true_classes is not None:
        classes = at_centres(true_classes, height, width)
    if counts is not None:
        classes = np.where(at_centres(counts, height, width), classes, np.int16(NO_CLASS))
    return Positions(
        features=rows_of(features),
        m=there.amax(0).flatten().cpu().numpy(),
        lse=there.logsumexp(0).flatten().cpu().numpy(),
        classes=classes.ravel(),
        head_inputs=None if head_inputs is None else rows_of(_resized(head_inputs, height, width)),
    )


@torch.no_grad()
def logit_maps(
    logits: Tensor | Queries,
    height: int,
    width: int,
    *,
    counts: NDArray[np.bool_] | None = None,
    true_classes: NDArray[np.int16] | None = None,
) -> LogitMaps:
    """What is summed at the size of the image, as scores of pixels see it; see `positions_of` for the arguments.

    Of a mask classifier `logits` are its queries.

    >>> maps = logit_maps(torch.tensor([[[2.0]], [[0.0]]]), 1, 2, counts=np.array([[True, False]]))
    >>> maps.m.tolist(), maps.classes.tolist()
    ([[2.0, 2.0]], [[0, -1]])
    """
    found = [(strip.confidence, strip.lse, strip.classes) for strip in strips(logits, height, width)]
    m, lse, predicted = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
    classes: NDArray[np.int16] = predicted.numpy() if true_classes is None else true_classes
    if counts is not None:
        classes = np.where(counts, classes, np.int16(NO_CLASS))
    return LogitMaps(m.float().numpy(), lse.float().numpy(), classes)


def rows_of(maps: Tensor) -> Tensor:
    """The vector of each position, `(h * w, D)` float32, of `(D, h, w)`."""
    return maps.float().flatten(1).T.contiguous()


def at_centres(values: NDArray[Scalar], height: int, width: int) -> NDArray[Scalar]:
    """Of `(H, W)` pixels those at the centres of a grid's positions, `(height, width)`; between two, the later one.

    >>> at_centres(np.arange(8).reshape(2, 4), 1, 2).tolist()
    [[5, 7]]
    """
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(values.shape, (height, width), strict=True)
    )
    return values[np.ix_(rows, columns)]


def _resized(maps: Tensor, height: int, width: int) -> Tensor:
    if maps.shape[1:] == (height, width):
        return maps.float()
    return torch.nn.functional.interpolate(
        maps[None].float(), size=(height, width), mode="bilinear", align_corners=False
    )[0]
