from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from oodray.datasets import images
from oodray.datasets.images import (
    MAX_PIXELS,
    LabelCodes,
    decode_codes,
    decode_image,
    decode_label,
    decode_mask,
    encode_png,
    read_bytes,
)
from oodray.errors import ImageError

CODES = LabelCodes(ood=frozenset({1}), ignore=frozenset({255}), in_distribution=frozenset({0}))
RGB = np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def saved(image: Image.Image, format_: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def grey_rgb(grey: NDArray[Any]) -> NDArray[np.uint8]:
    return np.stack([grey] * 3, axis=-1).astype(np.uint8)


def rgba() -> Image.Image:
    """Random colours, half of them fully transparent."""
    alpha = np.where(GREY < 128, 0, 255).astype(np.uint8)
    return Image.fromarray(np.dstack([RGB, alpha]))


def palette_image() -> tuple[Image.Image, NDArray[np.uint8]]:
    """A palette image and its indices."""
    indices = (GREY % 7).astype(np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(np.random.default_rng(1).integers(0, 256, 21, dtype=np.uint8).tobytes())
    return image, indices


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of few bytes that says that it is large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 64))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


FILES: dict[str, bytes] = {
    "jpeg": saved(Image.fromarray(RGB), "JPEG"),
    "progressive jpeg": saved(Image.fromarray(RGB), "JPEG", progressive=True),
    "png": saved(Image.fromarray(RGB), "PNG"),
    "grey png": saved(Image.fromarray(GREY), "PNG"),
    "webp": saved(Image.fromarray(RGB), "WEBP"),
    "lossless webp": saved(Image.fromarray(RGB), "WEBP", lossless=True),
    "bmp": saved(Image.fromarray(RGB), "BMP"),
    "tiff": saved(Image.fromarray(RGB), "TIFF"),
    "lzw tiff": saved(Image.fromarray(RGB), "TIFF", compression="tiff_lzw"),
}

DECODERS: list[tuple[Callable[[bytes], NDArray[Any]], int]] = [
    (decode_image, 3),
    (decode_codes, 2),
    (decode_mask, 2),
    (partial(decode_label, codes=CODES), 2),
]


def decoded_or_refused(data: bytes) -> None:
    """Every decoder gives an array of its kind or an ImageError without a memory address."""
    for decode, dimensions in DECODERS:
        message, array = "", None
        try:
            array = decode(data)
        except ImageError as error:
            message = str(error)
        if array is None:
            assert message
            assert not re.search("0x[0-9a-f]{6}", message)
        else:
            assert array.ndim == dimensions
            assert array.size > 0


# --- decode_image


@pytest.mark.parametrize("name", ["png", "lossless webp", "bmp", "tiff", "lzw tiff"])
def test_lossless_rgb_is_exact(name: str) -> None:
    np.testing.assert_array_equal(decode_image(FILES[name]), RGB)


@pytest.mark.parametrize("name", FILES)
def test_image_is_a_writable_contiguous_array(name: str) -> None:
    image = decode_image(FILES[name])
    assert image.dtype == np.uint8
    assert image.shape == (13, 17, 3)
    assert image.flags.c_contiguous
    assert image.flags.writeable


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_jpeg_is_close(options: dict[str, Any]) -> None:
    smooth = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    image = decode_image(saved(Image.fromarray(smooth), "JPEG", quality=95, **options))
    assert np.abs(image.astype(int) - smooth).max() <= 8


@pytest.mark.parametrize("format_", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(format_: str) -> None:
    cmyk = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    np.testing.assert_allclose(decode_image(saved(cmyk, format_)), np.full((8, 8, 3), [0, 255, 255]), atol=2)


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF"])
def test_grey_becomes_rgb(format_: str) -> None:
    np.testing.assert_array_equal(decode_image(saved(Image.fromarray(GREY), format_)), grey_rgb(GREY))


def test_grey_jpeg_becomes_rgb() -> None:
    image = decode_image(saved(Image.new("L", (8, 8), 77), "JPEG"))
    np.testing.assert_array_equal(image, np.full((8, 8, 3), 77))


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_the_upper_eight(format_: str) -> None:
    deep = np.array([[0, 255, 256, 40000, 65535]], np.uint16)
    image = decode_image(saved(Image.fromarray(deep), format_))
    np.testing.assert_array_equal(image, grey_rgb(deep // 256))
    assert image.flags.writeable
    assert image.flags.c_contiguous


def test_sixteen_bit_colour_keeps_the_upper_eight() -> None:
    # Pillow does not write such PNGs.
    rows = b"\0" + struct.pack(">6H", 0, 300, 65535, 256, 255, 40000)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    image = decode_image(b"\x89PNG\r\n\x1a\n" + chunks)
    assert image.tolist() == [[[0, 1, 255], [1, 0, 156]]]


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_alpha_is_dropped(format_: str) -> None:
    np.testing.assert_array_equal(decode_image(saved(rgba(), format_)), RGB)
    np.testing.assert_array_equal(decode_image(saved(rgba().convert("LA"), format_))[..., 0], rgba().convert("L"))


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF"])
def test_palette_gives_its_colours(format_: str) -> None:
    image, indices = palette_image()
    palette = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    np.testing.assert_array_equal(decode_image(saved(image, format_)), palette[indices])


def test_transparent_palette_gives_its_colours_without_a_warning() -> None:
    image, indices = palette_image()
    palette = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    data = saved(image, "PNG", transparency=bytes([0, 100, 255, 255, 255, 255, 255]))
    np.testing.assert_array_equal(decode_image(data), palette[indices])


def test_one_bit_becomes_black_and_white() -> None:
    bits = GREY > 100
    np.testing.assert_array_equal(decode_image(saved(Image.fromarray(bits), "PNG")), grey_rgb(bits * 255))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bit_images_are_refused(mode: str) -> None:
    with pytest.raises(ImageError, match="a TIFF of 1 channel of 32-bit "):
        decode_image(saved(Image.new(mode, (3, 2)), "TIFF"))


@pytest.mark.parametrize(
    ("format_", "options"),
    [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("MPO", {"quality": 100})],
)
def test_first_frame_of_many(format_: str, options: dict[str, Any]) -> None:
    first, second = Image.new("RGB", (16, 16), (200, 0, 0)), Image.new("RGB", (16, 16), (0, 200, 0))
    data = saved(first, format_, save_all=True, append_images=[second], **options)
    np.testing.assert_allclose(decode_image(data), np.array(first), atol=2)


def test_pixels_come_as_they_are_stored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(RGB), "PNG", exif=exif)
    np.testing.assert_array_equal(decode_image(data), RGB)


# --- size limits


@pytest.mark.parametrize("size", [(8193, 8192), (100_000, 100_000), (2**31 - 1, 2**31 - 1)])
def test_large_images_are_refused_before_decoding(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=f"more than {MAX_PIXELS} pixels"):
        decode_image(png_claiming(*size))


def test_the_limit_itself_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 6)
    assert decode_image(encode_png(np.zeros((2, 3), np.uint8))).shape == (2, 3, 3)
    with pytest.raises(ImageError, match=r"more than 6 pixels.*it is 7x1"):
        decode_image(encode_png(np.zeros((1, 7), np.uint8)))


def test_at_the_limit_neighbouring_ratios_differ() -> None:
    assert MAX_PIXELS / MAX_PIXELS != (MAX_PIXELS - 1) / MAX_PIXELS
    assert (MAX_PIXELS - 1) / MAX_PIXELS != (MAX_PIXELS - 2) / (MAX_PIXELS - 1)


# --- broken bytes


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the image file is empty"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
        (b"<html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
        (b"\0" * 5000, r"is not JPEG, PNG, WebP, BMP or TIFF; it begins with b'\\x00"),
        (b"GIF89a" + bytes(100), "is not JPEG, PNG, WebP, BMP or TIFF; it begins with b'GIF89a"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not JPEG"),
        ("Grüße".encode(), "is not JPEG"),
        (FILES["png"][:20], "the image is damaged or cut short"),
        (FILES["jpeg"][:4], r"the image has an unreadable header; it is damaged or cut short \(4 bytes\)"),
        (FILES["png"][:100], "the image is damaged or cut short"),
        (png_claiming(100, 100), "the image is damaged or cut short"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode_image(data)


@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_is_refused(name: str) -> None:
    data = FILES[name]
    whole = decode_image(data)
    refused = 0
    for length in range(len(data)):
        try:
            # What is left off may be no part of the pixels, as the end marker is.
            np.testing.assert_array_equal(decode_image(data[:length]), whole)
        except ImageError:
            refused += 1
    assert refused > 0.9 * len(data)


@given(st.binary(max_size=300))
def test_random_bytes(data: bytes) -> None:
    decoded_or_refused(data)


@settings(deadline=None)
@given(
    st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0\x08\0\0\0", b"RIFF"]),
    st.binary(max_size=300),
)
def test_random_bytes_after_a_signature(signature: bytes, data: bytes) -> None:
    decoded_or_refused(signature + data)


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=5),
    st.integers(0, 50),
)
def test_mutated_files(name: str, changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(FILES[name])
    for position, value in changes:
        data[position % len(data)] = value
    decoded_or_refused(bytes(data[: len(data) - cut]))


@given(st.binary(max_size=40), st.integers(1, 64), st.integers(1, 64))
def test_png_with_any_pixel_data(pixels: bytes, width: int, height: int) -> None:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    decoded_or_refused(b"\x89PNG\r\n\x1a\n" + chunks)


def test_any_exception_of_pillow_is_an_image_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise struct.error("unpack requires a buffer")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(ImageError, match=r"damaged or cut short \(error: unpack requires a buffer\)"):
        decode_image(FILES["png"])


# --- labels


def test_codes_become_labels() -> None:
    codes = LabelCodes(ood=frozenset({2}), ignore=frozenset(), in_distribution=frozenset({0}))
    labels = decode_label(encode_png(np.array([[0, 2], [2, 0]], np.uint8)), codes)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF"])
def test_palette_labels_are_indices(format_: str) -> None:
    image, indices = palette_image()
    np.testing.assert_array_equal(decode_codes(saved(image, format_)), indices)


def test_one_bit_labels_are_zero_and_one() -> None:
    bits = GREY > 100
    codes = decode_codes(saved(Image.fromarray(bits), "PNG"))
    np.testing.assert_array_equal(codes, bits.astype(np.uint8))
    assert codes.dtype == np.uint8


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_sixteen_bit_labels_keep_their_codes(format_: str) -> None:
    deep = np.array([[0, 1, 256, 257, 65535]], np.uint16)
    np.testing.assert_array_equal(decode_codes(saved(Image.fromarray(deep), format_)), deep)


def test_big_endian_labels_come_in_native_byte_order() -> None:
    image = Image.new("I;16B", (1, 1), 258)
    codes = decode_codes(saved(image, "TIFF"))
    assert codes.tolist() == [[258]]
    assert codes.dtype.isnative


def test_32_bit_labels() -> None:
    image = Image.fromarray(np.array([[0, 1, 255]], np.int32))
    assert decode_label(saved(image, "TIFF"), CODES).tolist() == [[0, 1, 255]]


@pytest.mark.parametrize("code", [-1, 65536, 2**31 - 1, -(2**31)])
def test_32_bit_codes_out_of_range_are_unknown(code: int) -> None:
    data = saved(Image.fromarray(np.array([[0, 1, code]], np.int32)), "TIFF")
    with pytest.raises(ImageError, match=f"unknown codes: {code};"):
        decode_label(data, LabelCodes(frozenset({1}), frozenset(), None))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colour_with_equal_channels_is_one_channel(mode: str) -> None:
    data = saved(Image.fromarray(GREY).convert(mode), "PNG")
    np.testing.assert_array_equal(decode_codes(data), GREY)


def test_alpha_of_a_label_does_not_count() -> None:
    alpha = np.full_like(GREY, 3)
    data = saved(Image.fromarray(np.dstack([GREY, GREY, GREY, alpha])), "PNG")
    np.testing.assert_array_equal(decode_codes(data), GREY)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_colour_labels_are_refused(channel: int) -> None:
    colour = grey_rgb(GREY)
    colour[5, 7, channel] ^= 1
    with pytest.raises(ImageError, match=r"in colour, .* visualisation.*labels_semantic\.png, not"):
        decode_label(encode_png(colour), CODES)


@pytest.mark.parametrize("format_", ["JPEG", "WEBP"])
def test_lossy_labels_are_refused(format_: str) -> None:
    with pytest.raises(ImageError, match=f"the label is a {format_} file"):
        decode_label(saved(Image.fromarray(GREY), format_), CODES)


def test_floating_point_labels_are_refused() -> None:
    with pytest.raises(ImageError, match="floating-point"):
        decode_codes(saved(Image.new("F", (3, 2)), "TIFF"))


def test_unknown_codes_are_named() -> None:
    with pytest.raises(ImageError, match=r"unknown codes: 2, 3, 4, 5, 6 and 248 more; known are OoD 1, ignore 255"):
        decode_label(encode_png(np.arange(255, dtype=np.uint8)[None]), CODES)
    with pytest.raises(ImageError, match=r"unknown codes: 7; .* in-distribution 0\. Is it the right file"):
        decode_label(encode_png(np.array([[0, 7, 7]], np.uint8)), CODES)


def test_label_254_is_an_ordinary_code() -> None:
    codes = LabelCodes(ood=frozenset({254}), ignore=frozenset(), in_distribution=None)
    assert codes.labels(np.array([[254, 253, 255]], np.uint8)).tolist() == [[1, 0, 0]]


@given(
    hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.integers(0, 12)),
    st.lists(st.sampled_from(["ood", "ignore", "in", "none"]), min_size=13, max_size=13),
    st.booleans(),
)
def test_labels_follow_the_definition(values: NDArray[np.uint16], meanings: list[str], rest: bool) -> None:
    ood, ignore, inside = (
        frozenset(code for code, meaning in enumerate(meanings) if meaning == name) for name in ("ood", "ignore", "in")
    )
    codes = LabelCodes(ood, ignore, None if rest else inside)
    unknown = sorted({int(code) for code in values.flat if meanings[code] == "none"})
    if unknown and not rest:
        with pytest.raises(ImageError, match=f"unknown codes: {unknown[0]}[,;]"):
            codes.labels(values)
    else:
        expected = np.where(np.isin(values, list(ood)), 1, np.where(np.isin(values, list(ignore)), 255, 0))
        np.testing.assert_array_equal(codes.labels(values), expected)


def test_a_code_has_one_meaning() -> None:
    with pytest.raises(ValueError, match="two meanings"):
        LabelCodes(ood=frozenset({1}), ignore=frozenset({1}), in_distribution=None)
    with pytest.raises(ValueError, match=r"0\.\.65535"):
        LabelCodes(ood=frozenset({65536}), ignore=frozenset(), in_distribution=None)


# --- PNG and files


@given(
    hnp.arrays(
        np.uint8,
        st.tuples(st.integers(1, 9), st.integers(1, 9)) | st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)),
    )
)
def test_png_round_trip(array: NDArray[np.uint8]) -> None:
    data = encode_png(array)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), array)
    np.testing.assert_array_equal(decode_image(data), array if array.ndim == 3 else grey_rgb(array))
    if array.ndim == 2:
        np.testing.assert_array_equal(decode_mask(data), array)


def test_png_of_a_view() -> None:
    np.testing.assert_array_equal(decode_image(encode_png(RGB[::-1, ::2, ::-1])), RGB[::-1, ::2, ::-1])


def test_png_of_a_mask_is_small() -> None:
    rows, columns = np.ogrid[:720, :1280]
    mask = np.where((rows - 400) ** 2 + (columns - 600) ** 2 < 250**2, 255, 0).astype(np.uint8)
    assert len(encode_png(mask)) < len(saved(Image.fromarray(mask), "PNG", compress_level=3)) / 1.5


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2), np.float32),
        np.zeros((2, 2), np.bool_),
        np.zeros(4, np.uint8),
        np.zeros((2, 2, 4), np.uint8),
        np.zeros((2, 2, 3, 1), np.uint8),
        np.zeros((0, 2), np.uint8),
    ],
)
def test_png_takes_images_only(array: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="a PNG takes uint8"):
        encode_png(array)


def test_mask_is_writable() -> None:
    assert decode_mask(encode_png(GREY)).flags.writeable


@pytest.mark.parametrize("name", ["png", "jpeg", "tiff"])
def test_other_images_are_no_masks(name: str) -> None:
    with pytest.raises(ImageError, match="not an 8-bit greyscale PNG"):
        decode_mask(FILES[name])


def test_read_bytes(tmp_path: Path) -> None:
    path = tmp_path / "Straße mit Rehen.jpg"
    path.write_bytes(b"data")
    assert read_bytes(str(path)) == b"data"


def test_unreadable_files_are_image_errors(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot read .*absent\.png: No such file or directory"):
        read_bytes(str(tmp_path / "absent.png"))
    with pytest.raises(ImageError, match="Is a directory"):
        read_bytes(str(tmp_path))
    with pytest.raises(ImageError, match="null byte"):
        read_bytes("a\0b")
    with pytest.raises(ImageError, match="File name too long"):
        read_bytes(str(tmp_path / ("x" * 300)))
