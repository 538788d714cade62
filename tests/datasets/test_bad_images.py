"""What becomes of every kind of bad image and label: handled as the docs say, or an error row that says why."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from oodray.datasets.images import LabelCodes
from oodray.datasets.layout import USUAL_CODES
from oodray.datasets.manifest import ListedImage
from oodray.job.decoder import Decoder
from oodray.job.units import DecodedImage

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
GREY = RGB[..., 0]
LABEL = np.random.default_rng(1).choice([0, 1, 255], (6, 9)).astype(np.uint8)


def saved(pixels: NDArray[Any] | Image.Image, format_: str, **options: Any) -> bytes:
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(RGB, "PNG", exif=exif)


def png(width: int, height: int, rows: bytes) -> bytes:
    """A grey PNG of any size, whatever its pixels are."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def webp(width: int, height: int) -> bytes:
    """An animation on a large canvas, of which a small frame is drawn."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)

    def number(value: int) -> bytes:
        return struct.pack("<I", value)[:3]

    frame = number(0) * 2 + number(8) + number(5) + number(40) + b"\0" + saved(RGB, "WEBP", lossless=True)[12:]
    canvas = chunk(b"VP8X", b"\2\0\0\0" + number(width - 1) + number(height - 1))
    body = b"WEBP" + canvas + chunk(b"ANIM", b"\0" * 6) + chunk(b"ANMF", frame)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff(width: int, height: int) -> bytes:
    """A TIFF whose header says another size."""
    data = bytearray(saved(GREY, "TIFF"))
    (at,) = struct.unpack_from("<I", data, 4)
    for entry in range(at + 2, at + 2 + 12 * struct.unpack_from("<H", data, at)[0], 12):
        tag = struct.unpack_from("<H", data, entry)[0]
        if tag in (256, 257):
            struct.pack_into("<HII", data, entry + 2, 4, 1, width if tag == 256 else height)
    return bytes(data)


def bmp(width: int, height: int) -> bytes:
    data = bytearray(saved(RGB, "BMP"))
    struct.pack_into("<ii", data, 18, width, height)
    return bytes(data)


def jpeg(width: int, height: int) -> bytes:
    data = bytearray(saved(RGB, "JPEG"))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)


def listed(root: Path, *, labelled: bool = False) -> ListedImage:
    return ListedImage(
        unit=0,
        image_id="image",
        dataset="d",
        image_uri=str(root / "image.png"),
        label_uri=str(root / "label.png") if labelled else None,
    )


def decoded(
    root: Path, image: bytes | None, label: bytes | None = None, codes: LabelCodes = USUAL_CODES
) -> DecodedImage:
    for name, content in (("image.png", image), ("label.png", label)):
        if content is not None:
            (root / name).write_bytes(content)
    return Decoder(codes).decode(listed(root, labelled=label is not None))


def frames(format_: str, **options: Any) -> bytes:
    return saved(RGB, format_, save_all=True, append_images=[Image.fromarray(RGB[::-1])], **options)


HANDLED = {
    "png": (saved(RGB, "PNG"), RGB),
    "jpeg called .png": (saved(np.full((6, 9, 3), 77, np.uint8), "JPEG"), np.full((6, 9, 3), 77)),
    "webp": (saved(RGB, "WEBP", lossless=True), RGB),
    "tiff": (saved(RGB, "TIFF", compression="tiff_lzw"), RGB),
    "cmyk": (saved(Image.new("CMYK", (9, 6), (255, 0, 0, 0)), "JPEG"), np.full((6, 9, 3), [0, 255, 255])),
    "16 bits": (saved(GREY.astype(np.uint16) * 257, "PNG"), np.repeat(GREY[..., None], 3, 2)),
    "grey": (saved(GREY, "PNG"), np.repeat(GREY[..., None], 3, 2)),
    "palette": (
        saved(Image.fromarray(RGB).quantize(16), "PNG"),
        np.array(Image.fromarray(RGB).quantize(16).convert("RGB")),
    ),
    "rgba": (saved(np.dstack([RGB, GREY]), "PNG"), RGB),
    "animated png": (frames("PNG"), RGB),
    "animated webp": (frames("WEBP", lossless=True), RGB),
    "pages of a tiff": (frames("TIFF"), RGB),
    "1x1": (saved(RGB[:1, :1], "PNG"), RGB[:1, :1]),
    "turned by EXIF": (oriented(6), np.rot90(RGB, -1)),
}


@pytest.mark.parametrize("kind", HANDLED)
def test_handled(kind: str, tmp_path: Path) -> None:
    data, expected = HANDLED[kind]
    found = decoded(tmp_path, data)
    assert found.error is None
    assert found.size == expected.shape[:2]
    assert found.rgb.dtype == np.uint8
    assert found.rgb.shape == expected.shape
    np.testing.assert_allclose(found.rgb.astype(int), expected, atol=2 if data.startswith(b"\xff\xd8") else 0)


TOO_LARGE = "the image has more than 67108864 pixels"

REFUSED = {
    "empty": (b"", r"the image file is empty \(0 bytes\); fetch it again"),
    "cut short": (saved(RGB, "PNG")[:90], "the image is damaged or cut short"),
    "no image": (b"PK\3\4" + bytes(99), "the image is not JPEG, PNG, WebP, BMP or TIFF; it begins with b'PK"),
    "a GIF": (saved(GREY, "GIF"), "the image is not JPEG, PNG, WebP, BMP or TIFF"),
    "a web page": (b"<!doctype html><title>404</title>", "the image file is a web page, not an image"),
    "20000x20000": (png(20_000, 20_000, bytes(20_001)), TOO_LARGE),
    # 9000 rows of 9000 zeros, in 80 kB.
    "a bomb": (png(9000, 9000, bytes(9001 * 9000)), f"{TOO_LARGE}.* 9000x9000"),
    "a large jpeg": (jpeg(30_000, 30_000), TOO_LARGE),
    "a large webp": (webp(16_383, 16_383), TOO_LARGE),
    "a large bmp": (bmp(20_000, 20_000), TOO_LARGE),
    "a large tiff": (tiff(20_000, 20_000), TOO_LARGE),
    "a tiff of no pixels": (tiff(0, 6), "the image has an unreadable header"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind: str, tmp_path: Path) -> None:
    data, message = REFUSED[kind]
    found = decoded(tmp_path, data)
    assert found.error
    assert found.image is None
    assert re.match(message, found.error), found.error


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert decoded(tmp_path, None).error == f"cannot read {tmp_path / 'image.png'}: Permission denied"


@pytest.mark.parametrize("what", ["broken link", "folder", "absent"])
def test_no_file(what: str, tmp_path: Path) -> None:
    if what == "broken link":
        (tmp_path / "image.png").symlink_to("gone.png")
    elif what == "folder":
        (tmp_path / "image.png").mkdir()
    assert str(decoded(tmp_path, None).error).startswith(f"cannot read {tmp_path / 'image.png'}: ")


@pytest.mark.parametrize("name", ["two words", "two\nlines", "'quoted\"", "道路"])
def test_names(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    np.testing.assert_array_equal(decoded(tmp_path / name, saved(RGB, "PNG")).rgb, RGB)


LABELS = {
    "another size": (saved(LABEL[:, :-1], "PNG"), r"the label .*label\.png is 8x6 pixels, its image 9x6"),
    "unknown codes": (saved(LABEL + np.uint8(7), "PNG"), "the label holds unknown codes: 6, 7, 8; known are OoD 1"),
    "in colour": (saved(RGB, "PNG"), "the label is in colour"),
    "lossy": (saved(LABEL, "JPEG"), "the label is a JPEG file, which may be lossy"),
    "empty": (b"", "the label file is empty"),
    "large": (png(20_000, 20_000, b""), "the label has more than 67108864 pixels"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_that_are_refused(kind: str, tmp_path: Path) -> None:
    data, message = LABELS[kind]
    error = str(decoded(tmp_path, saved(RGB, "PNG"), data).error)
    assert re.match(message, error), error


def test_a_label_that_should_be_there(tmp_path: Path) -> None:
    (tmp_path / "label.png").symlink_to("gone.png")
    (tmp_path / "image.png").write_bytes(saved(RGB, "PNG"))
    error = str(Decoder(USUAL_CODES).decode(listed(tmp_path, labelled=True)).error)
    assert error.startswith(f"cannot read {tmp_path / 'label.png'}: No such file")


@pytest.mark.parametrize("code", [255, 0])
def test_labels_of_one_class_are_labels(code: int, tmp_path: Path) -> None:
    label = np.full((6, 9), code, np.uint8)
    found = decoded(tmp_path, saved(RGB, "PNG"), saved(label, "PNG"))
    assert found.error is None
    assert found.label is not None
    np.testing.assert_array_equal(found.label, label)


def test_too_little_memory_is_not_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise MemoryError

    data = saved(RGB, "PNG")
    monkeypatch.setattr(Image, "open", fail)
    error = decoded(tmp_path, data).error
    assert error == f"there is not enough memory to decode the image ({len(data)} bytes of file)"
