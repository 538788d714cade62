"""False alarms and misses of an image as connected regions, largest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oodray.metrics.tally import IN_DISTRIBUTION, OOD
from oodray.report.page.pictures import thumbnail

Kind = Literal["false alarm", "miss"]

PER_IMAGE = 3
"""Regions of each kind that an image may contribute: one bad image does not fill the list."""

_MARGIN = 0.35  # around a region, in sides of its box
_LEAST_SIDE = 96


@dataclass(frozen=True, eq=False)
class Region:
    """A connected region that was judged wrongly.

    Attributes:
        image_id: the image.
        kind: `"false alarm"`: in-distribution pixels in the mask; `"miss"`: OoD pixels outside.
        pixels: how many.
        share: of the image.
        picture: WebP of it and of what is around it, with its outline.
    """

    image_id: str
    kind: Kind
    pixels: int
    share: float
    picture: bytes


def wrong_regions(
    image_id: str, image: NDArray[np.uint8], mask: NDArray[np.uint8], label: NDArray[np.uint8]
) -> list[Region]:
    """The largest false alarms and misses of an image, at most `PER_IMAGE` of each kind.

    Args:
        image_id: the image.
        image: RGB, uint8 `(H, W, 3)`.
        mask: uint8 `(H, W)`, 255 where OoD.
        label: uint8 `(H, W)`.
    """
    kinds: tuple[tuple[Kind, NDArray[np.bool_]], ...] = (
        ("false alarm", (mask > 0) & (label == IN_DISTRIBUTION)),
        ("miss", (mask == 0) & (label == OOD)),
    )
    return [region for kind, wrong in kinds for region in _largest(image_id, image, kind, wrong)]


def _largest(image_id: str, image: NDArray[np.uint8], kind: Kind, wrong: NDArray[np.bool_]) -> list[Region]:
    from scipy import ndimage

    numbered, count = ndimage.label(wrong)
    if not count:
        return []
    pixels = np.bincount(numbered.ravel())[1:]
    boxes = ndimage.find_objects(numbered)
    found = []
    for number in np.argsort(-pixels, kind="stable")[:PER_IMAGE].tolist():
        rows, columns = (_with_margin(side, size) for side, size in zip(boxes[number], wrong.shape, strict=True))
        region = (numbered[rows, columns] == number + 1).astype(np.uint8)
        size = int(pixels[number])
        picture = thumbnail(*_upscaled(image[rows, columns], region))
        found.append(Region(image_id, kind, size, size / wrong.size, picture))
    return found


def _with_margin(side: slice, size: int) -> slice:
    margin = max(round(_MARGIN * (side.stop - side.start)), (_LEAST_SIDE - (side.stop - side.start)) // 2, 0)
    return slice(max(0, side.start - margin), min(size, side.stop + margin))


def _upscaled(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A small cut-out at twice its size, so that its outline is thin beside it."""
    if max(image.shape) > 2 * _LEAST_SIDE:
        return image, mask
    size = 2 * image.shape[1], 2 * image.shape[0]
    large = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(large), np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
