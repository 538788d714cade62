"""Scores from logits: how unlike anything known each pixel of the image looks (section 3.4, and controls).

Logits are brought to the size of the image in one bilinear step, in horizontal strips, so that 150 classes of
a large image never lie in memory at once. The height of the strips shows in no bit of the result.

With z the logits of a pixel, m = max z and p = softmax(z), higher is more out of distribution:

    max-logit   -m
    msp         1 - max p, as the sum of the other classes' probabilities: near 0 the difference has no digits
    entropy     -sum p log p, with 0 log 0 = 0
    energy      -log sum exp z

`ratio` (eq. 3) and `mask-then-logit` rank a pixel by its cluster; they come from the tallies of the clusters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodray.errors import ImageError
from oodray.method.settings import PIXEL_SCORES

# On a CPU small strips stay in its caches, which is twice as fast; on a GPU large ones launch fewer kernels.
CPU_STRIP_BYTES = 8 * 2**20
STRIP_BYTES = 64 * 2**20

# exp of it is 0 in float64 too, and 0 times it is 0 where 0 times -inf would be NaN.
_NO_WEIGHT = -1000.0


@torch.no_grad()
def pixel_scores(logits: Tensor, height: int, width: int, names: Sequence[str]) -> dict[str, NDArray[np.float16]]:
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


@torch.no_grad()
def predicted_classes(logits: Tensor, height: int, width: int) -> NDArray[np.int16]:
    """The likeliest class of every pixel of the image, the first of equal ones.

    Args:
        logits: `(C, h, w)`, as of `pixel_scores`.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        `(height, width)` int16.

    >>> predicted_classes(torch.tensor([[[2.0, -1.0]], [[0.0, 3.0]]]), 1, 2).tolist()
    [[0, 1]]
    """
    _check_arguments(logits, height, width, ())
    return torch.cat([strip.argmax(0).short() for strip in _strips(logits, height, width)]).cpu().numpy()


def confidence(logits: Tensor) -> Tensor:
    """Confidence m = max z (eq. 1), `(H, W)` float16, of logits `(C, H, W)` at image size; zeros are +0."""
    return _rounded(logits.amax(0))


def _check_arguments(logits: Tensor, height: int, width: int, names: Sequence[str]) -> None:
    if logits.ndim != 3 or not logits.numel() or not logits.is_floating_point():
        raise ValueError(f"logits must be floats (C, h, w), not {logits.dtype} {tuple(logits.shape)}")
    if height < 1 or width < 1:
        raise ValueError(f"the image must have a pixel, not {height} x {width}")
    unknown = [name for name in names if name not in PIXEL_SCORES]
    if unknown:
        raise ValueError(f"unknown pixel scores {unknown}; known: {', '.join(PIXEL_SCORES)}")


def _require_finite(name: str, values: NDArray[np.float16]) -> None:
    if np.isfinite(values).all():
        return
    raise ImageError(
        f"{name} is NaN at {np.isnan(values).sum()} and infinite at {np.isinf(values).sum()} "
        f"of {values.size} pixels (in float16, beyond 65504 is infinite): run the network in float32, "
        "and check the image and the checkpoint if that does not help"
    )


def _strips(logits: Tensor, height: int, width: int) -> Iterator[Tensor]:
    """Logits at image size, `(C, rows, width)` at a time: bilinear as in torch with `align_corners=False`."""
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    resized = logits.shape[1:] != (height, width)
    low, high, weight = _taps(logits.shape[1], height, dtype, logits.device)
    across = _taps(logits.shape[2], width, dtype, logits.device)
    strip_bytes = CPU_STRIP_BYTES if logits.device.type == "cpu" else STRIP_BYTES
    rows = max(1, strip_bytes // (len(logits) * width * dtype.itemsize))
    for top in range(0, height, rows):
        strip = slice(top, top + rows)
        if not resized:
            yield logits[:, strip].to(dtype)
            continue
        first, last = int(low[strip][0]), int(high[strip][-1])
        # Across first: there are fewer source rows than rows of the strip.
        source = _lerp(logits[:, first : last + 1].to(dtype), 2, *across)
        yield _lerp(source, 1, low[strip] - first, high[strip] - first, weight[strip, None])


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


def _strip_scores(logits: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Float16 maps `(rows, W)` of logits `(C, rows, W)`."""
    scores = {"confidence": confidence(logits)}
    if "max-logit" in names:
        scores["max-logit"] = 0.0 - scores["confidence"]
    if set(names) - {"max-logit"}:
        scores |= {name: _rounded(values) for name, values in _softmax_scores(logits, names).items()}
    return scores


def _softmax_scores(logits: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    peak = logits.amax(0)
    shifted = (logits - peak).clamp_(min=_NO_WEIGHT)
    weights = shifted.exp()
    # The likeliest class weighs exactly 1; taken off a float64 sum, it leaves more digits than float16 holds.
    others = (_sum_classes(weights) - 1).to(logits.dtype)
    scores = {}
    if "msp" in names:
        scores["msp"] = others / (1 + others)
    if "entropy" in names:
        mean_shift = _sum_classes(weights.mul_(shifted)).to(logits.dtype) / (1 + others)
        scores["entropy"] = others.log1p() - mean_shift
    if "energy" in names:
        scores["energy"] = -(peak + others.log1p())
    return scores


def _sum_classes(planes: Tensor) -> Tensor:
    """Float64 sum over classes in their order; torch.sum may choose another order for another shape."""
    total = planes[0].to(torch.float64, copy=True)
    for plane in planes[1:]:
        total += plane
    return total


def _rounded(values: Tensor) -> Tensor:
    """To float16, rounded once, with -0 made +0."""
    if values.dtype == torch.float64:  # which torch would round to float32 first
        with np.errstate(over="ignore"):
            values = torch.from_numpy(values.cpu().numpy().astype(np.float16))
    return values.half() + 0.0
