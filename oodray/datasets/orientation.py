"""EXIF orientation: cameras store what they saw sideways, and a number that says how to turn it.

Tools disagree on whether they turn it, so a label may have been drawn on either. The label's size tells, where it can.
"""

from __future__ import annotations

import io
import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oodray.datasets.images import FORMATS
from oodray.datasets.png_chunks import without_texts

AS_STORED = 1
"""The EXIF orientation of an image that needs no turning."""

_TAG = 0x0112
_SIDEWAYS = (5, 6, 7, 8)
_TURNED_BY_PILLOW = ("TIFF",)
_MARKS_IN_PNG = (b"eXIf", b"exif", b"xmp")

Size = tuple[int, int]


class Upright(NamedTuple):
    """An image as it is processed.

    Attributes:
        pixels: uint8 `(H, W, 3)`.
        orientation: the EXIF orientation that was applied, 1 for none.
        warning: what cannot be known about it, if anything.
    """

    pixels: NDArray[np.uint8]
    orientation: int
    warning: str | None


def exif_orientation(data: bytes) -> int:
    """The orientation that an image file asks for, from 1 to 8; 1 where it says nothing, or nothing that makes sense.

    Also 1 for TIFF, whose own orientation is part of the format: decoding applies it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(without_texts(data, keep_orientation=True)), formats=FORMATS) as image:
                if image.format == "PNG" and not any(mark in data for mark in _MARKS_IN_PNG):
                    return AS_STORED  # Pillow would decode all pixels to look behind them
                found = AS_STORED if image.format in _TURNED_BY_PILLOW else image.getexif().get(_TAG, AS_STORED)
    except Exception:  # hostile bytes, and only the metadata: the pixels may be sound
        return AS_STORED
    return found if found in range(1, 9) else AS_STORED


def turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Stored pixels `(H, W, ...)` as an EXIF orientation means them.

    >>> turned(np.array([[1, 2]], np.uint8), 6).tolist()  # a quarter turn clockwise
    [[1], [2]]
    """
    sideways = pixels.swapaxes(0, 1) if orientation in _SIDEWAYS else pixels
    upside_down = -1 if orientation in (3, 4, 7, 8) else 1
    mirrored = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(sideways[::upside_down, ::mirrored])


def upright(pixels: NDArray[np.uint8], orientation: int, label_size: Size | None) -> Upright:
    """An image the way its label lies; without a label, or where both ways fit, as its EXIF orientation says.

    Args:
        pixels: as stored, `(H, W, 3)`.
        orientation: what the file asks for.
        label_size: height and width of the label, None where there is none.
    """
    if orientation == AS_STORED:
        return Upright(pixels, AS_STORED, None)
    as_meant = turned(pixels, orientation)
    if label_size is None:
        return Upright(as_meant, orientation, None)
    fits_stored, fits_turned = pixels.shape[:2] == label_size, as_meant.shape[:2] == label_size
    if fits_stored and not fits_turned:
        return Upright(pixels, AS_STORED, None)
    warning = (
        f"the label fits the image both as it is stored and turned by its EXIF orientation {orientation}; it was "
        "turned. Store the image upright, without that tag, to be sure"
    )
    return Upright(as_meant, orientation, warning if fits_stored else None)
