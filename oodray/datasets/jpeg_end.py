"""JPEG files without their end marker: cameras and copies that stop early lose the last two bytes, and no pixel.

A decoder that is asked for more than there is makes something up. Whether all pixels are there is told by trying:
bytes that follow a whole scan change nothing, bytes that continue a cut one do.
"""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image

_START, _END = b"\xff\xd8", b"\xff\xd9"
_FRAMES, _SCAN = (0xC0, 0xC1, 0xC2), 0xDA
_COEFFICIENTS = 64
_MARKER_BEHIND_PIXELS = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_PADDINGS = (b"\0" * 64, b"\x55" * 64, b"\xaa" * 64)

NO_END = "the JPEG lacks its end marker, the last two bytes of such a file; all its pixels are there"


def with_end(data: bytes) -> bytes | None:
    """A JPEG file with the end marker that it lacks; None for any other file, and where pixels are lacking, too.

    >>> with_end(b"no JPEG") is None
    True
    """
    if not data.startswith(_START):
        return None
    scan = data.removesuffix(_END[:1])
    try:
        if not _ends_in_its_last_scan(scan):
            return None
        pixels = _pixels(scan + _END)
        whole = all(np.array_equal(pixels, _pixels(scan + padding + _END)) for padding in _PADDINGS)
    except Exception:  # hostile bytes: whatever Pillow raises, the file is not sound without its end either
        return None
    return scan + _END if whole else None


def _ends_in_its_last_scan(data: bytes) -> bool:
    """Whether a file ends among the pixels of a scan, and no scan is lacking behind it: progressive files have several.

    Raises:
        IndexError: it ends elsewhere.
    """
    lacking: dict[int, set[int]] = {}
    at = len(_START)
    while True:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        content = data[at + 4 : at + 2 + length]
        if marker in _FRAMES:
            lacking = {content[6 + 3 * index]: set(range(_COEFFICIENTS)) for index in range(content[5])}
        at += 2 + length
        if marker != _SCAN:
            continue
        first, last, low_bits = content[-3], content[-2], content[-1] & 0xF
        for index in range(content[0]) if low_bits == 0 else ():
            lacking[content[1 + 2 * index]] -= set(range(first, last + 1))
        end = _MARKER_BEHIND_PIXELS.search(data, at)
        if end is None:
            return at <= len(data) and bool(lacking) and not any(lacking.values())
        at = end.start()


def _pixels(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        return np.asarray(image)
