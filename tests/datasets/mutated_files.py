"""Image and label files with bytes changed, cut, doubled and moved: `mutated_files.py COUNT SEED` decodes so many.

Each must give an array or an `ImageError`; the process may not end, hang, or take more memory than the largest image.
What does ends it with a traceback, and leaves the file.
"""

from __future__ import annotations

import faulthandler
import io
import resource
import struct
import sys
import tempfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oodray.datasets.images import decode_codes, decode_image, storage_oddities
from oodray.datasets.orientation import exif_orientation
from oodray.errors import ImageError

MEMORY = 4 * 2**30
"""Bytes of address space: an image of the largest size, as stored, as RGB, and Pillow's own copies of it."""

SECONDS = 60
"""An image of the largest size takes a few; what takes longer hangs."""

_OPTIONS: dict[str, list[dict[str, object]]] = {
    "PNG": [{}, {"optimize": True}],
    "JPEG": [{}, {"progressive": True}, {"quality": 100, "subsampling": 0}],
    "WEBP": [{}, {"lossless": True}],
    "BMP": [{}],
    "TIFF": [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}, {"compression": "packbits"}],
}
_MODES = {"PNG": ("RGB", "L", "P", "1", "RGBA", "I;16"), "TIFF": ("RGB", "L", "CMYK"), "JPEG": ("RGB", "L", "CMYK")}


def seeds() -> list[bytes]:
    """Sound files of every format and mode, small, with an orientation where the format takes one."""
    pixels = np.random.default_rng(0).integers(0, 256, (19, 23, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    files = []
    for name, options in _OPTIONS.items():
        for mode in _MODES.get(name, ("RGB", "L")):
            image = Image.fromarray(pixels)
            image = image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)
            for option in options:
                buffer = io.BytesIO()
                extra = {} if name == "BMP" else {"exif": exif}
                image.save(buffer, name, **option, **extra)
                files.append(buffer.getvalue())
    return files + [animation(pixels, name) for name in ("PNG", "WEBP", "TIFF", "MPO")]


def animation(pixels: NDArray[np.uint8], name: str) -> bytes:
    """A file of three images."""
    first, *others = (Image.fromarray(np.roll(pixels, shift, axis=1)) for shift in range(3))
    buffer = io.BytesIO()
    first.save(buffer, name, save_all=True, append_images=others)
    return buffer.getvalue()


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """A file with one to three changes, most of them near its start, where headers are."""
    changed = bytearray(data)
    for _ in range(random.integers(1, 4)):
        if not changed:
            break
        start = min(int(random.exponential(60)), len(changed) - 1) if random.random() < 0.7 else None
        at = int(random.integers(len(changed))) if start is None else start
        kind = random.integers(6)
        if kind == 0:
            changed[at] = int(random.integers(256))
        elif kind == 1:
            changed[at] ^= 1 << int(random.integers(8))
        elif kind == 2:
            changed[at : at + 4] = random.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\1"])
        elif kind == 3:
            del changed[at : at + int(random.integers(1, 16))]
        elif kind == 4:
            changed[at:at] = changed[at : at + int(random.integers(1, 64))]
        else:
            del changed[max(at, 8) :]
    # A wrong checksum would hide what lies behind it.
    return with_sound_checksums(bytes(changed)) if random.random() < 0.8 else bytes(changed)


def with_sound_checksums(data: bytes) -> bytes:
    """A PNG whose chunks, as far as they can be told, have the checksums of what they hold; other files as they are."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    sound, at = bytearray(data), 8
    while at + 12 <= len(sound):
        (length,) = struct.unpack_from(">I", sound, at)
        end = at + 8 + length
        if end + 4 > len(sound):
            break
        struct.pack_into(">I", sound, end, zlib.crc32(sound[at + 4 : end]))
        at = end + 4
    return bytes(sound)


def decode(data: bytes) -> str:
    """What a run and a check do with a file; gives `array` or `ImageError`."""
    outcome = "ImageError"
    exif_orientation(data)
    for work in (decode_image, decode_codes, storage_oddities):
        try:
            found = work(data)
        except ImageError:
            continue
        if isinstance(found, np.ndarray):
            assert found.size > 0
            outcome = "array"
    return outcome


def fuzz(count: int, seed: int) -> Counter[str]:
    """Decode mutated files; how often each outcome came."""
    random, sound = np.random.default_rng(seed), seeds()
    outcomes: Counter[str] = Counter()
    last = Path(tempfile.gettempdir()) / f"oodray-mutated-{count}-{seed}"
    for index in range(count):
        data = mutated(sound[index % len(sound)], random)
        last.write_bytes(data)
        # Ends the process even where it hangs outside of Python.
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        outcomes[decode(data)] += 1
        faulthandler.cancel_dump_traceback_later()
    last.unlink()
    return outcomes


if __name__ == "__main__":
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for name_, files_ in sorted(fuzz(int(sys.argv[1]), seed=int(sys.argv[2])).items()):
        sys.stdout.write(f"{name_} {files_}\n")
    sys.stdout.write(f"peak-MiB {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}\n")
