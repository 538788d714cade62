"""Files that Pillow does not write: TIFF of any kind, PNG with any chunk and depth."""

from __future__ import annotations

import struct
import zlib

_SHORT, _LONG = 3, 4
_CODES = {_SHORT: "H", _LONG: "I"}
_OFFSETS = 273


def tiff(
    height: int,
    width: int,
    *,
    bits: int = 8,
    channels: int = 1,
    numbers: int = 1,
    colour: int | None = None,
    compression: int = 1,
    values: bytes | None = None,
    further: dict[int, list[int]] | None = None,
) -> bytes:
    """A little-endian TIFF of one strip, its values 0 unless they are given.

    Args:
        numbers: SampleFormat, 1 unsigned, 2 signed, 3 floating-point.
        colour: PhotometricInterpretation; None for grey, or RGB of three channels and more.
        further: tags of 16-bit values.
    """
    pixels = bytes(height * width * channels * -(-bits // 8)) if values is None else values
    grey, rgb = 1, 2
    photometric = colour if colour is not None else rgb if channels > rgb else grey
    tags: dict[int, tuple[int, list[int]]] = {
        **{256: (_LONG, [width]), 257: (_LONG, [height]), 258: (_SHORT, [bits] * channels)},
        **{259: (_SHORT, [compression]), 262: (_SHORT, [photometric]), _OFFSETS: (_LONG, [0])},
        **{277: (_SHORT, [channels]), 278: (_LONG, [height]), 279: (_LONG, [len(pixels)])},
        **{339: (_SHORT, [numbers] * channels)},
        **{tag: (_SHORT, found) for tag, found in (further or {}).items()},
    }
    first_behind = 8 + 2 + 12 * len(tags) + 4
    behind = {tag: struct.pack(f"<{len(found)}{_CODES[kind]}", *found) for tag, (kind, found) in tags.items()}
    behind = {tag: packed for tag, packed in behind.items() if len(packed) > 4}
    tags[_OFFSETS] = (_LONG, [first_behind + sum(map(len, behind.values()))])
    entries, at = b"", first_behind
    for tag, (kind, found) in sorted(tags.items()):
        packed = struct.pack(f"<{len(found)}{_CODES[kind]}", *found)
        if tag in behind:
            packed, at = struct.pack("<I", at), at + len(packed)
        entries += struct.pack("<HHI", tag, kind, len(found)) + packed.ljust(4, b"\0")
    blocks = b"".join(behind[tag] for tag in sorted(behind))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + blocks + pixels


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(rows: list[bytes], width: int, *, depth: int = 8, colour: int = 0, chunks: bytes = b"") -> bytes:
    """A PNG of rows as they are stored, with further chunks before its pixels."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
