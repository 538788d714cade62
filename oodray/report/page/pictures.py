"""The pictures of a page: photos as WebP within a budget, maps of ids and of scores without loss as PNG.

A page holds for each image a thumbnail with the outline of its mask, the photo, and small maps from which the page's
script draws masks, clusters, classes, scores and errors. Of a million pixels, that is 60 to 130 KB.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oodray.report.outline import outlined

PHOTO_SIDE, THUMBNAIL_SIDE, SCORE_SIDE = 960, 340, 480
"""Pixels of the longer side: of photos and maps of ids, of thumbnails, of maps of scores."""

PHOTO_BYTES, THUMBNAIL_BYTES = 120_000, 24_000
"""What a photo and a thumbnail may take; of one that takes more, the quality is lowered."""

_QUALITIES = (80, 65, 50, 35, 20)
_LEVELS = 255


def shown_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Width and height at which a picture is shown: its own, or scaled down to a longer side.

    >>> shown_size(720, 1280, 960), shown_size(30, 40, 960)
    ((960, 540), (40, 30))
    """
    scale = min(1.0, side / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def thumbnail(image: NDArray[np.uint8], mask: NDArray[np.uint8] | None) -> bytes:
    """A small picture of an image with the outline of its mask."""
    size = shown_size(image.shape[0], image.shape[1], THUMBNAIL_SIDE)
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    if mask is not None:
        small = outlined(small, np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)), width=2)
    return _photo_bytes(Image.fromarray(small), THUMBNAIL_BYTES)


def photo(image: NDArray[np.uint8]) -> bytes:
    """An image at the size of the large view."""
    size = shown_size(image.shape[0], image.shape[1], PHOTO_SIDE)
    return _photo_bytes(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS), PHOTO_BYTES)


def id_map(ids: NDArray[Any]) -> bytes:
    """Ids from 0 to 255 at the size of the large view, each pixel's its own: a grey PNG."""
    size = shown_size(ids.shape[0], ids.shape[1], PHOTO_SIDE)
    # Nearest: a value between two ids would be the name of a third thing.
    return _png(Image.fromarray(ids.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))


def score_picture(scores: NDArray[Any]) -> dict[str, Any]:
    """A map of scores in 256 levels, a grey PNG, with the scores of the first and last level."""
    finite = np.asarray(scores, np.float64)
    low, high = float(finite.min()), float(finite.max())
    levels = (finite - low) * (_LEVELS / (high - low)) if high > low else np.zeros_like(finite)
    size = shown_size(finite.shape[0], finite.shape[1], SCORE_SIDE)
    small = Image.fromarray(levels.astype(np.float32)).resize(size, Image.Resampling.BOX)
    rounded = np.asarray(small).round().clip(0, _LEVELS).astype(np.uint8)
    return {"low": low, "high": high, "picture": data_uri(_png(Image.fromarray(rounded)), "png")}


def data_uri(data: bytes, kind: str) -> str:
    """Bytes of a picture as the address of an `<img>`.

    >>> data_uri(b"abc", "png")
    'data:image/png;base64,YWJj'
    """
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _photo_bytes(picture: Image.Image, budget: int) -> bytes:
    """WebP, of the best quality that keeps within a budget, or else of the least."""
    data = b""
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=quality, method=4)
        data = buffer.getvalue()
        if len(data) <= budget:
            break
    return data


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
