"""Logits brought to the size of the image, a strip of rows at a time, and what scores need of them.

They are brought there in one bilinear step, in horizontal strips, so that 150 classes of a large image never lie in
memory at once. The height of the strips shows in no bit of the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from oodray.scores.score import FeatureScore

# On a CPU small strips stay in its caches, which is twice as fast; on a GPU large ones launch fewer kernels.
CPU_STRIP_BYTES = 8 * 2**20
STRIP_BYTES = 64 * 2**20

# exp of it is 0 in float64 too, and 0 times it is 0 where 0 times -inf would be NaN.
_NO_WEIGHT = -1000.0


class Strip:
    """Some rows of an image, at its full width. What follows from the logits is computed once, when it is asked for.

    Args:
        logits: `(C, rows, width)`, float32, or float64 where the segmenter's are.
        planes: the planes of scores of features there, `(p, rows, width)` each.

    >>> strip = Strip(torch.tensor([[[2.0]], [[0.0]]]), {})
    >>> strip.confidence.tolist(), strip.classes.tolist(), round(strip.lse.item(), 3)
    ([[2.0]], [[0]], 2.127)
    """

    def __init__(self, logits: Tensor, planes: Mapping[FeatureScore, Tensor]) -> None:
        self.logits = logits
        self._planes = planes

    def planes_of(self, score: FeatureScore) -> Tensor:
        """The part of a score that was computed on the grid of the features, here: `(p, rows, width)`."""
        return self._planes[score]

    @cached_property
    def confidence(self) -> Tensor:
        """m = max z (eq. 1), not rounded: `(rows, width)`, as all that follows."""
        return self.logits.amax(0)

    @cached_property
    def classes(self) -> Tensor:
        """The likeliest class, the first of equal ones; int16."""
        return self.logits.argmax(0).short()

    @cached_property
    def others(self) -> Tensor:
        """The weights exp(z - m) of all classes but the likeliest, summed: the odds of it being another one."""
        # The likeliest class weighs exactly 1; taken off a float64 sum, it leaves every digit that float32 holds.
        return (sum_classes(self._shifted.exp()) - 1).to(self.logits.dtype)

    @cached_property
    def lse(self) -> Tensor:
        """log sum exp z."""
        return self.confidence + self.others.log1p()

    @cached_property
    def mean_shift(self) -> Tensor:
        """sum p (z - m): by how much logits lie below the largest, on average."""
        weighted = self._shifted.exp().mul_(self._shifted)
        return sum_classes(weighted).to(self.logits.dtype) / (1 + self.others)

    @cached_property
    def _shifted(self) -> Tensor:
        return (self.logits - self.confidence).clamp_(min=_NO_WEIGHT)


def strips(
    logits: Tensor, height: int, width: int, planes: Mapping[FeatureScore, Tensor] | None = None
) -> Iterator[Strip]:
    """The image, some rows at a time.

    Args:
        logits: `(C, h, w)`, any floating type, on any device; computed in float32, float64 for float64.
        height: of the image, in pixels.
        width: of the image, in pixels.
        planes: of scores of features, `(p, h', w')` each, on the same device.
    """
    given = planes or {}
    for top, strip in _logits_in_strips(logits, height, width):
        rows = slice(top, top + strip.shape[1])
        yield Strip(strip, {score: at_image_size(plane, height, width, rows) for score, plane in given.items()})


def at_image_size(planes: Tensor, height: int, width: int, rows: slice) -> Tensor:
    """Some rows of planes `(p, h, w)` at image size: bilinear as in torch with `align_corners=False`, in float32.

    >>> at_image_size(torch.tensor([[[0.0, 4.0]]]), 1, 4, slice(0, 1)).tolist()
    [[[0.0, 1.0, 3.0, 4.0]]]
    """
    dtype = torch.float64 if planes.dtype == torch.float64 else torch.float32
    if planes.shape[1:] == (height, width):
        return planes[:, rows].to(dtype)
    low, high, weight = (taps[rows] for taps in _taps(planes.shape[1], height, dtype, planes.device))
    first, last = int(low[0]), int(high[-1])
    # Across first: there are fewer source rows than rows of the strip.
    source = _lerp(planes[:, first : last + 1].to(dtype), 2, *_taps(planes.shape[2], width, dtype, planes.device))
    return _lerp(source, 1, low - first, high - first, weight[:, None])


def _logits_in_strips(logits: Tensor, height: int, width: int) -> Iterator[tuple[int, Tensor]]:
    """The top row of each strip, and the logits there, `(C, rows, width)`."""
    strip_bytes = CPU_STRIP_BYTES if logits.device.type == "cpu" else STRIP_BYTES
    item_bytes = 8 if logits.dtype == torch.float64 else 4
    rows = max(1, strip_bytes // (len(logits) * width * item_bytes))
    for top in range(0, height, rows):
        yield top, at_image_size(logits, height, width, slice(top, top + rows))


def _taps(old: int, new: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `new` positions along an axis, the two of `old` around it, and the weight of the second.

    Position i lies at (i + 1/2) old / new - 1/2, here a fraction over 2 new, in integers.
    """
    position = ((2 * torch.arange(new) + 1) * old - new).clamp_(min=0)
    low = position // (2 * new)
    weight = (position % (2 * new)).double() / (2 * new)
    return low.to(device), (low + 1).clamp_(max=old - 1).to(device), weight.to(device, dtype)


def _lerp(planes: Tensor, axis: int, low: Tensor, high: Tensor, weight: Tensor) -> Tensor:
    # One operation at a time, each correctly rounded: torch.lerp may fuse two of them for some pixels only.
    start = planes.index_select(axis, low)
    return planes.index_select(axis, high).sub_(start).mul_(weight).add_(start)


def sum_classes(planes: Tensor) -> Tensor:
    """Float64 sum over classes in their order; torch.sum may choose another order for another shape."""
    total = planes[0].to(torch.float64, copy=True)
    for plane in planes[1:]:
        total += plane
    return total
