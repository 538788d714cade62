from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin

from oodray.datasets.images import decode_image
from oodray.datasets.orientation import exif_orientation, turned, upright

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
ORIENTATIONS = range(1, 9)


def saved(orientation: object, format_: str = "PNG", pixels: NDArray[np.uint8] = PIXELS) -> bytes:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(buffer, format_, exif=exif)
    return buffer.getvalue()


def as_pillow_turns_it(orientation: int) -> NDArray[np.uint8]:
    return np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(saved(orientation)))))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_turned_as_pillow_turns(orientation: int) -> None:
    np.testing.assert_array_equal(turned(PIXELS, orientation), as_pillow_turns_it(orientation))


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_what_the_file_says(orientation: int, format_: str) -> None:
    assert exif_orientation(saved(orientation, format_)) == orientation


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_tiff_is_turned_once(orientation: int) -> None:
    data = saved(orientation, "TIFF")
    np.testing.assert_array_equal(turned(decode_image(data), exif_orientation(data)), as_pillow_turns_it(orientation))


@pytest.mark.parametrize("nonsense", [0, 9, 65535])
def test_nonsense_is_no_orientation(nonsense: int) -> None:
    assert exif_orientation(saved(nonsense)) == 1


@pytest.mark.parametrize("data", [b"", b"\x89PNG", b"<html>", saved(6)[:40]])
def test_broken_files_say_nothing(data: bytes) -> None:
    assert exif_orientation(data) == 1


def test_metadata_that_is_cut_short_says_nothing() -> None:
    data = saved(6, "JPEG")
    at = data.index(b"Exif")
    assert exif_orientation(data[: at + 6] + b"\xff" * 8 + data[at + 14 :]) == 1


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_without_a_label_it_is_applied(orientation: int) -> None:
    found = upright(PIXELS, orientation, None)
    np.testing.assert_array_equal(found.pixels, as_pillow_turns_it(orientation))
    assert (found.orientation, found.warning) == (orientation, None)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_the_label_tells_which_way_an_image_lies(orientation: int) -> None:
    as_stored, as_meant = upright(PIXELS, orientation, (3, 5)), upright(PIXELS, orientation, (5, 3))
    np.testing.assert_array_equal(as_stored.pixels, PIXELS)
    np.testing.assert_array_equal(as_meant.pixels, as_pillow_turns_it(orientation))
    assert (as_stored.orientation, as_stored.warning) == (1, None)
    assert (as_meant.orientation, as_meant.warning) == (orientation, None)


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_what_the_label_cannot_tell_is_said(orientation: int) -> None:
    found = upright(PIXELS, orientation, (3, 5))
    assert found.orientation == orientation
    assert found.warning is not None
    assert f"EXIF orientation {orientation}" in found.warning


def test_a_square_cannot_tell_either() -> None:
    assert upright(PIXELS[:, :3], 6, (3, 3)).warning is not None


def test_a_label_of_yet_another_size_is_for_others_to_refuse() -> None:
    assert upright(PIXELS, 6, (7, 7)).warning is None


def test_a_png_without_metadata_is_not_decoded_to_look_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    monkeypatch.setattr(Image.Image, "getexif", lambda image: pytest.fail("decoded"))
    assert exif_orientation(buffer.getvalue()) == 1


def test_a_png_may_say_it_in_xmp() -> None:
    text, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    Image.fromarray(PIXELS).save(buffer, "PNG", pnginfo=text)
    assert exif_orientation(buffer.getvalue()) == 6
