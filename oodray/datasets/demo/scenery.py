"""The scenery of a street: sky, ground, and the houses, trees and fences along both sides."""

from __future__ import annotations

from functools import partial

import numpy as np

from oodray.datasets.demo.street import (
    BUILDING,
    FARTHEST,
    FENCE,
    MARKING,
    ROAD,
    SIDEWALK,
    SKY,
    VEGETATION,
    Mask,
    Street,
    Thing,
)
from oodray.datasets.demo.textures import Colour, Field, fractal, mix, repeats, solid, unit_square

_LEAVES: tuple[Colour, ...] = ((0.16, 0.34, 0.1), (0.22, 0.4, 0.12), (0.28, 0.38, 0.1))
_GRASS: tuple[Colour, ...] = ((0.3, 0.48, 0.16), (0.38, 0.5, 0.2), (0.26, 0.42, 0.14))
_WALLS: tuple[Colour, ...] = ((0.62, 0.3, 0.22), (0.82, 0.72, 0.52), (0.6, 0.6, 0.62), (0.86, 0.82, 0.76))
_WOOD: tuple[Colour, ...] = ((0.66, 0.42, 0.16), (0.74, 0.5, 0.22), (0.58, 0.34, 0.12))


def draw_sky(street: Street) -> None:
    """Sky with clouds above the horizon, and distant trees along it."""
    shape = (int(street.horizon) + 2, street.width)
    rows = np.arange(shape[0], dtype=np.float32)[:, None]
    clouds = fractal(street.rng, shape, grain=street.width / 5, octaves=4)
    clouds = 0.85 * np.clip(1.6 * clouds + street.between(-0.4, 0.5), 0, 1)
    blue = street.choice([(0.36, 0.58, 0.92), (0.5, 0.68, 0.9), (0.42, 0.55, 0.8)])
    sky = mix(clouds, (0.95, 0.95, 0.96), blue) + (0.25 / street.height) * rows[..., None]
    street.put((0, 0), np.ones(shape, np.bool_), sky, SKY, 2.0)
    hills = 0.05 + 0.06 * street.coarse[street.height // 2] + 0.02 * street.fine[0]
    leaves = solid(street.choice(_LEAVES)) * street.grain(shape, 0.5, 0.4)
    street.put((0, 0), rows > street.horizon - street.height * hills, leaves, VEGETATION, FARTHEST)


def draw_ground(street: Street) -> None:
    """Grass, and on it the sidewalks, the road and its markings."""
    top = int(street.horizon) + 1
    rows = np.arange(top, street.height, dtype=np.float32)[:, None]
    z = (street.height - street.horizon) / (rows - street.horizon)
    z = np.minimum(z, 60).astype(np.float32)
    u = ((np.arange(street.width) - street.vanishing) * z / street.width - street.middle).astype(np.float32)
    # The noise is laid on the ground itself, so that its grain shrinks with depth.
    lookup = ((z * 170).astype(np.intp) % street.height, (u * 500).astype(np.intp) % street.width)
    fine, coarse = street.fine[lookup][..., None], street.coarse[lookup][..., None]
    z = np.broadcast_to(z, u.shape)

    def put(mask: Mask, colour: Field, kind: int) -> None:
        street.put((top, 0), mask, colour.astype(np.float32), kind, np.minimum(z, FARTHEST))

    put(np.ones_like(u, np.bool_), solid(street.choice(_GRASS)) * (1 + 0.5 * fine + 0.4 * coarse), VEGETATION)
    side = np.abs(u)
    put(side < street.border, _paving(street, u, z) * (1 + 0.12 * fine + 0.1 * coarse), SIDEWALK)
    asphalt = solid(street.choice([(0.27, 0.27, 0.29), (0.33, 0.32, 0.32), (0.22, 0.23, 0.25)]))
    put(side < street.kerb, asphalt * (1 + 0.3 * fine + 0.15 * coarse), ROAD)
    paint = solid(street.choice([(0.93, 0.93, 0.9), (0.93, 0.93, 0.9), (0.95, 0.82, 0.3)]))
    put(_markings(street, u, z), paint * (1 + 0.12 * fine + 0.08 * coarse), MARKING)


def _paving(street: Street, u: Field, z: Field) -> Field:
    seams = (repeats(u, 0.16, 0.1) | repeats(z, 0.3, 0.1)) & (z < 5)
    stone = street.choice([(0.68, 0.6, 0.55), (0.72, 0.66, 0.62), (0.62, 0.53, 0.52)])
    return mix(seams, (0.42, 0.37, 0.35), stone)


def _markings(street: Street, u: Field, z: Field) -> Mask:
    """Lines along the road, and sometimes a zebra crossing; none so far away that they are a pixel wide."""
    side = np.abs(u)
    dashes = (side < 0.035) & repeats(z + np.float32(street.between(0, 2)), 2.0, 0.55)
    lines = dashes | (np.abs(side - (street.kerb - 0.1)) < 0.03)
    if street.rng.random() < 0.45:
        near = street.between(1.2, 2.6)
        lines |= (z > near) & (z < near + 0.55) & (side < street.kerb - 0.14) & repeats(u, 0.18, 0.55)
    return np.asarray(lines & (z < 7))


def roadside(street: Street) -> list[Thing]:
    """Houses, trees or a fence along both sides, one stretch after the other."""
    things: list[Thing] = []
    for side in (-1, 1):
        near = street.between(1.4, 1.9)
        while near < 10:
            far = near * street.between(1.35, 1.8)
            kind = street.rng.choice(["house", "house", "trees", "fence"])
            if kind == "house":
                things.append((near, partial(_draw_house, street, side, near, far)))
            if kind == "fence":
                things.append((near, partial(_draw_fence, street, side, near, far)))
            if kind != "house":
                for z in street.rng.uniform(near, far, 2):
                    things.append((float(z) + 0.05, partial(_draw_tree, street, side, float(z))))
            near = far
    return things


def _wall(
    street: Street, u: float, near: float, far: float, height: float
) -> tuple[tuple[int, int], Mask, Field, Field]:
    """A wall along the street: its top left corner, and its mask, depth and height above ground per pixel."""
    ends = sorted((street.column(u, near), street.column(u, far)))
    left, right = max(0, round(ends[0])), min(street.width, round(ends[1]))
    columns = np.arange(left, max(left, right), dtype=np.float32) + np.float32(0.5)
    z = np.clip((u + street.middle) * street.width / (columns - street.vanishing), near, far)
    tops = [street.foot(end) - height * street.width / end for end in (near, far)]
    top, bottom = max(0, int(min(tops))), min(street.height, round(street.foot(near)) + 1)
    foot = street.horizon + (street.height - street.horizon) / z
    up = (foot - np.arange(top, bottom, dtype=np.float32)[:, None]) * z / street.width
    depth = np.broadcast_to(z, up.shape).astype(np.float32)
    return (top, left), (up >= 0) & (up < height), depth, up.astype(np.float32)


def _draw_house(street: Street, side: int, near: float, far: float) -> None:
    u, height = side * (street.border + street.between(0.1, 0.3)), street.between(0.7, 1.9)
    colour, period = street.choice(_WALLS), street.between(0.28, 0.4)
    corner, mask, z, up = _wall(street, u, near, far, height)
    street.put(corner, mask, 0.8 * _facade(street, z * 0.8, up, period, colour), BUILDING, z)
    # The side that faces the camera, from the near end of that wall outwards.
    edge, foot = round(street.column(u, near)), round(street.foot(near))
    first, last = (0, min(edge, street.width)) if side < 0 else (max(edge, 0), street.width)
    along = np.abs(np.arange(first, last, dtype=np.float32) - edge) * near / street.width
    rows = np.arange(max(0, foot - round(height * street.width / near)), min(foot, street.height))
    across, up = np.meshgrid(along, (foot - rows.astype(np.float32)) * near / street.width)
    front = _facade(street, across.astype(np.float32), up.astype(np.float32), period, colour)
    street.put((int(rows[0]), first), np.ones_like(up, np.bool_), front, BUILDING, near)


def _facade(street: Street, along: Field, up: Field, period: float, colour: Colour) -> Field:
    windows = repeats(along, period, 0.5) & repeats(up - np.float32(0.12), period, 0.55) & (up > 0.12)
    return mix(windows, (0.16, 0.2, 0.27), colour) * street.grain(up.shape, 0.15, 0.12)


def _draw_fence(street: Street, side: int, near: float, far: float) -> None:
    u, height = side * (street.border + 0.04), street.between(0.24, 0.34)
    corner, mask, z, up = _wall(street, u, near, far, height)
    gaps = repeats(z, 0.16, 0.2)
    rails = (np.abs(up / height - 0.25) < 0.07) | (np.abs(up / height - 0.75) < 0.07)
    planks = mix(gaps & ~rails, (0.2, 0.12, 0.06), street.choice(_WOOD))
    street.put(corner, mask, planks * street.grain(up.shape, 0.2, 0.15), FENCE, z)


def _draw_tree(street: Street, side: int, z: float) -> None:
    u = side * (street.border + street.between(0.1, 0.5))
    size = round(street.between(0.7, 1.2) * street.width / z)
    if abs(street.column(u, z) - street.width / 2) > (street.width + size) / 2:
        return  # Beside the picture, as most of the nearest trees are.
    x, y = unit_square(size, round(0.8 * size))
    ragged = np.float32(0.12) * fractal(street.rng, x.shape, grain=max(4.0, size / 6))
    crown = np.hypot(x - 0.5, y - 0.38) + ragged < 0.34
    trunk = (np.abs(x - 0.5) < 0.045) & (y > 0.5)
    light = (1.25 - 0.7 * y)[..., None] * street.grain(x.shape, 0.7, 0.5)
    colour = mix(crown, street.choice(_LEAVES), (0.3, 0.2, 0.12))
    street.stand(u, z, (crown | trunk).astype(np.uint8), colour * light, VEGETATION)
