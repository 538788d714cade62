"""How things are drawn: noise, blends of colours (in 0..1) and shapes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Field = NDArray[np.float32]
_PIXEL = np.dtype((np.void, 3 * np.dtype(np.float32).itemsize))
Colour = tuple[float, float, float]
Points = tuple[tuple[float, float], ...]
Shape = tuple[tuple[int, Points], ...]
"""Parts in coordinates 0..1, each with the number of its colour (0 cuts out); two points bound an ellipse."""


def fractal(rng: np.random.Generator, shape: tuple[int, ...], grain: float, octaves: int = 3) -> Field:
    """Smooth noise in about -1..1 of that shape; each octave halves the grain (in pixels) and the strength."""
    height, width = shape
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        size = max(1.0, grain / 2**octave)
        coarse = (math.ceil(height / size) + 1, math.ceil(width / size) + 1)
        grid = Image.fromarray(2 * rng.random(coarse, dtype=np.float32) - 1)
        total += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) / 2**octave
    return np.asarray(total / (2 - 2.0 ** (1 - octaves)))


def solid(*colours: Colour) -> Field:
    """Colours as an array, `(3,)` for one and `(n, 3)` for more."""
    return np.asarray(colours[0] if len(colours) == 1 else colours, np.float32)


def pixels(colour: Field) -> NDArray[np.void]:
    """Colours `(H, W, 3)` as an array of pixels `(H, W)`, no copy: by a mask, numpy copies these 30 times as fast.

    The three numbers of a pixel lie next to each other.
    """
    return np.asarray(colour.view(_PIXEL)[..., 0])


def mix(where: NDArray[np.bool_] | Field, first: Colour, second: Colour) -> Field:
    """The first colour where `where` is 1, the second where it is 0, blended between."""
    share = where[..., None]
    if share.dtype == np.bool_:
        return solid(second, first)[where.astype(np.uint8)]
    return np.asarray(solid(second) + share * (solid(first) - solid(second)))


def repeats(position: Field, period: float, share: float) -> NDArray[np.bool_]:
    """True in the first `share` of every period: stripes, planks, windows, tiles."""
    phase = position * np.float32(1 / period)
    return np.asarray(phase - np.floor(phase) < share)


def unit_square(height: int, width: int) -> tuple[Field, Field]:
    """Coordinates 0..1 across and down a picture of that size."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return x.astype(np.float32), y.astype(np.float32)


def box(left: float, top: float, right: float, bottom: float) -> Points:
    """The corners of an upright rectangle."""
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def draw_shape(shape: Shape, height: int, width: int) -> NDArray[np.uint8]:
    """The shape's colour number per pixel, 0 outside."""
    picture = Image.new("L", (width, height))
    pen = ImageDraw.Draw(picture)
    for number, points in shape:
        scaled = [(x * (width - 1), y * (height - 1)) for x, y in points]
        (pen.ellipse if len(points) == 2 else pen.polygon)(scaled, fill=number)
    return np.asarray(picture)
