"""Images and label masks: from bytes to arrays, and from arrays to PNG.

Whatever the bytes are, decoding gives an array or an `ImageError` with a message fit for an error row.
"""

from __future__ import annotations

import io
import logging
import os
import stat
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from oodray.datasets.jpeg_end import NO_END, with_end
from oodray.datasets.members import Member, TarMember, member_of
from oodray.datasets.png_chunks import without_texts
from oodray.datasets.tiff_kinds import SIGNATURES as TIFF_SIGNATURES
from oodray.datasets.tiff_kinds import tiff_kind
from oodray.errors import ImageError
from oodray.metrics.curves import MAX_CLUSTER_PIXELS
from oodray.metrics.tally import IGNORE, IN_DISTRIBUTION, OOD
from oodray.storage.place import Place, storage_path
from oodray.storage.remote import is_remote

MAX_PIXELS = MAX_CLUSTER_PIXELS
"""Pixels of the largest image taken: a cluster may be the whole of it."""

MAX_BYTES = 2**30
"""Bytes of the largest file taken: an image of `MAX_PIXELS` fits, uncompressed and in 16 bits."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
"""What image files may be; nothing else is tried, whatever they are called."""

_LABEL_FORMATS = ("PNG", "BMP", "TIFF")
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", *TIFF_SIGNATURES)
_NEARLY_BLACK = 2**12
"""Cameras of 10 and 12 bits write values of 16 bits that stay below this."""

_CONVERT = "oodray takes 1, 3 or 4 channels of 8 or 16 bits: convert it, with a range of brightness that you choose"
_CODE_COUNT = 65536
_UNKNOWN = 254
_MOST_CODES_NAMED = 5

# What Pillow logs of a file is in the error that it raises, too.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class LabelCodes:
    """What the codes in a dataset's label files mean.

    Attributes:
        ood: codes of OoD pixels.
        ignore: codes of pixels that no metric counts.
        in_distribution: codes of the other pixels; None takes every other code for in-distribution.

    Raises:
        ValueError: a code has two meanings, or lies outside 0..65535.

    >>> codes = LabelCodes(ood=frozenset({2}), ignore=frozenset({9}), in_distribution=None)
    >>> codes.labels(np.array([[0, 2, 7, 9]], np.uint8)).tolist()
    [[0, 1, 0, 255]]
    """

    ood: frozenset[int]
    ignore: frozenset[int]
    in_distribution: frozenset[int] | None

    def __post_init__(self) -> None:
        codes = [*self.ood, *self.ignore, *(self.in_distribution or ())]
        if len(codes) > len(set(codes)):
            raise ValueError(f"a label code has two meanings: {self}")
        if any(not 0 <= code < _CODE_COUNT for code in codes):
            raise ValueError(f"label codes lie within 0..{_CODE_COUNT - 1}: {self}")

    def __str__(self) -> str:
        rest = "any other" if self.in_distribution is None else _listed(self.in_distribution)
        ignore = f", ignore {_listed(self.ignore)}" if self.ignore else ""
        return f"OoD {_listed(self.ood)}{ignore}, in-distribution {rest}"

    def labels(self, codes: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Labels of codes, in their shape: 0 in-distribution, 1 OoD, 255 ignore.

        Raises:
            ImageError: a code is unknown.
        """
        labels: NDArray[np.uint8]
        if codes.dtype == np.uint8:  # several times as fast as an array of indices
            of_codes = bytearray(codes.tobytes()).translate(self._table()[:256].tobytes())
            labels = np.frombuffer(of_codes, np.uint8).reshape(codes.shape)
        elif codes.dtype == np.uint16:
            labels = self._table()[codes]
        else:
            known = (codes >= 0) & (codes < _CODE_COUNT)
            labels = self._table()[np.where(known, codes, 0)]
            labels[~known] = _UNKNOWN
        if (labels == _UNKNOWN).any():
            unknown = np.unique(codes[labels == _UNKNOWN])
            raise ImageError(
                f"the label holds unknown codes: {_listed(unknown.tolist())}; known are {self}. "
                "Is it the right file, and the right dataset?"
            )
        return labels

    @property
    def class_codes(self) -> tuple[int, ...]:
        """The in-distribution codes, in the order of the classes of a network; empty where they name no classes."""
        codes = tuple(sorted(self.in_distribution or ()))
        return codes if 1 < len(codes) <= IGNORE else ()

    def classes(self, codes: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """The class of each in-distribution pixel, 255 elsewhere; of codes that `labels` takes.

        >>> cityscapes = LabelCodes(ood=frozenset({254}), ignore=frozenset({255}), in_distribution=frozenset({7, 8}))
        >>> cityscapes.classes(np.array([[8, 7, 254, 255]], np.uint8)).tolist()
        [[1, 0, 255, 255]]
        """
        table = np.full(_CODE_COUNT, IGNORE, np.uint8)
        table[list(self.class_codes)] = np.arange(len(self.class_codes), dtype=np.uint8)
        classes: NDArray[np.uint8] = table[codes]
        return classes

    def _table(self) -> NDArray[np.uint8]:
        """The label of each code, uint8 (65536,)."""
        table = np.full(_CODE_COUNT, IN_DISTRIBUTION if self.in_distribution is None else _UNKNOWN, np.uint8)
        for meant, label in ((self.in_distribution, IN_DISTRIBUTION), (self.ood, OOD), (self.ignore, IGNORE)):
            table[list(meant or ())] = label
        return table


def read_bytes(uri: str) -> bytes:
    """Contents of the file at a path, on a disk or in an object store, or inside of a file there.

    Raises:
        ImageError: it cannot be read, is a pipe or a device, or has more than `MAX_BYTES`.
    """
    member = member_of(uri)
    if member is not None:
        data = _read_member(uri, member)
        if data is None:
            raise ImageError(f"cannot read {uri}: it is empty there")
        return data
    try:
        if is_remote(uri):
            return _read_remote(storage_path(uri))
        with open(uri, "rb", opener=_without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ImageError(f"cannot read {uri}: it is no regular file")
            _refuse_large(uri, found.st_size)
            return file.read()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageError(f"cannot read {uri}: {reason}") from error


def read_label(uri: str | None) -> bytes | None:
    """Contents of a label file; None where an image has no label, as in a table some may have none.

    Raises:
        ImageError: as `read_bytes`.
    """
    if uri is None:
        return None
    member = member_of(uri)
    return read_bytes(uri) if member is None else _read_member(uri, member)


def _read_member(uri: str, member: Member) -> bytes | None:
    if isinstance(member, TarMember):
        _refuse_large(uri, member.size)
    data = member.read()
    _refuse_large(uri, len(data or b""))
    return data


def _read_remote(path: Place) -> bytes:
    _refuse_large(str(path), path.stat().st_size)
    return path.read_bytes()


def _refuse_large(uri: str, size: int) -> None:
    if size > MAX_BYTES:
        raise ImageError(f"cannot read {uri}: it has {size} bytes, more than {MAX_BYTES}")


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe that nobody writes into does not keep it waiting."""
    return os.open(path, flags | os.O_NONBLOCK)


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """RGB pixels, uint8 `(H, W, 3)`, of a JPEG, PNG, WebP, BMP or TIFF file, told by its content.

    Greyscale becomes grey RGB, alpha is dropped, 16 bits keep their upper 8. An animation gives
    its first frame. Pixels come as they are stored: see `oodray.datasets.orientation`.

    Raises:
        ImageError: the bytes are no such image, are damaged or cut short, or hold more than `MAX_PIXELS`
            pixels or 32-bit values, which have no known range of brightness.

    >>> decode_image(encode_png(np.array([[0, 90, 255]], np.uint8))).tolist()
    [[[0, 0, 0], [90, 90, 90], [255, 255, 255]]]
    """
    return decode_with_warning(data)[0]


def decode_with_warning(data: bytes) -> tuple[NDArray[np.uint8], str | None]:
    """As `decode_image`, and what is wrong with the file although all pixels are there.

    Raises:
        ImageError: as `decode_image` does.
    """
    with _image_errors("image", data):
        try:
            return _rgb(data)
        except OSError:
            whole = with_end(data)
            if whole is None:
                raise
        return _rgb(whole)[0], NO_END


def _rgb(data: bytes) -> tuple[NDArray[np.uint8], str | None]:
    """Pixels as `decode_image` gives them, and whether hardly anything is seen on them."""
    image = _load("image", data)
    tiff = tiff_kind(data)
    odd = tiff and tiff.no_brightness()
    if odd or image.mode in ("I", "F", "LAB"):
        raise ImageError(f"the image is a TIFF of {odd or 'an unknown kind'}; {_CONVERT}")
    if not image.mode.startswith("I;16"):
        return np.array(image.convert("RGB")), None
    values = np.asarray(image)
    grey = (values >> 8).astype(np.uint8)
    brightest = int(values.max())
    dark = (
        f"its values of 16 bits reach {brightest} of 65535, so that it is nearly black; multiply them first"
        if 0 < brightest < _NEARLY_BLACK
        else None
    )
    return np.repeat(grey[..., None], 3, axis=2), dark


def storage_oddities(data: bytes) -> list[str]:
    """What is unusual in how a sound image file stores its pixels: tools differ in what they make of it."""
    with _image_errors("image", data), Image.open(io.BytesIO(without_texts(data)), formats=FORMATS) as image:
        found = []
        if image.format == "WEBP":
            found.append("WebP, which older tools cannot read")
        if image.mode != "LAB" and ("A" in image.getbands() or "transparency" in image.info):
            found.append("an alpha channel, which is dropped")
        if "gamma" in image.info:
            found.append("a gamma chunk, which some tools apply; oodray takes the pixels as they are stored")
        return found


def decode_label(data: bytes, codes: LabelCodes) -> NDArray[np.uint8]:
    """Labels, uint8 `(H, W)`: 0 in-distribution, 1 OoD, 255 ignore.

    Raises:
        ImageError: as `decode_codes`, or a code is unknown.
    """
    return codes.labels(decode_codes(data))


def decode_codes(data: bytes) -> NDArray[np.integer[Any]]:
    """Integers `(H, W)` as a label file of one channel (PNG, BMP or TIFF) stores them.

    A palette gives its indices, a 1-bit file 0 and 1; colour whose channels agree counts as one channel.

    Raises:
        ImageError: as `decode_image`; or the file is in colour, holds no integers, or is in a lossy format.
    """
    with _image_errors("label", data):
        image = _load("label", data)
        if image.format not in _LABEL_FORMATS:
            raise ImageError(f"the label is a {image.format} file, which may be lossy; give it as PNG")
        if image.mode == "F":
            raise ImageError("the label holds floating-point values; give it as a single channel of integers")
        # A copy in native byte order, booleans as 0 and 1.
        pixels = np.asarray(image)
        pixels = pixels.astype(np.uint8 if pixels.dtype == np.bool_ else pixels.dtype.newbyteorder("="))
        return pixels if pixels.ndim == 2 else _only_channel(pixels, image.mode)


def decode_mask(data: bytes) -> NDArray[np.uint8]:
    """Pixels, uint8 `(H, W)`, of a mask or cluster map from a run's results (an 8-bit greyscale PNG).

    Raises:
        ImageError: the bytes are no such PNG, or damaged.

    >>> decode_mask(encode_png(np.array([[0, 255]], np.uint8))).tolist()
    [[0, 255]]
    """
    with _image_errors("mask", data):
        image = _load("mask", data)
        if (image.format, image.mode) != ("PNG", "L"):
            raise ImageError(f"the mask is a {image.format} of mode {image.mode}, not an 8-bit greyscale PNG")
        return np.array(image)


def encode_png(array: NDArray[np.uint8]) -> bytes:
    """PNG file of a uint8 array, `(H, W)` grey or `(H, W, 3)` RGB.

    Raises:
        ValueError: the array has another type or shape, or no pixel.
    """
    layout_ok = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not layout_ok or array.size == 0:
        raise ValueError(f"a PNG takes uint8 (H, W) or (H, W, 3), not {array.dtype} {array.shape}")
    buffer = io.BytesIO()
    # Measured on masks and cluster maps of 1280x720: the time of level 3 without Z_RLE, and half its bytes.
    Image.fromarray(array).save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()


@contextmanager
def _image_errors(what: str, data: bytes) -> Iterator[None]:
    """Turn whatever Pillow raises into an `ImageError`, and silence its warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"the {what} {_why_unidentified(data)}") from None
    except Image.DecompressionBombError as error:
        raise ImageError(_too_large(what)) from error
    except MemoryError as error:
        raise ImageError(f"there is not enough memory to decode the {what} ({len(data)} bytes of file)") from error
    except Exception as error:  # hostile bytes: OSError, SyntaxError, struct.error, OverflowError, ...
        tiff = tiff_kind(data)
        odd = tiff and tiff.not_decoded()
        if odd:
            raise ImageError(f"the {what} is a TIFF of {odd}; {_CONVERT}") from error
        raise ImageError(f"the {what} is damaged or cut short ({type(error).__name__}: {error})") from error


def _load(what: str, data: bytes) -> Image.Image:
    """The decoded first frame; its size is checked before its pixels are decoded."""
    image = Image.open(io.BytesIO(without_texts(data)), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{_too_large(what)}: it is {image.width}x{image.height}")
    if what == "label" and not image.mode.startswith("I") and ";16" in str(image.tile):
        raise ImageError(
            "the label has several channels of 16 bits each, of which the lower 8 would be lost; give it as a single "
            "channel of integers"
        )
    image.load()
    return image


def _only_channel(pixels: NDArray[np.integer[Any]], mode: str) -> NDArray[np.integer[Any]]:
    """The one channel of `(H, W, C)` pixels, if all but alpha agree."""
    first = pixels[..., 0]
    others = pixels[..., 1:-1] if mode.endswith(("A", "a")) else pixels[..., 1:]
    if np.all(others == first[..., None]):
        return first
    raise ImageError(
        "the label is in colour, so it looks like a visualisation; expected is the file of label codes, with "
        "one channel, which often lies beside it (labels_semantic.png, not labels_semantic_color.png)"
    )


def _why_unidentified(data: bytes) -> str:
    text = data[:1024].lstrip().lower()
    if not data:
        return "file is empty (0 bytes); fetch it again"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "file is a web page, not an image; open it to see why the download failed"
    if text.startswith(b"version https://git-lfs"):
        return "file is a Git LFS pointer; run `git lfs pull` to fetch the image itself"
    tiff = tiff_kind(data)
    odd = tiff and tiff.not_decoded()
    if odd:
        return f"is a TIFF of {odd}; {_CONVERT}"
    if data.startswith(_SIGNATURES):
        return f"has an unreadable header; it is damaged or cut short ({len(data)} bytes)"
    return f"is not JPEG, PNG, WebP, BMP or TIFF; it begins with {data[:12]!r}"


def _too_large(what: str) -> str:
    return f"the {what} has more than {MAX_PIXELS} pixels, the largest size oodray takes"


def _listed(codes: Iterable[int]) -> str:
    """Codes in words, the first few by value."""
    ordered = sorted(codes)
    text = ", ".join(map(str, ordered[:_MOST_CODES_NAMED]))
    more = len(ordered) - _MOST_CODES_NAMED
    return f"{text} and {more} more" if more > 0 else text or "none"
