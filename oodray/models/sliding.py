"""Sliding-window inference: the windows of mmsegmentation's `slide` mode, for logits and features alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Forward = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Window:
    """A rectangle of the image, in pixels; the ends are exclusive."""

    top: int
    bottom: int
    left: int
    right: int


def windows(height: int, width: int, crop: tuple[int, int], stride: tuple[int, int]) -> Iterator[Window]:
    """The windows of mmsegmentation, row by row: the last ones are moved back inside the image.

    >>> [(w.top, w.bottom, w.left, w.right) for w in windows(4, 7, crop=(4, 4), stride=(4, 2))]
    [(0, 4, 0, 4), (0, 4, 2, 6), (0, 4, 3, 7)]
    """
    for top, bottom in _spans(height, crop[0], stride[0]):
        for left, right in _spans(width, crop[1], stride[1]):
            yield Window(top, bottom, left, right)


def slide(image: Tensor, forward: Forward, crop: tuple[int, int], stride: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Run `forward` on every window of `image` `(N, 3, H, W)` and average.

    `forward` maps a window to its logits, at the window's size, and its features, at any resolution.

    Returns:
        Logits `(N, C, H, W)` and features `(N, D, h', w')`, the latter at the resolution of the windows'.
    """
    height, width = image.shape[-2:]
    logits = features = weight = None
    count = image.new_zeros(1, 1, height, width)
    for window in windows(height, width, crop, stride):
        part, part_features = forward(image[..., window.top : window.bottom, window.left : window.right])
        if logits is None or features is None or weight is None:
            logits = part.new_zeros(*part.shape[:2], height, width)
            size = _canvas_size(window, part_features, height, width)
            features = part_features.new_zeros(*part_features.shape[:2], *size)
            weight = part_features.new_zeros(1, 1, *size)
        logits[..., window.top : window.bottom, window.left : window.right] += part
        count[..., window.top : window.bottom, window.left : window.right] += 1
        _add_features(features, weight, part_features, window, (height, width))
    if logits is None or features is None or weight is None:
        raise ValueError(f"an image of {height}x{width} pixels has no window")
    return logits / count, features / weight


def stitched(parts: Sequence[tuple[Window, Tensor]], height: int, width: int) -> Tensor:
    """Features of windows `(N, D, h, w)` as one map of an image, at their resolution; overlaps are averaged."""
    window, first = parts[0]
    size = _canvas_size(window, first, height, width)
    canvas, weight = first.new_zeros(*first.shape[:2], *size), first.new_zeros(1, 1, *size)
    for window, part in parts:
        _add_features(canvas, weight, part, window, (height, width))
    return canvas / weight


def _spans(size: int, crop: int, stride: int) -> Iterator[tuple[int, int]]:
    for index in range(max(size - crop + stride - 1, 0) // stride + 1):
        end = min(index * stride + crop, size)
        yield max(end - crop, 0), end


def _canvas_size(window: Window, features: Tensor, height: int, width: int) -> tuple[int, int]:
    rows = round(height * features.shape[-2] / (window.bottom - window.top))
    columns = round(width * features.shape[-1] / (window.right - window.left))
    return max(rows, 1), max(columns, 1)


def _add_features(canvas: Tensor, weight: Tensor, part: Tensor, window: Window, size: tuple[int, int]) -> None:
    """Add a window's features, bilinearly resampled, at the canvas positions whose centres lie inside it."""
    rows, y = _positions(canvas.shape[-2], size[0], window.top, window.bottom)
    columns, x = _positions(canvas.shape[-1], size[1], window.left, window.right)
    grid_y, grid_x = torch.meshgrid(y.to(part), x.to(part), indexing="ij")
    grid = torch.stack((grid_x, grid_y), dim=-1).expand(part.shape[0], -1, -1, -1)
    values = F.grid_sample(part, grid, mode="bilinear", padding_mode="border", align_corners=False)
    canvas[..., rows.start : rows.stop, columns.start : columns.stop] += values
    weight[..., rows.start : rows.stop, columns.start : columns.stop] += 1


def _positions(positions: int, size: int, start: int, end: int) -> tuple[range, Tensor]:
    """Positions on an axis whose centres lie in pixels `start..end`, and those centres as -1..1 of the window."""
    centres = (torch.arange(positions, dtype=torch.float64) + 0.5) * size / positions
    inside = torch.nonzero((centres >= start) & (centres < end)).flatten()
    if not len(inside):
        return range(0), centres[:0]
    relative = (centres[inside] - start) / (end - start)
    return range(int(inside[0]), int(inside[-1]) + 1), 2 * relative - 1
