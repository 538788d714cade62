"""Scores from logits: how unlike anything known each pixel of the image looks (paper, section 3.4, and controls).

Logits are brought to the size of the image in one bilinear step, in horizontal strips so that 150 classes of a large
image never lie in memory at once. Every sum over classes is taken in the order of the classes, so the height of the
strips does not show in a single bit of the result.

With z the logits of a pixel, m = max z and p = softmax(z), higher is more out of distribution:

    max-logit   -m
    msp         the probabilities of all classes but the likeliest, summed: 1 - max p without its loss of digits
    entropy     -sum p log p, with 0 log 0 = 0
    energy      -log sum exp z

`ratio` (eq. 3) and `mask-then-logit` rank pixels by their cluster: they follow from the tallies of the clusters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodray.errors import ImageError

PIXEL_SCORES = ("max-logit", "msp", "entropy", "energy")
SCORES = ("ratio", "mask-then-logit", *PIXEL_SCORES)

STRIP_BYTES = 64 * 2**20

# exp of it is 0 in float64 too, and 0 times it is 0 where 0 times -inf would be NaN.
_NO_WEIGHT = -1000.0


@torch.no_grad()
def pixel_scores(
    logits: Tensor, height: int, width: int, names: Sequence[str]
) -> dict[str, NDArray[np.float16]]:
    """Confidence and scores of every pixel of the image.

    Args:
        logits: `(C, h, w)`, any floating type, on any device; computed in float32, float64 for float64.
        height: of the image, in pixels.
        width: of the image, in pixels.
        names: which of `PIXEL_SCORES`.

    Returns:
        `(height, width)` float16 for "confidence" (eq. 1) and for each name; zeros are +0.

    Raises:
        ImageError: a value is NaN, or infinite once rounded to float16.
        ValueError: an argument is out of range.

    >>> maps = pixel_scores(torch.tensor([[[2.0]], [[0.0]]]), 1, 2, ["max-logit"])
    >>> maps["confidence"].tolist(), maps["max-logit"].tolist()
    ([[2.0, 2.0]], [[-2.0, -2.0]])
    """
    _check_arguments(logits, height, width, names)
    strips = [_strip_scores(strip, names) for strip in _strips(logits, height, width)]
    maps = {name: torch.cat([strip[name] for strip in strips]).cpu().numpy() for name in strips[0]}
    for name, values in maps.items():
        _require_finite(name, values)
    return maps


def confidence(logits: Tensor) -> Tensor:
    """m(x) = max_c z_c of eq. 1, `(H, W)` float16, of logits `(C, H, W)` at the size of the image; zeros are +0."""
    return _rounded(logits.amax(0))


def _check_arguments(logits: Tensor, height: int, width: int, names: Sequence[str]) -> None:
    if logits.ndim != 3 or not logits.numel() or not logits.is_floating_point():
        raise ValueError(f"logits must be (C, h, w) of a floating type, not {logits.dtype} {tuple(logits.shape)}")
    if height < 1 or width < 1:
        raise ValueError(f"the image must have a pixel, not {height} x {width}")
    unknown = [name for name in names if name not in PIXEL_SCORES]
    if unknown:
        raise ValueError(f"unknown pixel scores {unknown}; known: {', '.join(PIXEL_SCORES)}")


def _require_finite(name: str, values: NDArray[np.float16]) -> None:
    if np.isfinite(values).all():
        return
    raise ImageError(
        f"{name} is NaN at {np.isnan(values).sum()} and infinite at {np.isinf(values).sum()} of {values.size} pixels "
        "(in float16, beyond 65504 is infinite): run the network in float32, and check the image and the "
        "checkpoint if that does not help"
    )


def _strips(logits: Tensor, height: int, width: int) -> Iterator[Tensor]:
    """Logits at the size of the image, `(C, rows, width)` at a time: bilinear as in torch, `align_corners=False`."""
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    resized = logits.shape[1:] != (height, width)
    low, high, weight = _taps(logits.shape[1], height, dtype, logits.device)
    across = _taps(logits.shape[2], width, dtype, logits.device)
    rows = max(1, STRIP_BYTES // (len(logits) * width * dtype.itemsize))
    for top in range(0, height, rows):
        strip = slice(top, top + rows)
        first, last = int(low[strip][0]), int(high[strip][-1])
        source = logits[:, first : last + 1].to(dtype)
        if resized:
            # Across first: there are fewer source rows than rows of the strip.
            source = _lerp(source, 2, *across)
            source = _lerp(source, 1, low[strip] - first, high[strip] - first, weight[strip, None])
        yield source


def _taps(old: int, new: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `new` positions along an axis: the two of `old` that it lies between, and the weight of the second.

    Position i is at (i + 1/2) old / new - 1/2, here as a fraction over 2 new, in integers.
    """
    position = ((2 * torch.arange(new) + 1) * old - new).clamp_(min=0)
    low = position // (2 * new)
    weight = (position % (2 * new)).double() / (2 * new)
    return low.to(device), (low + 1).clamp_(max=old - 1).to(device), weight.to(device, dtype)


def _lerp(planes: Tensor, axis: int, low: Tensor, high: Tensor, weight: Tensor) -> Tensor:
    # Three roundings of its own, unlike torch.lerp, whose bits depend on where a number lies in its vector register.
    start = planes.index_select(axis, low)
    return planes.index_select(axis, high).sub_(start).mul_(weight).add_(start)


def _strip_scores(logits: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Float16 maps `(rows, W)` of logits `(C, rows, W)`."""
    scores = {"confidence": confidence(logits)}
    if "max-logit" in names:
        scores["max-logit"] = 0.0 - scores["confidence"]
    if set(names) - {"max-logit"}:
        scores |= {name: _rounded(values) for name, values in _softmax_scores(logits, names).items()}
    return scores


def _softmax_scores(logits: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    peak, winner = logits.max(0)
    shifted = (logits - peak).clamp_(min=_NO_WEIGHT)
    # exp(z - m) of all but the winner: its own is 1, added last, so that the small ones keep their digits.
    weights = shifted.exp().scatter_(0, winner[None], 0.0)
    others = _sum_classes(weights)
    scores = {}
    if "msp" in names:
        scores["msp"] = others / (1 + others)
    if "entropy" in names:
        scores["entropy"] = others.log1p() - _sum_classes(weights.mul_(shifted)) / (1 + others)
    if "energy" in names:
        scores["energy"] = -(peak + others.log1p())
    return scores


def _sum_classes(planes: Tensor) -> Tensor:
    """Sum over classes in their order; torch.sum may choose another order for another shape."""
    total = planes[0].clone()
    for plane in planes[1:]:
        total += plane
    return total


def _rounded(values: Tensor) -> Tensor:
    return values.half() + 0.0  # makes -0 a +0
