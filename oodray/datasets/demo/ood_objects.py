"""The objects no training scene holds: their shapes and patterns, and where they stand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from oodray.datasets.demo.street import VOID, Street, Thing
from oodray.datasets.demo.textures import Field, Shape, box, draw_shape, fractal, mix, repeats, solid, unit_square

_Pattern = Callable[[np.random.Generator, Field, Field], Field]
"""Colours from x and y, which run over 0..1 across and down the object."""

_GIRAFFE: Shape = (
    (1, ((0.1, 0.42), (0.72, 0.64))),
    (1, ((0.5, 0.5), (0.7, 0.08), (0.82, 0.1), (0.7, 0.56))),
    (1, ((0.66, 0.0), (1.0, 0.15))),
    *((1, box(x, 0.55, x + 0.08, 1.0)) for x in (0.14, 0.26, 0.5, 0.62)),
)
_COW: Shape = (
    (1, ((0.05, 0.15), (0.8, 0.72))),
    (1, ((0.68, 0.0), (1.0, 0.4))),
    *((1, box(x, 0.5, x + 0.1, 1.0)) for x in (0.12, 0.26, 0.5, 0.64)),
)
_BALL: Shape = ((1, ((0.0, 0.0), (1.0, 1.0))),)
_ROCK: Shape = ((1, ((0.0, 1.0), (0.06, 0.5), (0.25, 0.18), (0.48, 0.0), (0.7, 0.14), (0.95, 0.55), (1.0, 1.0))),)
_CONE: Shape = ((1, ((0.5, 0.0), (1.0, 1.0), (0.0, 1.0))),)
_RING: Shape = ((1, ((0.0, 0.0), (1.0, 1.0))), (0, ((0.32, 0.32), (0.68, 0.68))))
_STAR: Shape = (
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
_MUSHROOM: Shape = (
    (1, box(0.36, 0.4, 0.64, 1.0)),
    (1, ((0.0, 0.0), (1.0, 0.9))),
    (0, box(0.0, 0.52, 0.36, 0.95)),
    (0, box(0.64, 0.52, 1.0, 0.95)),
)


def _rainbow(phase: Field) -> Field:
    """A saturated colour circle; phases one apart look the same."""
    waves = np.cos(2 * np.pi * (phase[..., None] + solid((0, 1 / 3, 2 / 3))))
    return np.asarray(0.5 + 0.5 * waves, np.float32)


def _giraffe_patches(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """Orange-brown patches with pale seams: a Voronoi diagram of random points."""
    points = rng.random((22, 2), dtype=np.float32)
    distances = np.sort([np.hypot(x - px, y - py) for px, py in points], axis=0)
    return mix(distances[1] - distances[0] < 0.035, (0.97, 0.88, 0.55), (0.72, 0.36, 0.04))


def _zebra_stripes(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """Wavy black and white stripes."""
    wave = np.sin(2 * np.pi * (5 * x + 0.35 * np.sin(7 * y + rng.uniform(0, 6))))
    return mix(wave > 0, (0.98, 0.97, 0.95), (0.04, 0.04, 0.05))


def _checkered_sphere(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """A two-coloured chequer wrapped around a ball."""
    across = np.arcsin(np.clip(2 * x - 1, -1, 1)) + np.float32(rng.uniform(0, 1))
    down = np.arcsin(np.clip(2 * y - 1, -1, 1))
    return mix(repeats(across, 1, 0.5) ^ repeats(down, 1, 0.5), (0.95, 0.1, 0.6), (0.1, 0.9, 0.75))


def _coral_noise(rng: np.random.Generator, x: Field, _y: Field) -> Field:
    """Blotches of magenta, violet and acid green."""
    noise = fractal(rng, x.shape, grain=max(x.shape) / 7)
    return mix(noise > 0.25, (0.6, 1.0, 0.1), (0.95, 0.05, 0.85)) * (0.8 + 0.5 * noise[..., None])


def _spiral(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """A turquoise and orange spiral."""
    radius, angle = np.hypot(x - 0.5, y - 0.6), np.arctan2(y - 0.6, x - 0.5)
    turn = 5 * radius + angle / np.float32(2 * np.pi) + np.float32(rng.random())
    return mix(repeats(turn, 1, 0.5), (0.0, 0.85, 0.85), (1.0, 0.45, 0.0))


def _rainbow_rings(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """Concentric rings through all hues."""
    return _rainbow(4 * np.hypot(x - 0.5, y - 0.5) + np.float32(rng.random()))


def _crystal_facets(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """Flat triangular facets around the middle, cyan to violet."""
    sector = ((np.arctan2(y - 0.55, x - 0.5) / (2 * np.pi) + 0.5) * 11).astype(np.intp) % 11
    return mix(rng.random(11, dtype=np.float32)[sector], (0.2, 1.0, 1.0), (0.5, 0.1, 0.95))


def _polka_dots(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """White dots in staggered rows on crimson."""
    row = np.floor(y * 6)
    across = np.mod(x * 5 + 0.5 * np.mod(row, 2) + np.float32(rng.random()), 1) - 0.5
    return mix(np.hypot(across, np.mod(y * 6, 1) - 0.5) < 0.3, (1.0, 0.98, 0.9), (0.85, 0.02, 0.12))


# Shape, pattern, width over height.
_OBJECTS: tuple[tuple[Shape, _Pattern, float], ...] = (
    (_GIRAFFE, _giraffe_patches, 0.75),
    (_BALL, _checkered_sphere, 1.0),
    (_ROCK, _coral_noise, 1.4),
    (_COW, _zebra_stripes, 1.35),
    (_CONE, _spiral, 0.8),
    (_RING, _rainbow_rings, 1.0),
    (_STAR, _crystal_facets, 1.0),
    (_MUSHROOM, _polka_dots, 1.1),
)


def ood_objects(street: Street, index: int) -> list[Thing]:
    """One large object, its kind taken in turn, and up to two smaller ones."""
    number = int(street.rng.integers(1, 4))
    kinds = [index % len(_OBJECTS), *street.rng.integers(len(_OBJECTS), size=number - 1)]
    sizes = [street.between(0.3, 0.47), *street.rng.uniform(0.08, 0.24, number - 1)]
    things: list[Thing] = []
    for kind, size in zip(kinds, sizes, strict=True):
        z = street.between(1.15, 1.9)
        things.append((z, partial(_draw_object, street, int(kind), float(size), z)))
    return things


def _draw_object(street: Street, kind: int, size: float, z: float) -> None:
    shape, pattern, aspect = _OBJECTS[kind]
    height = round(size * street.height)
    indices = draw_shape(shape, height, round(height * aspect))
    x, y = unit_square(*indices.shape)
    light = (1.12 - 0.35 * y - 0.2 * np.abs(x - 0.4))[..., None]
    colour = pattern(street.rng, x, y) * light * street.grain(indices.shape, 0.12, 0.12)
    column = street.width * street.between(0.1, 0.9)
    u = (column - street.vanishing) * z / street.width - street.middle
    reach = street.kerb + 0.12  # Farther out, a fence or a house might hide it.
    street.stand(float(np.clip(u, -reach, reach)), z, indices, colour.astype(np.float32), VOID)
