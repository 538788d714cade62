"""What a TIFF file holds, by its tags: the format takes measurements of any kind, few of them images to look at."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

from PIL.TiffImagePlugin import ImageFileDirectory_v2

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How TIFF files begin, BigTIFF ones last."""

_BITS, _COMPRESSION, _PHOTOMETRIC, _CHANNELS, _SAMPLE_FORMAT = 258, 259, 262, 277, 339
_NUMBERS = {1: "unsigned integers", 2: "signed integers", 3: "floating-point numbers", 5: "complex integers"}
_UNSIGNED = 1
_MOST_CHANNELS = 4
_COLOURS = {
    8: "CIELab colour",
    9: "ICCLab colour",
    10: "ITULab colour",
    32803: "raw sensor values",
    34892: "raw values",
}
_COMPRESSIONS = {
    6: "old-style JPEG",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34887: "LERC",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
}


@dataclass(frozen=True)
class TiffKind:
    """What the tags of a TIFF file say of its values.

    Attributes:
        channels: of each pixel.
        bits: of each channel.
        numbers: code of the kind of numbers, 1 for unsigned integers.
        colour: code of what the channels mean.
        compression: code of how they are packed.
    """

    channels: int
    bits: tuple[int, ...]
    numbers: int
    colour: int
    compression: int

    def no_brightness(self) -> str | None:
        """Why the values are none to look at, in words: they have no known range of brightness, or are no RGB."""
        values = f"{'/'.join(map(str, sorted(set(self.bits))))}-bit {_NUMBERS.get(self.numbers, 'unknown values')}"
        usual_bits = len(set(self.bits)) == 1 and self.bits[0] in (1, 2, 4, 8, 16)
        if self.channels > _MOST_CHANNELS or self.numbers != _UNSIGNED or not usual_bits:
            return f"{self.channels} channel{'s' if self.channels > 1 else ''} of {values}"
        return _COLOURS.get(self.colour)

    def not_decoded(self) -> str | None:
        """Why a file that is whole may not be decoded, in words; None for kinds that are."""
        unnamed = "2 channels without a word on the second" if self.channels == 2 else None
        packed = _COMPRESSIONS.get(self.compression)
        return self.no_brightness() or unnamed or (f"{packed} compression" if packed else None)


def tiff_kind(data: bytes) -> TiffKind | None:
    """What a TIFF file holds; None for any other file, and where its tags cannot be read.

    >>> tiff_kind(b"no TIFF") is None
    True
    """
    if not data.startswith(SIGNATURES):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tags = _tags(data)
        return TiffKind(
            channels=int(tags.get(_CHANNELS, 1)),
            bits=tuple(int(value) for value in tags.get(_BITS, (1,))) or (1,),
            numbers=int(tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0]),
            colour=int(tags.get(_PHOTOMETRIC, 1)),
            compression=int(tags.get(_COMPRESSION, 1)),
        )
    except Exception:  # hostile bytes: a tag may be anything
        return None


def _tags(data: bytes) -> Any:
    """The tags of the first image."""
    big = data[2:4] in (b"+\0", b"\0+")
    header = data[:16] if big else data[:8]
    directory = ImageFileDirectory_v2(header)
    file = io.BytesIO(data)
    file.seek(int.from_bytes(header[8:16] if big else header[4:8], "little" if data.startswith(b"II") else "big"))
    directory.load(file)
    return directory
