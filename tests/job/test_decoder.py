from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from plain_records import plain
from written_images import Content, WrittenImages, random_pixels

from oodray.datasets.layouts import get_layout
from oodray.datasets.manifest import ListedImage
from oodray.errors import ImageError
from oodray.job.decoder import Decoder
from oodray.job.units import DecodedImage
from oodray.records import extended

IMAGE = random_pixels(0)
CODES = np.random.default_rng(1).choice([0, 1, 9, 255], IMAGE.shape[:2]).astype(np.uint8)


def decode(*images: ListedImage) -> list[DecodedImage]:
    return Decoder(get_layout("ade-ood").label_codes)(list(images))


def with_orientation(image: NDArray[np.uint8], orientation: int) -> bytes:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(image).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


@pytest.fixture
def written(tmp_path: Path) -> WrittenImages:
    return WrittenImages(tmp_path)


def test_pixels_and_labels_are_those_of_the_files(written: WrittenImages) -> None:
    listed = written("a", IMAGE, CODES)
    [decoded] = decode(listed)
    assert decoded.seconds_decode is not None
    assert decoded.seconds_decode > 0
    expected = extended(
        DecodedImage,
        listed,
        error=None,
        height=24,
        width=40,
        orientation=1,
        warning=None,
        image=IMAGE,
        label=np.where(CODES == 9, 0, CODES).astype(np.uint8),
        seconds_decode=decoded.seconds_decode,
    )
    assert plain(decoded) == plain(expected)


def test_the_orientation_that_fits_the_label_is_taken_and_recorded(written: WrittenImages) -> None:
    sideways = with_orientation(np.rot90(IMAGE), 6)
    [fits] = decode(written("a", sideways, CODES))
    assert (fits.orientation, fits.warning) == (6, None)
    np.testing.assert_array_equal(fits.rgb, IMAGE)
    [as_stored] = decode(written("b", sideways, np.ascontiguousarray(np.rot90(CODES))))
    assert (as_stored.orientation, as_stored.warning) == (1, None)
    np.testing.assert_array_equal(as_stored.rgb, np.rot90(IMAGE))
    [either] = decode(written("c", with_orientation(IMAGE, 3), CODES))
    assert either.orientation == 3
    assert "fits the image both as it is stored and turned" in str(either.warning)
    np.testing.assert_array_equal(either.rgb, np.rot90(IMAGE, 2))


def test_an_image_without_label_has_none(written: WrittenImages) -> None:
    [decoded] = decode(written("a", IMAGE))
    assert (decoded.label, decoded.error) == (None, None)


@pytest.mark.parametrize(
    ("image", "codes", "problem"),
    [
        (b"", CODES, "empty"),
        (b"<html>404", CODES, "web page"),
        (None, CODES, r"cannot read .*a\.image\.png"),
        (IMAGE, b"\x89PNG", "label has an unreadable header"),
        (IMAGE, CODES[:, :-1], r"label .* is 39x24 pixels, its image 40x24"),
        (IMAGE, CODES.T, "is 24x40 pixels"),
    ],
)
def test_what_cannot_be_read_is_an_error_of_its_image_alone(
    written: WrittenImages, image: Content, codes: Content, problem: str
) -> None:
    broken = written("a", image, codes)
    whole = written("b", IMAGE, CODES)
    decoded = decode(whole, broken, replace(whole, image_id="c"))
    assert [found.image_id for found in decoded] == ["b", "a", "c"]
    assert [found.error is None for found in decoded] == [True, False, True]
    with pytest.raises(ImageError, match=problem):
        raise ImageError(str(decoded[1].error))
    assert (decoded[1].image, decoded[1].height) == (None, None)


def test_a_label_that_should_be_there_and_is_not_is_an_error(written: WrittenImages, tmp_path: Path) -> None:
    [decoded] = decode(replace(written("a", IMAGE), label_uri=str(tmp_path / "none.png")))
    assert "none.png: No such file" in str(decoded.error)


def test_unknown_codes_are_named(written: WrittenImages) -> None:
    listed = written("a", IMAGE, CODES)
    codes = get_layout("street-hazards").label_codes
    assert "unknown codes: 0, 255" in str(Decoder(codes).decode(listed).error)
