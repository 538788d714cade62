"""Files with bytes changed, cut, doubled and moved: `mutated_files.py COUNT SEED` reads so many, half of them images.

Each must give something or an error of oodray's; the process may not end, hang, or take more memory than the largest
image. What does ends it with a traceback, and leaves the file.
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
from mutated_kinds import Kind, kinds
from numpy.typing import NDArray
from odd_files import chunk, tiff
from PIL import Image

from oodray.datasets.images import decode_codes, decode_image, storage_oddities
from oodray.datasets.orientation import exif_orientation
from oodray.errors import ImageError
from oodray.storage import remote

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
_CHUNKS = (
    *(b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"PLTE", b"tRNS", b"eXIf", b"pHYs", b"acTL"),
    *(b"fcTL", b"fdAT", b"IHDR", b"IDAT", b"IEND", b"prVt", b"CRIT", b"\0\0\0\0"),
)
"""Chunks of PNG that are known, unknown, critical and none."""

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
    animations = [animation(pixels, name) for name in ("PNG", "WEBP", "TIFF", "MPO")]
    return files + animations + [tiff(19, 23, channels=channels, bits=bits) for channels, bits in ((1, 16), (3, 8))]


def animation(pixels: NDArray[np.uint8], name: str) -> bytes:
    """A file of three images."""
    first, *others = (Image.fromarray(np.roll(pixels, shift, axis=1)) for shift in range(3))
    buffer = io.BytesIO()
    first.save(buffer, name, save_all=True, append_images=others)
    return buffer.getvalue()


def mutated(data: bytes, random: np.random.Generator, words: tuple[bytes, ...] = ()) -> bytes:
    """A file with one to three changes, most of them near its start, where headers are, or with words put in."""
    changed = bytearray(data)
    if words and random.random() < 0.7:
        at = int(random.integers(len(changed) + 1))
        changed[at : at + int(random.integers(0, 12))] = words[random.integers(len(words))]
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


def with_odd_parts(data: bytes, random: np.random.Generator) -> bytes:
    """A PNG with a further chunk between two of its own, or a TIFF one of whose tags has another kind or number."""
    if data.startswith(b"\x89PNG"):
        starts, at = [], 8
        while at + 12 <= len(data):
            starts.append(at)
            at += 12 + int.from_bytes(data[at : at + 4], "big")
        at = starts[int(random.integers(1, len(starts)))]
        return (
            data[:at]
            + chunk(_CHUNKS[random.integers(len(_CHUNKS))], random.bytes(int(random.integers(40))))
            + data[at:]
        )
    if data.startswith(b"II*\0"):
        (first,) = struct.unpack_from("<I", data, 4)
        (count,) = struct.unpack_from("<H", data, first)
        entry = first + 2 + 12 * int(random.integers(count))
        changed = bytearray(data)
        tag, kind, number, value = struct.unpack_from("<HHII", data, entry)
        odd = int(random.choice([0, 1, 2, 3, 5, 7, 13, 255, 256, 65535, 2**31, 2**32 - 1]))
        part = random.integers(4)
        new = (odd % 2**16 if part == 0 else tag, odd % 20 if part == 1 else kind, odd if part == 2 else number)
        struct.pack_into("<HHII", changed, entry, *new, odd if part == 3 else value)
        return bytes(changed)
    return data


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
    """Read mutated files, of images and of every other kind in turns; how often each outcome came."""
    random, sound, others = np.random.default_rng(seed), seeds(), [kind for kind in kinds() if kind.seeds]
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        _frames(Path(folder))
        for index in range(count):
            kind = None if index % 2 == 0 else others[index // 2 % len(others)]
            outcomes[_tried(index, kind, sound, random, Path(folder), Path(f"oodray-mutated-{count}-{seed}"))] += 1
    return outcomes


def _tried(
    index: int, kind: Kind | None, sound: list[bytes], random: np.random.Generator, folder: Path, name: Path
) -> str:
    """What becomes of one mutated file, which stays where the process ends or hangs."""
    if kind is None:
        data = sound[index // 2 % len(sound)]
        data = with_odd_parts(data, random) if random.random() < 0.4 else data
        data = mutated(data, random) if random.random() < 0.8 else data
    else:
        data = mutated(kind.seeds[random.integers(len(kind.seeds))], random, kind.words)
    last = Path(tempfile.gettempdir()) / name
    last.write_bytes(data)
    # Ends the process even where it hangs outside of Python.
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    outcome = f"image {decode(data)}" if kind is None else f"{kind.name} {kind.outcome(folder, data)}"
    faulthandler.cancel_dump_traceback_later()
    last.unlink()
    return outcome


def _frames(folder: Path) -> None:
    """The dataset that a list of frames lies in."""
    label = folder / "road/frames/a.labels/labels_semantic.png"
    label.parent.mkdir(parents=True)
    for path in (label, folder / "road/frames/a.jpg", folder / "road/frames/b.webp"):
        path.touch()


if __name__ == "__main__":
    faulthandler.enable()
    remote.CONTACT_SECONDS = 0.2  # a list names an object in a store that is not there
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for name_, files_ in sorted(fuzz(int(sys.argv[1]), seed=int(sys.argv[2])).items()):
        sys.stdout.write(f"{name_} {files_}\n")
    sys.stdout.write(f"peak-MiB {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}\n")
