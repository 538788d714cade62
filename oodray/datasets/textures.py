"""How the things in the procedural scenes look: noise, patterns (colours in 0..1) and shapes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Field = NDArray[np.float32]
Pattern = Callable[[np.random.Generator, Field, Field], Field]
Colour = tuple[float, float, float]
Points = tuple[tuple[float, float], ...]
Shape = tuple[tuple[int, Points], ...]
"""Parts in coordinates 0..1, each with the number of its colour (0 cuts out); two points bound an ellipse."""


def fractal(rng: np.random.Generator, shape: tuple[int, ...], cell: float, octaves: int = 3) -> Field:
    """Smooth noise in about -1..1 of that shape; each octave halves the cell (in pixels) and the strength."""
    height, width = shape
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        size = max(1.0, cell / 2**octave)
        coarse = (math.ceil(height / size) + 1, math.ceil(width / size) + 1)
        grid = Image.fromarray(2 * rng.random(coarse, dtype=np.float32) - 1)
        total += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) / 2**octave
    return np.asarray(total / (2 - 2.0 ** (1 - octaves)))


def soften(image: Field, strength: float) -> Field:
    """A small separable blur, `(H, W, 3)`: each pixel takes `strength` of its two neighbours, per axis."""
    for axis in (0, 1):
        padded = np.pad(image, [(int(axis == each),) * 2 for each in range(3)], mode="edge")
        before, after = (padded[:-2], padded[2:]) if axis == 0 else (padded[:, :-2], padded[:, 2:])
        image = (1 - strength) * image
        image += (strength / 2) * (before + after)
    return image


def solid(*colours: Colour) -> Field:
    """Colours as an array, `(3,)` for one and `(n, 3)` for more."""
    return np.asarray(colours[0] if len(colours) == 1 else colours, np.float32)


def mix(where: NDArray[np.bool_] | Field, first: Colour, second: Colour) -> Field:
    """The first colour where `where` is 1, the second where it is 0, blended between."""
    share = where[..., None]
    if share.dtype == np.bool_:
        return np.where(share, solid(first), solid(second))
    return np.asarray(solid(second) + share * (solid(first) - solid(second)))


def repeats(position: Field, period: float, share: float) -> NDArray[np.bool_]:
    """True in the first `share` of every period: stripes, planks, windows, tiles."""
    phase = position * np.float32(1 / period)
    return np.asarray(phase - np.floor(phase) < share)


def rainbow(phase: Field) -> Field:
    """A saturated colour circle; phases one apart look the same."""
    waves = np.cos(2 * np.pi * (phase[..., None] + solid((0, 1 / 3, 2 / 3))))
    return np.asarray(0.5 + 0.5 * waves, np.float32)


# Patterns of the objects no training scene holds. x and y run over 0..1 across and down the object.


def giraffe_patches(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """Orange-brown cells with pale seams: a Voronoi diagram of random points."""
    points = rng.random((22, 2), dtype=np.float32)
    distances = np.sort([np.hypot(x - px, y - py) for px, py in points], axis=0)
    return mix(distances[1] - distances[0] < 0.035, (0.97, 0.88, 0.55), (0.72, 0.36, 0.04))


def zebra_stripes(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """Wavy black and white stripes."""
    wave = np.sin(2 * np.pi * (5 * x + 0.35 * np.sin(7 * y + rng.uniform(0, 6))))
    return mix(wave > 0, (0.98, 0.97, 0.95), (0.04, 0.04, 0.05))


def checkered_sphere(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """A two-coloured chequer wrapped around a ball."""
    across = np.arcsin(np.clip(2 * x - 1, -1, 1)) + np.float32(rng.uniform(0, 1))
    down = np.arcsin(np.clip(2 * y - 1, -1, 1))
    return mix(repeats(across, 1, 0.5) ^ repeats(down, 1, 0.5), (0.95, 0.1, 0.6), (0.1, 0.9, 0.75))


def coral_noise(rng: np.random.Generator, x: Field, _y: Field) -> Field:
    """Blotches of magenta, violet and acid green."""
    noise = fractal(rng, x.shape, cell=max(x.shape) / 7)
    return mix(noise > 0.25, (0.6, 1.0, 0.1), (0.95, 0.05, 0.85)) * (0.8 + 0.5 * noise[..., None])


def spiral(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """A turquoise and orange spiral."""
    radius, angle = np.hypot(x - 0.5, y - 0.6), np.arctan2(y - 0.6, x - 0.5)
    turn = 5 * radius + angle / np.float32(2 * np.pi) + np.float32(rng.random())
    return mix(repeats(turn, 1, 0.5), (0.0, 0.85, 0.85), (1.0, 0.45, 0.0))


def rainbow_rings(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """Concentric rings through all hues."""
    return rainbow(4 * np.hypot(x - 0.5, y - 0.5) + np.float32(rng.random()))


def crystal_facets(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """Flat triangular facets around the middle, cyan to violet."""
    sector = ((np.arctan2(y - 0.55, x - 0.5) / (2 * np.pi) + 0.5) * 11).astype(np.intp) % 11
    return mix(rng.random(11, dtype=np.float32)[sector], (0.2, 1.0, 1.0), (0.5, 0.1, 0.95))


def polka_dots(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """White dots in staggered rows on crimson."""
    row = np.floor(y * 6)
    across = np.mod(x * 5 + 0.5 * np.mod(row, 2) + np.float32(rng.random()), 1) - 0.5
    return mix(np.hypot(across, np.mod(y * 6, 1) - 0.5) < 0.3, (1.0, 0.98, 0.9), (0.85, 0.02, 0.12))


def unit_square(height: int, width: int) -> tuple[Field, Field]:
    """Coordinates 0..1 across and down a picture of that size."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return x.astype(np.float32), y.astype(np.float32)


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def draw_shape(shape: Shape, height: int, width: int) -> NDArray[np.uint8]:
    """The shape's colour number per pixel, 0 outside."""
    picture = Image.new("L", (width, height))
    pen = ImageDraw.Draw(picture)
    for number, points in shape:
        scaled = [(x * (width - 1), y * (height - 1)) for x, y in points]
        (pen.ellipse if len(points) == 2 else pen.polygon)(scaled, fill=number)
    return np.asarray(picture)


SIGN: Shape = ((1, _box(0.44, 0.0, 0.56, 1.0)), (2, _box(0.08, 0.02, 0.92, 0.2)))
LAMP: Shape = ((1, _box(0.44, 0.0, 0.56, 1.0)), (1, _box(0.1, 0.0, 0.56, 0.03)))
BOLLARD: Shape = ((1, _box(0.4, 0.0, 0.6, 1.0)), (2, _box(0.4, 0.05, 0.6, 0.25)))

# Colours of vehicles: 1 body, 2 glass, 3 tyre, 4 lights, 5 plate, 6 cargo box.
CAR_REAR: Shape = (
    (3, _box(0.06, 0.75, 0.24, 1.0)),
    (3, _box(0.76, 0.75, 0.94, 1.0)),
    (
        1,
        (
            (0.2, 0.0),
            (0.8, 0.0),
            (0.95, 0.42),
            (1.0, 0.5),
            (1.0, 0.86),
            (0.0, 0.86),
            (0.0, 0.5),
            (0.05, 0.42),
        ),
    ),
    (2, ((0.25, 0.07), (0.75, 0.07), (0.86, 0.38), (0.14, 0.38))),
    (4, _box(0.03, 0.48, 0.2, 0.6)),
    (4, _box(0.8, 0.48, 0.97, 0.6)),
    (5, _box(0.38, 0.6, 0.62, 0.72)),
)
CAR_SIDE: Shape = (
    (
        1,
        (
            (0.0, 0.5),
            (0.18, 0.42),
            (0.32, 0.0),
            (0.7, 0.0),
            (0.86, 0.42),
            (1.0, 0.5),
            (1.0, 0.84),
            (0.0, 0.84),
        ),
    ),
    (2, ((0.25, 0.4), (0.35, 0.08), (0.5, 0.08), (0.5, 0.4))),
    (2, ((0.54, 0.4), (0.54, 0.08), (0.68, 0.08), (0.79, 0.4))),
    (3, ((0.1, 0.6), (0.3, 1.0))),
    (3, ((0.7, 0.6), (0.9, 1.0))),
    (4, _box(0.95, 0.52, 1.0, 0.62)),
)
TRUCK_REAR: Shape = (
    (3, _box(0.08, 0.85, 0.28, 1.0)),
    (3, _box(0.72, 0.85, 0.92, 1.0)),
    (6, _box(0.0, 0.0, 1.0, 0.84)),
    (3, _box(0.0, 0.84, 1.0, 0.9)),
    (3, _box(0.49, 0.04, 0.51, 0.84)),
    (4, _box(0.02, 0.84, 0.16, 0.9)),
    (4, _box(0.84, 0.84, 0.98, 0.9)),
)
TRUCK_SIDE: Shape = (
    (6, _box(0.0, 0.0, 0.72, 0.82)),
    (1, ((0.75, 0.2), (0.93, 0.2), (1.0, 0.52), (1.0, 0.86), (0.75, 0.86))),
    (2, ((0.82, 0.26), (0.91, 0.26), (0.97, 0.52), (0.82, 0.52))),
    (3, _box(0.0, 0.8, 1.0, 0.88)),
    (3, ((0.08, 0.76), (0.22, 1.0))),
    (3, ((0.78, 0.76), (0.92, 1.0))),
)

# Shapes no training scene holds.
GIRAFFE: Shape = (
    (1, ((0.1, 0.42), (0.72, 0.64))),
    (1, ((0.5, 0.5), (0.7, 0.08), (0.82, 0.1), (0.7, 0.56))),
    (1, ((0.66, 0.0), (1.0, 0.15))),
    *((1, _box(x, 0.55, x + 0.08, 1.0)) for x in (0.14, 0.26, 0.5, 0.62)),
)
COW: Shape = (
    (1, ((0.05, 0.15), (0.8, 0.72))),
    (1, ((0.68, 0.0), (1.0, 0.4))),
    *((1, _box(x, 0.5, x + 0.1, 1.0)) for x in (0.12, 0.26, 0.5, 0.64)),
)
BALL: Shape = ((1, ((0.0, 0.0), (1.0, 1.0))),)
ROCK: Shape = (
    (1, ((0.0, 1.0), (0.06, 0.5), (0.25, 0.18), (0.48, 0.0), (0.7, 0.14), (0.95, 0.55), (1.0, 1.0))),
)
CONE: Shape = ((1, ((0.5, 0.0), (1.0, 1.0), (0.0, 1.0))),)
RING: Shape = ((1, ((0.0, 0.0), (1.0, 1.0))), (0, ((0.32, 0.32), (0.68, 0.68))))
STAR: Shape = (
    (
        1,
        (
            (0.5, 0.0),
            (0.64, 0.34),
            (1.0, 0.4),
            (0.72, 0.62),
            (0.82, 1.0),
            (0.5, 0.8),
            (0.18, 1.0),
            (0.28, 0.62),
            (0.0, 0.4),
            (0.36, 0.34),
        ),
    ),
)
MUSHROOM: Shape = (
    (1, _box(0.36, 0.4, 0.64, 1.0)),
    (1, ((0.0, 0.0), (1.0, 0.9))),
    (0, _box(0.0, 0.52, 0.36, 0.95)),
    (0, _box(0.64, 0.52, 1.0, 0.95)),
)
