"""Files that are sound and odd: large texts in PNG, TIFF of measurements, JPEG without its end."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odd_files import chunk, png, tiff
from PIL import Image

from oodray.datasets.images import decode_codes, decode_image, decode_with_warning, encode_png, storage_oddities
from oodray.datasets.jpeg_end import NO_END, with_end
from oodray.datasets.layout import USUAL_CODES
from oodray.datasets.manifest import ListedImage
from oodray.datasets.orientation import exif_orientation
from oodray.errors import ImageError
from oodray.job.decoder import Decoder

GREY = [b"\0\x40\xff", b"\1\x80\xfe"]
LARGE = zlib.compress(bytes(3 * 2**20))
"""3 MiB in 3 KiB."""

# --- PNG

TEXTS = {
    "zTXt": chunk(b"zTXt", b"Comment\0\0" + LARGE),
    "iTXt": chunk(b"iTXt", b"Comment\0\1\0\0\0" + LARGE),
    "iTXt as it is": chunk(b"iTXt", b"Comment\0\0\0\0\0" + b"x" * 2**21),
    "iCCP": chunk(b"iCCP", b"profile\0\0" + LARGE),
    "tEXt": chunk(b"tEXt", b"Comment\0" + b"x" * 2**21),
    "many": chunk(b"tEXt", b"Comment\0" + b"x" * 2**20) * 66,
    "damaged": chunk(b"zTXt", b"Comment\0\0" + b"no zlib"),
    "wrong checksum": chunk(b"tEXt", b"Comment\0x")[:-4] + b"\0\0\0\0",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("behind", [False, True], ids=["before the pixels", "behind them"])
def test_no_text_in_a_png_keeps_its_pixels_away(text: bytes, behind: bool) -> None:
    sound = png(GREY, 3)
    file = sound[:-12] + text + sound[-12:] if behind else png(GREY, 3, chunks=text)
    assert decode_codes(file).tolist() == [[0, 64, 255], [1, 128, 254]]
    assert decode_image(file)[..., 1].tolist() == [[0, 64, 255], [1, 128, 254]]
    assert storage_oddities(file) == []


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_png_with_large_texts_is_still_turned(text: bytes) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert exif_orientation(png(GREY, 3, chunks=text + chunk(b"eXIf", exif.tobytes()[6:]))) == 6


def test_the_orientation_in_xmp_stays() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="8"/></x:xmpmeta>'
    file = png(GREY, 3, chunks=TEXTS["zTXt"] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    assert exif_orientation(file) == 8


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)], ids=["RGB", "grey and alpha", "RGBA"])
def test_a_label_whose_lower_bits_would_be_lost_is_refused(colour: int, channels: int) -> None:
    file = png([b"\0\1" * 3 * channels], 3, depth=16, colour=colour)
    with pytest.raises(ImageError, match="16 bits each, of which the lower 8 would be lost"):
        decode_codes(file)
    assert decode_codes(png([b"\0\1" * 3], 3, depth=16)).tolist() == [[1, 1, 1]]
    assert decode_image(file).shape == (1, 3, 3)


@pytest.mark.parametrize("largest", [1, 255, 1023, 4095])
def test_a_camera_of_12_bits_is_told_to_be_dark(largest: int) -> None:
    row = b"".join(value.to_bytes(2, "big") for value in (0, largest // 2, largest))
    pixels, warning = decode_with_warning(png([row], 3, depth=16))
    assert pixels.max() == largest >> 8
    assert warning is not None
    assert f"its values of 16 bits reach {largest} of 65535" in warning


@pytest.mark.parametrize("largest", [0, 4096, 65535])
def test_other_images_of_16_bits_are_not(largest: int) -> None:
    assert decode_with_warning(png([largest.to_bytes(2, "big")], 1, depth=16))[1] is None


def test_transparent_colours_count_as_alpha() -> None:
    palette = chunk(b"PLTE", bytes(range(9))) + chunk(b"tRNS", b"\xff\x00")
    file = png([b"\0\1\2"], 3, colour=3, chunks=palette)
    assert storage_oddities(file) == ["an alpha channel, which is dropped"]
    assert decode_image(file).tolist() == [[[0, 1, 2], [3, 4, 5], [6, 7, 8]]]


# --- TIFF


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ({"bits": 32, "channels": 3, "numbers": 3}, "3 channels of 32-bit floating-point numbers"),
        ({"bits": 16, "channels": 13}, "13 channels of 16-bit unsigned integers"),
        ({"bits": 8, "channels": 5}, "5 channels of 8-bit unsigned integers"),
        ({"bits": 16, "numbers": 2}, "1 channel of 16-bit signed integers"),
        ({"bits": 16, "numbers": 3}, "1 channel of 16-bit floating-point numbers"),
        ({"bits": 64, "numbers": 3}, "1 channel of 64-bit floating-point numbers"),
        ({"bits": 32}, "1 channel of 32-bit unsigned integers"),
        ({"bits": 8, "numbers": 2}, "1 channel of 8-bit signed integers"),
        ({"bits": 12}, "1 channel of 12-bit unsigned integers"),
        ({"channels": 3, "colour": 8}, "CIELab colour"),
        ({"bits": 16, "channels": 3, "colour": 8}, "CIELab colour"),
        ({"bits": 16, "colour": 32803}, "raw sensor values"),
        ({"channels": 2}, "2 channels without a word on the second"),
        ({"compression": 34887}, "LERC compression"),
        ({"compression": 34712}, "JPEG 2000 compression"),
    ],
)
def test_a_tiff_that_is_no_image_to_look_at_is_named(kind: dict[str, Any], name: str) -> None:
    with pytest.raises(ImageError, match=f"the image (is a|file is a) TIFF of {name}; oodray takes 1, 3 or 4 channels"):
        decode_image(tiff(5, 7, **kind))


@pytest.mark.parametrize(
    "kind", [{}, {"bits": 16}, {"channels": 3}, {"bits": 16, "channels": 3}, {"channels": 4, "further": {338: [2]}}]
)
def test_a_tiff_of_8_or_16_bits_is_an_image(kind: dict[str, Any]) -> None:
    assert decode_image(tiff(5, 7, **kind)).shape == (5, 7, 3)


def test_a_tiff_that_is_cut_is_not_named_after_its_kind() -> None:
    with pytest.raises(ImageError, match="damaged or cut short"):
        decode_image(tiff(5, 7, channels=3)[:-20])


def test_labels_may_be_signed() -> None:
    values = np.array([[0, 1], [255, 1]], "<i2")
    assert decode_codes(tiff(2, 2, bits=16, numbers=2, values=values.tobytes())).tolist() == values.tolist()


def test_lab_has_no_alpha() -> None:
    buffer = io.BytesIO()
    Image.new("LAB", (4, 4)).save(buffer, "TIFF")
    assert storage_oddities(buffer.getvalue()) == []


# --- JPEG

RAMP = np.add.outer(np.arange(75), np.arange(101)).astype(np.uint8)
PIXELS = np.stack([RAMP, RAMP * 2, 255 - RAMP], axis=-1)
OPTIONS: list[dict[str, Any]] = [
    {},
    {"progressive": True},
    {"quality": 100, "subsampling": 0},
    {"restart_marker_blocks": 4},
]


def jpeg(**options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("cut", [1, 2])
def test_a_jpeg_without_its_end_has_all_pixels_and_a_warning(options: dict[str, Any], cut: int) -> None:
    whole = jpeg(**options)
    pixels, warning = decode_with_warning(whole[:-cut])
    assert np.array_equal(pixels, decode_image(whole))
    assert warning == NO_END
    assert decode_with_warning(whole)[1] is None


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_jpeg_without_some_pixels_is_cut_short(options: dict[str, Any]) -> None:
    whole = jpeg(**options)
    for cut in (3, 4, 5, 8, 20, 100, len(whole) // 2, len(whole) - 30):
        with pytest.raises(ImageError, match="damaged or cut short"):
            decode_image(whole[:-cut])


def test_a_progressive_jpeg_that_ends_between_its_scans_is_cut_short() -> None:
    whole = jpeg(progressive=True)
    table = whole.rfind(b"\xff\xc4")  # of the last scan
    assert with_end(whole[: table + 12]) is None


def test_the_warning_reaches_the_row_and_the_other_warning_stays(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    (tmp_path / "a.jpg").write_bytes(jpeg(exif=exif)[:-2])
    (tmp_path / "a.png").write_bytes(encode_png(np.zeros((75, 101), np.uint8)))
    listed = ListedImage(
        unit=0, image_id="a", dataset="folder", image_uri=f"{tmp_path}/a.jpg", label_uri=f"{tmp_path}/a.png"
    )
    decoded = Decoder(USUAL_CODES).decode(listed)
    assert decoded.error is None
    assert decoded.warning is not None
    assert decoded.warning.startswith(f"{NO_END}; the label fits the image both")
