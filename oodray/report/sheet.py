"""A sheet of panels in rows: a title, and each picture between its caption and its legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from oodray.report.words import one_line

Colour: TypeAlias = tuple[int, int, int]

LARGEST_PANEL = 480
"""Pixels of the longer side of a picture; larger ones are scaled down."""

SMALLER_PANEL = 366
"""The same where four have to fit into a row."""

WIDEST_SHEET = 1600
"""Pixels; panels that need more come in further rows."""

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
_LEAST_NUMBERED = 100


@dataclass(frozen=True)
class Panel:
    """A picture with its caption above and its legend below."""

    caption: str
    picture: Image.Image
    legend: Image.Image


def panel_size(height: int, width: int, side: int = LARGEST_PANEL) -> tuple[int, int]:
    """Width and height at which a picture is shown: its own, or scaled down to a longer side.

    >>> panel_size(720, 1280), panel_size(100, 200)
    ((480, 270), (200, 100))
    """
    scale = min(1.0, side / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def compose(title: str, details: str, panels: Sequence[Panel]) -> Image.Image:
    """The sheet, RGB. Its rows have as many panels as fit, and as far as possible equally many."""
    drawn = [_row_picture(row) for row in _rows(panels)]
    head = _line(TITLE_SIZE) + _line(DETAIL_SIZE) + GAP // 2
    width = max(row.width for row in drawn) + 2 * MARGIN
    height = 2 * MARGIN + head + sum(row.height for row in drawn) + GAP * (len(drawn) - 1)
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    room = width - 2 * MARGIN
    _write(sheet, (MARGIN, MARGIN), _shortened(title, TITLE_SIZE, room), TITLE_SIZE, TEXT)
    details_at = MARGIN + _line(TITLE_SIZE)
    _write(sheet, (MARGIN, details_at), _shortened(details, DETAIL_SIZE, room), DETAIL_SIZE, QUIET_TEXT)
    top = MARGIN + head
    for row in drawn:
        sheet.paste(row, (MARGIN, top))
        top += row.height + GAP
    return sheet


def _rows(panels: Sequence[Panel]) -> list[Sequence[Panel]]:
    widest = max(_column(panel) for panel in panels)
    fitting = max(1, (WIDEST_SHEET - 2 * MARGIN + GAP) // (widest + GAP))
    rows = -(-len(panels) // fitting)
    columns = -(-len(panels) // rows)
    return [panels[start : start + columns] for start in range(0, len(panels), columns)]


def _row_picture(panels: Sequence[Panel]) -> Image.Image:
    """Panels side by side, their pictures at one height."""
    legends_at = _line(CAPTION_SIZE) + max(panel.picture.height for panel in panels) + GAP // 2
    width = sum(map(_column, panels)) + GAP * (len(panels) - 1)
    row = Image.new("RGB", (width, legends_at + max(panel.legend.height for panel in panels)), BACKGROUND)
    left = 0
    for panel in panels:
        _write(row, (left, 0), panel.caption, CAPTION_SIZE, TEXT)
        row.paste(panel.picture, (left, _line(CAPTION_SIZE)))
        row.paste(panel.legend, (left, legends_at))
        left += _column(panel) + GAP
    return row


def _column(panel: Panel) -> int:
    return max(NARROWEST_COLUMN, panel.picture.width)


def numbered(picture: Image.Image, numbers: Mapping[int, tuple[float, float]]) -> Image.Image:
    """A copy of a picture with numbers at places, given as shares of its width and height: white with a dark edge.

    A picture that they would fill stays without.
    """
    drawn = picture.copy()
    if min(picture.size) < _LEAST_NUMBERED:
        return drawn
    draw = ImageDraw.Draw(drawn)
    for number, (x, y) in numbers.items():
        at = (x * picture.width, y * picture.height)
        look: dict[str, Any] = {"fill": (255, 255, 255), "stroke_fill": (0, 0, 0), "stroke_width": 3}
        draw.text(at, str(number), font=_font(LEGEND_SIZE), anchor="mm", **look)
    return drawn


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


def colour_bar(
    colours: NDArray[np.uint8], ends: tuple[str, str], mark: tuple[float, str] | None, picture_width: int
) -> Image.Image:
    """A legend: colours, uint8 `(n, 3)`, with a text at either end, and a mark at a share of the way, with its own."""
    width = max(NARROWEST_COLUMN, picture_width)
    texts_at = _BAR_HEIGHT + 8
    legend = Image.new("RGB", (width, texts_at + _line(LEGEND_SIZE)), BACKGROUND)
    legend.paste(Image.fromarray(colours[None]).resize((width, _BAR_HEIGHT), Image.Resampling.NEAREST), (0, 4))
    first, last = (_text_width(text, LEGEND_SIZE) for text in ends)
    _write(legend, (0, texts_at), ends[0], LEGEND_SIZE, TEXT)
    _write(legend, (width - last, texts_at), ends[1], LEGEND_SIZE, TEXT)
    if mark is not None:
        share, text = mark
        marked = round(share * (width - 1))
        ImageDraw.Draw(legend).rectangle((marked - 1, 0, marked + 1, texts_at - 1), fill=TEXT)
        text_width, space = _text_width(text, LEGEND_SIZE), _text_width("0", LEGEND_SIZE)
        # Below its mark, but beside the texts at the ends.
        left = min(max(marked - text_width // 2, first + space), width - last - space - text_width)
        _write(legend, (left, texts_at), text, LEGEND_SIZE, TEXT)
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
