"""Logits brought to the size of the image, a strip of rows at a time, and what scores need of them.

They are brought there in one bilinear step, in horizontal strips, so that 150 classes of a large image never lie in
memory at once. The height of the strips shows in no bit of the result, where the logits are those of a network; a
semantic map is made by a product of matrices for each strip, and its height follows from the sizes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from oodray.scores.queries import Queries
    from oodray.scores.score import FeatureScore, PixelScore, QueryMapScore

# On a CPU small strips stay in its caches, which is twice as fast; on a GPU large ones launch fewer kernels.
CPU_STRIP_BYTES = 8 * 2**20
STRIP_BYTES = 64 * 2**20

# exp of it is 0 in float64 too, and 0 times it is 0 where 0 times -inf would be NaN.
_NO_WEIGHT = -1000.0


class Strip:
    """Some rows of an image, at its full width. What follows from the logits is computed once, when it is asked for.

    Args:
        logits: `(C, rows, width)`, float32, or float64 where the segmenter's are.
        planes: the planes of scores of features or queries there, `(p, rows, width)` each.

    >>> strip = Strip(torch.tensor([[[2.0]], [[0.0]]]), {})
    >>> strip.confidence.tolist(), strip.classes.tolist(), round(strip.lse.item(), 3)
    ([[2.0]], [[0]], 2.127)
    """

    def __init__(self, logits: Tensor, planes: Mapping[PixelScore, Tensor]) -> None:
        self.logits = logits
        self._planes = planes

    def planes_of(self, score: PixelScore) -> Tensor:
        """The part of a score that was computed of features or queries, here: `(p, rows, width)`."""
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
    def log_weights(self) -> Tensor:
        """The logarithms of what probabilities are in proportion to: the logits."""
        return self.logits

    @cached_property
    def log_total(self) -> Tensor:
        """The logarithm of the sum of those weights."""
        return self.lse

    @cached_property
    def mean_shift(self) -> Tensor:
        """sum p (z - m): by how much logits lie below the largest, on average."""
        weighted = self._shifted.exp().mul_(self._shifted)
        return sum_classes(weighted).to(self.logits.dtype) / (1 + self.others)

    @cached_property
    def _shifted(self) -> Tensor:
        return (self.log_weights - self.log_weights.amax(0)).clamp_(min=_NO_WEIGHT)


class SemanticStrip(Strip):
    """Some rows of the semantic map L of a mask classifier. Probabilities are L / sum L, 1/C where that sum is 0.

    >>> strip = SemanticStrip(torch.tensor([[[0.75, 0.0]], [[0.25, 0.0]]]), {})
    >>> strip.others.tolist(), round(strip.lse[0, 0].item(), 3)
    ([[0.3333333432674408, 1.0]], 1.224)
    """

    @cached_property
    def others(self) -> Tensor:
        """The L of all classes but the likeliest, summed, over that of the likeliest: the odds."""
        largest = self.confidence.double()
        odds = (sum_classes(self.logits) - largest) / largest
        return odds.where(largest > 0, len(self.logits) - 1).to(self.logits.dtype)

    @cached_property
    def lse(self) -> Tensor:
        """log sum exp L."""
        return self.confidence + sum_classes((self.logits - self.confidence).exp()).log().to(self.logits.dtype)

    @cached_property
    def log_weights(self) -> Tensor:
        """log L, of equal size where all are 0."""
        return self.logits.where(self.confidence > 0, 1.0).log()

    @cached_property
    def log_total(self) -> Tensor:
        """The logarithm of the sum of the weights."""
        return self.log_weights.amax(0) + self.others.log1p()


def strips(
    logits: Tensor | Queries,
    height: int,
    width: int,
    planes: Mapping[FeatureScore, Tensor] | None = None,
    of_queries: Sequence[QueryMapScore] = (),
) -> Iterator[Strip]:
    """The image, some rows at a time.

    Args:
        logits: `(C, h, w)`, any floating type, on any device; computed in float32, float64 for float64. Or queries,
            whose semantic map takes the place of the logits.
        height: of the image, in pixels.
        width: of the image, in pixels.
        planes: of scores of features, `(p, h', w')` each, on the same device.
        of_queries: scores of queries, for those alone.
    """
    given = planes or {}
    count = len(logits) if isinstance(logits, Tensor) else logits.planes
    for rows in _row_slices(count, height, width, logits.dtype, logits.device):
        of_features: dict[PixelScore, Tensor] = {
            score: at_image_size(plane, height, width, rows) for score, plane in given.items()
        }
        if isinstance(logits, Tensor):
            yield Strip(at_image_size(logits, height, width, rows), of_features)
        else:
            semantic, maps = logits.rows(height, width, rows, of_queries)
            found: dict[PixelScore, Tensor] = {score: map_[None] for score, map_ in zip(of_queries, maps, strict=True)}
            yield SemanticStrip(semantic, of_features | found)


def at_image_size(planes: Tensor, height: int, width: int, rows: slice) -> Tensor:
    """Some rows of planes `(p, h, w)` at image size: bilinear as in torch with `align_corners=False`, in float32.

    >>> at_image_size(torch.tensor([[[0.0, 4.0]]]), 1, 4, slice(0, 1)).tolist()
    [[[0.0, 1.0, 3.0, 4.0]]]
    """
    dtype = torch.float64 if planes.dtype == torch.float64 else torch.float32
    size = planes.shape[1], planes.shape[2]
    return rows_at_image_size(lambda first, end: planes[:, first:end].to(dtype), size, (height, width), rows)


def rows_at_image_size(
    read: Callable[[int, int], Tensor], size: tuple[int, int], image: tuple[int, int], rows: slice
) -> Tensor:
    """As `at_image_size`, of planes of which only the rows that are needed are made.

    Args:
        read: gives rows of the planes, `(p, end - first, w)`, from their first to their end.
        size: height and width of the planes.
        image: height and width of the image.
        rows: of the image.
    """
    (height, width), (image_height, image_width) = size, image
    if size == image:
        first, end, _ = rows.indices(image_height)
        return read(first, end)
    low, high, weight = (taps[rows] for taps in taps(height, image_height))
    first, last = int(low[0]), int(high[-1])
    # Across first: there are fewer source rows than rows of the strip.
    source = _lerp(read(first, last + 1), 2, *taps(width, image_width))
    return _lerp(source, 1, low - first, high - first, weight)


def _row_slices(planes: int, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Iterator[slice]:
    strip_bytes = CPU_STRIP_BYTES if device.type == "cpu" else STRIP_BYTES
    item_bytes = 8 if dtype == torch.float64 else 4
    rows = max(1, strip_bytes // (planes * width * item_bytes))
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def taps(old: int, new: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `new` positions along an axis, the two of `old` around it, and the weight of the second, float64.

    Position i lies at (i + 1/2) old / new - 1/2, here a fraction over 2 new, in integers.
    """
    position = ((2 * torch.arange(new) + 1) * old - new).clamp_(min=0)
    low = position // (2 * new)
    weight = (position % (2 * new)).double() / (2 * new)
    return low, (low + 1).clamp_(max=old - 1), weight


def _lerp(planes: Tensor, axis: int, low: Tensor, high: Tensor, weight: Tensor) -> Tensor:
    # One operation at a time, each correctly rounded: torch.lerp may fuse two of them for some pixels only.
    start = planes.index_select(axis, low.to(planes.device))
    along = weight.to(planes) if axis == 2 else weight.to(planes)[:, None]
    return planes.index_select(axis, high.to(planes.device)).sub_(start).mul_(along).add_(start)


def sum_classes(planes: Tensor) -> Tensor:
    """Float64 sum over classes in their order; torch.sum may choose another order for another shape."""
    total = planes[0].to(torch.float64, copy=True)
    for plane in planes[1:]:
        total += plane
    return total
