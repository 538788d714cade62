"""Image and label files with bytes changed, cut, doubled and moved: `python -m mutated_files COUNT` decodes so many.

Each must give an array or an `ImageError`; the process may not end, hang, or take more memory than the largest image.
"""

from __future__ import annotations

import io
import resource
import signal
import sys
from collections import Counter
from types import FrameType

import numpy as np
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
    return files


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
    return bytes(changed)


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
    for index in range(count):
        data = mutated(sound[index % len(sound)], random)
        signal.alarm(SECONDS)
        try:
            outcomes[decode(data)] += 1
        except BaseException:
            sys.stdout.write(f"file {index} of seed {seed}: {data.hex()}" + "\n")
            raise
        signal.alarm(0)
    return outcomes


def _hangs(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"longer than {SECONDS} s")


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, _hangs)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for name_, files_ in sorted(fuzz(int(sys.argv[1]), seed=int(sys.argv[2])).items()):
        sys.stdout.write(f"{name_} {files_}\n")
    sys.stdout.write(f"peak-MiB {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}\n")
