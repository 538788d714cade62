"""A sheet of panels side by side: a title, and each picture between its caption and its legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from oodray.report.words import one_line

Colour: TypeAlias = tuple[int, int, int]

LARGEST_PANEL = 640
"""Pixels of the longer side of a picture; larger ones are scaled down."""

NARROWEST_COLUMN = 300
"""Room for captions, legends and messages where the picture is narrower."""

MARGIN = 32
GAP = 24
BACKGROUND: Colour = (255, 255, 255)
TEXT: Colour = (28, 32, 38)
QUIET_TEXT: Colour = (96, 104, 114)
TITLE_SIZE, DETAIL_SIZE, CAPTION_SIZE, LEGEND_SIZE = 34, 24, 24, 20

_LINE = 1.4  # from one line of text to the next, in heights of the font
_SWATCH = 20
_BAR_HEIGHT = 20


@dataclass(frozen=True)
class Panel:
    """A picture with its caption above and its legend below."""

    caption: str
    picture: Image.Image
    legend: Image.Image


def panel_size(height: int, width: int) -> tuple[int, int]:
    """Width and height at which a picture is shown: its own, or scaled down to `LARGEST_PANEL`.

    >>> panel_size(720, 1280), panel_size(100, 200)
    ((640, 360), (200, 100))
    """
    scale = min(1.0, LARGEST_PANEL / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def compose(title: str, details: str, panels: Sequence[Panel]) -> Image.Image:
    """The sheet, RGB, with all pictures at one height."""
    columns = [max(NARROWEST_COLUMN, panel.picture.width) for panel in panels]
    pictures_at = MARGIN + _line(TITLE_SIZE) + _line(DETAIL_SIZE) + GAP // 2 + _line(CAPTION_SIZE)
    legends_at = pictures_at + max(panel.picture.height for panel in panels) + GAP // 2
    size = (
        2 * MARGIN + sum(columns) + GAP * (len(columns) - 1),
        legends_at + max(panel.legend.height for panel in panels) + MARGIN,
    )
    sheet = Image.new("RGB", size, BACKGROUND)
    room = size[0] - 2 * MARGIN
    _write(sheet, (MARGIN, MARGIN), _shortened(title, TITLE_SIZE, room), TITLE_SIZE, TEXT)
    details_at = MARGIN + _line(TITLE_SIZE)
    _write(sheet, (MARGIN, details_at), _shortened(details, DETAIL_SIZE, room), DETAIL_SIZE, QUIET_TEXT)
    left = MARGIN
    for panel, column in zip(panels, columns, strict=True):
        _write(sheet, (left, pictures_at - _line(CAPTION_SIZE)), panel.caption, CAPTION_SIZE, TEXT)
        sheet.paste(panel.picture, (left, pictures_at))
        sheet.paste(panel.legend, (left, legends_at))
        left += column + GAP
    return sheet


def message(text: str, size: tuple[int, int]) -> Image.Image:
    """A grey picture that says something, for a panel with nothing to show; larger if the text needs room."""
    text_width, text_height = _text_width(text, CAPTION_SIZE), _line(CAPTION_SIZE)
    width, height = max(size[0], text_width), max(size[1], text_height)
    picture = Image.new("RGB", (width, height), (238, 240, 243))
    at = ((width - text_width) // 2, (height - text_height) // 2)
    _write(picture, at, text, CAPTION_SIZE, QUIET_TEXT)
    return picture


def swatches(entries: Sequence[tuple[Colour | None, str]], picture_width: int) -> Image.Image:
    """A legend: squares of colour, each with its meaning, in as many lines as it takes; None is no square."""
    width = max(NARROWEST_COLUMN, picture_width)
    places, height = _places(entries, width)
    legend = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(legend)
    for (colour, text), (left, top) in zip(entries, places, strict=True):
        if colour is not None:
            draw.rectangle((left, top + 4, left + _SWATCH - 1, top + 3 + _SWATCH), fill=colour)
        _write(legend, (left + _indent(colour), top), text, LEGEND_SIZE, TEXT)
    return legend


def colour_bar(colours: NDArray[np.uint8], threshold: float, picture_width: int) -> Image.Image:
    """A legend: colours, uint8 `(n, 3)`, from 0 to 1, with a mark at the threshold T."""
    width = max(NARROWEST_COLUMN, picture_width)
    texts_at = _BAR_HEIGHT + 8
    legend = Image.new("RGB", (width, texts_at + _line(LEGEND_SIZE)), BACKGROUND)
    legend.paste(Image.fromarray(colours[None]).resize((width, _BAR_HEIGHT), Image.Resampling.NEAREST), (0, 4))
    marked = round(threshold * (width - 1))
    ImageDraw.Draw(legend).rectangle((marked - 1, 0, marked + 1, texts_at - 1), fill=TEXT)
    text, digit = f"T = {threshold}", _text_width("0", LEGEND_SIZE)
    text_width = _text_width(text, LEGEND_SIZE)
    # Below its mark, but beside the 0 and the 1.
    left = min(max(marked - text_width // 2, 2 * digit), width - 2 * digit - text_width)
    for at, what in ((0, "0"), (left, text), (width - digit, "1")):
        _write(legend, (at, texts_at), what, LEGEND_SIZE, TEXT)
    return legend


def _places(entries: Sequence[tuple[Colour | None, str]], width: int) -> tuple[list[tuple[int, int]], int]:
    """Left and top of each entry of a legend, and the height of them all."""
    left, top, places = 0, 0, []
    for colour, text in entries:
        needed = _indent(colour) + _text_width(text, LEGEND_SIZE)
        if left and left + needed > width:
            left, top = 0, top + _line(LEGEND_SIZE)
        places.append((left, top))
        left += needed + GAP
    return places, top + _line(LEGEND_SIZE)


def _indent(colour: Colour | None) -> int:
    return 0 if colour is None else _SWATCH + 8


def _shortened(text: str, size: int, width: int) -> str:
    """The text on one line, without its middle where it is too wide."""
    text = one_line(text)
    if _text_width(text, size) <= width:
        return text
    kept = len(text) - 1
    while kept > 2 and _text_width(_without_middle(text, kept), size) > width:
        kept -= 1
    return _without_middle(text, kept)


def _without_middle(text: str, kept: int) -> str:
    return f"{text[: kept - kept // 2]}...{text[-(kept // 2) :]}"


def _write(image: Image.Image, at: tuple[int, int], text: str, size: int, colour: Colour) -> None:
    ImageDraw.Draw(image).text(at, text, fill=colour, font=_font(size))


def _text_width(text: str, size: int) -> int:
    return round(_font(size).getlength(text))


def _line(size: int) -> int:
    return round(size * _LINE)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
