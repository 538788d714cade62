"""PNG files without their texts: Pillow refuses whole images for the size of a comment or of a colour profile."""

from __future__ import annotations

import struct

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_ORIENTATION = (b"XML:com.adobe.xmp", b"Raw profile type exif", b"Raw profile type APP1", b"xmp")
_AROUND = 12
"""Bytes of a chunk beside what it holds: length, name, checksum."""


def without_texts(data: bytes, *, keep_orientation: bool = False) -> bytes:
    """A PNG file without texts and colour profile, none of which changes a stored value; other files as they are.

    Args:
        data: the file.
        keep_orientation: keep the texts that may hold EXIF or XMP.
    """
    if not data.startswith(_SIGNATURE) or not any(name in data for name in _TEXTS):
        return data
    kept, at = [_SIGNATURE], len(_SIGNATURE)
    while at + _AROUND <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + _AROUND + length
        orientation = keep_orientation and data.startswith(_ORIENTATION, at + 8)
        if name not in _TEXTS or orientation:
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])
