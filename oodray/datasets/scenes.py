"""The demo dataset: procedural street scenes with exact labels, drawn by numpy and Pillow from a seed.

The world is a flat street seen from a camera above the road. A point of the ground has a position `u`
across the street and a depth `z`, 1 at the lower edge of the image. At depth z one unit is `width / z`
pixels. Things are drawn far to near.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oodray.datasets import textures
from oodray.datasets.textures import (
    Colour,
    Field,
    Pattern,
    Shape,
    draw_shape,
    fractal,
    mix,
    repeats,
    solid,
    unit_square,
)

CLASSES: tuple[str, ...] = (
    "road",
    "lane marking",
    "sidewalk",
    "building",
    "fence",
    "pole",
    "vegetation",
    "sky",
    "car",
    "truck",
)
"""The classes of the training scenes; a class id is a position here."""

PALETTE: tuple[tuple[int, int, int], ...] = (
    (128, 64, 128),
    (240, 240, 240),
    (244, 35, 232),
    (70, 70, 70),
    (190, 153, 90),
    (250, 170, 30),
    (107, 142, 35),
    (70, 130, 180),
    (0, 0, 142),
    (0, 80, 100),
)
"""One RGB colour per class, to show predictions with."""

DEMO_SCENES = 24
"""Scenes in the demo dataset."""

ROAD, MARKING, SIDEWALK, BUILDING, FENCE, POLE, VEGETATION, SKY, CAR, TRUCK = range(len(CLASSES))
VOID = 255
_SPLITS = {"train": 0, "val": 1, "demo": 2}
_FARTHEST = 14.0

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """One image and what is in it; all three arrays are uint8 and of one height and width."""

    image: NDArray[np.uint8]
    """`(H, W, 3)` RGB."""
    semantic: NDArray[np.uint8]
    """`(H, W)` class ids, 255 on objects of no class."""
    label: NDArray[np.uint8]
    """`(H, W)`: 0 in-distribution, 1 OoD, 255 ignore (the rim of an OoD object)."""


def render_scene(index: int, *, split: str, height: int = 320, width: int = 640, seed: int = 0) -> Scene:
    """Draw scene `index` of a split: "train" and "val" hold only CLASSES, "demo" adds objects of other kinds.

    The same arguments give the same scene; no two splits share one.

    Raises:
        ValueError: the split is unknown.

    >>> render_scene(0, split="train", height=64, width=128).image.shape
    (64, 128, 3)
    """
    if split not in _SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(_SPLITS)}")
    street = _Street(np.random.default_rng([seed, _SPLITS[split], index]), height, width)
    _draw_sky(street)
    _draw_ground(street)
    things = [*_roadside(street), *_poles(street), *_vehicles(street)]
    if split == "demo":
        things += _strangers(street, index)
    for _, draw in sorted(things, key=lambda thing: -thing[0]):
        draw()
    return Scene(_photograph(street), street.semantic, _with_rim(street.semantic == VOID))


class _Street:
    """The picture while it is drawn: colours, classes and depth per pixel, and the street's geometry."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.rng, self.height, self.width = rng, height, width
        self.horizon = height * rng.uniform(0.36, 0.46)
        self.vanishing = width * rng.uniform(0.4, 0.6)
        self.middle = rng.uniform(-0.15, 0.15)
        self.kerb = rng.uniform(0.5, 0.75)
        self.border = self.kerb + rng.uniform(0.3, 0.45)
        self.colour = np.zeros((height, width, 3), np.float32)
        self.semantic = np.zeros((height, width), np.uint8)
        self.depth = np.full((height, width), _FARTHEST, np.float32)
        self.fine = fractal(rng, (height, width), cell=width / 160, octaves=2)
        self.coarse = fractal(rng, (height, width), cell=width / 20)

    def foot(self, z: float) -> float:
        """Row where something at depth z stands."""
        return self.horizon + (self.height - self.horizon) / z

    def column(self, u: float, z: float) -> float:
        """Column of position u at depth z."""
        return self.vanishing + (u + self.middle) * self.width / z

    def grain(self, shape: tuple[int, ...], fine: float, coarse: float) -> Field:
        """A brightness factor around 1, of that shape plus an axis of 1: cut at random from the noise."""
        height, width = shape
        rows = (np.arange(height) + self.rng.integers(self.height)) % self.height
        columns = (np.arange(width) + self.rng.integers(self.width)) % self.width
        window = np.ix_(rows, columns)
        return np.asarray(1 + fine * self.fine[window] + coarse * self.coarse[window])[..., None]

    def put(self, corner: tuple[int, int], mask: Mask, colour: Field, kind: int, z: float | Field) -> None:
        """Paint the mask's pixels, its top left at `corner`; what falls outside the picture is cut off."""
        inside, outside = [], []
        for start, length, limit in zip(corner, mask.shape, self.semantic.shape, strict=True):
            first, last = max(start, 0), min(start + length, limit)
            if first >= last:
                return
            inside.append(slice(first - start, last - start))
            outside.append(slice(first, last))
        here, there = tuple(outside), tuple(inside)
        mask = mask[there]
        np.copyto(self.colour[here], colour[there], where=mask[..., None])
        np.copyto(self.semantic[here], np.uint8(kind), where=mask)
        np.copyto(self.depth[here], z[there] if isinstance(z, np.ndarray) else np.float32(z), where=mask)

    def stand(self, u: float, z: float, indices: NDArray[np.uint8], colour: Field, kind: int) -> None:
        """Paint a thing upright on the ground where its shape's `indices` are not 0, with a shadow below."""
        height, width = indices.shape
        foot, middle = round(self.foot(z)), round(self.column(u, z))
        self._shade_ground(foot, middle, width)
        self.put((foot - height, middle - width // 2), indices > 0, colour, kind, z)

    def _shade_ground(self, foot: int, middle: int, width: int) -> None:
        reach = max(2, width // 9)
        rows = np.arange(max(foot - reach, 0), min(foot + reach, self.height))[:, None]
        columns = np.arange(max(middle - width, 0), min(middle + width, self.width))
        distance = ((rows - foot) / reach) ** 2 + ((columns - middle) / (0.62 * width)) ** 2
        shade = 1 - 0.6 * np.clip(1.3 * (1 - distance), 0, 1)
        self.colour[rows, columns] *= shade[..., None].astype(np.float32)

    def between(self, low: float, high: float) -> float:
        """A random number of that range."""
        return float(self.rng.uniform(low, high))

    def choice(self, colours: Iterable[Colour]) -> Colour:
        """One of the colours, slightly changed."""
        options = np.asarray(list(colours))
        colour = options[self.rng.integers(len(options))] * self.rng.uniform(0.92, 1.08, 3)
        return (float(colour[0]), float(colour[1]), float(colour[2]))


_Thing = tuple[float, Callable[[], None]]
"""Its depth, and what draws it."""


def _draw_sky(street: _Street) -> None:
    """Sky with clouds above the horizon, and distant trees along it."""
    shape = (int(street.horizon) + 2, street.width)
    rows = np.arange(shape[0], dtype=np.float32)[:, None]
    clouds = fractal(street.rng, shape, cell=street.width / 5, octaves=4)
    clouds = 0.85 * np.clip(1.6 * clouds + street.between(-0.4, 0.5), 0, 1)
    blue = street.choice([(0.36, 0.58, 0.92), (0.5, 0.68, 0.9), (0.42, 0.55, 0.8)])
    sky = mix(clouds, (0.95, 0.95, 0.96), blue) + (0.25 / street.height) * rows[..., None]
    street.put((0, 0), np.ones(shape, np.bool_), sky, SKY, 2.0)
    hills = 0.05 + 0.06 * street.coarse[street.height // 2] + 0.02 * street.fine[0]
    leaves = solid(street.choice(_LEAVES)) * street.grain(shape, 0.5, 0.4)
    street.put((0, 0), rows > street.horizon - street.height * hills, leaves, VEGETATION, _FARTHEST)


def _draw_ground(street: _Street) -> None:
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
        street.put((top, 0), mask, colour.astype(np.float32), kind, np.minimum(z, _FARTHEST))

    put(np.ones_like(u, np.bool_), solid(street.choice(_GRASS)) * (1 + 0.5 * fine + 0.4 * coarse), VEGETATION)
    side = np.abs(u)
    put(side < street.border, _paving(street, u, z) * (1 + 0.12 * fine + 0.1 * coarse), SIDEWALK)
    asphalt = solid(street.choice([(0.27, 0.27, 0.29), (0.33, 0.32, 0.32), (0.22, 0.23, 0.25)]))
    put(side < street.kerb, asphalt * (1 + 0.3 * fine + 0.15 * coarse), ROAD)
    paint = solid(street.choice([(0.93, 0.93, 0.9), (0.93, 0.93, 0.9), (0.95, 0.82, 0.3)]))
    put(_markings(street, u, z), paint * (1 + 0.12 * fine + 0.08 * coarse), MARKING)


def _paving(street: _Street, u: Field, z: Field) -> Field:
    seams = (repeats(u, 0.16, 0.1) | repeats(z, 0.3, 0.1)) & (z < 5)
    stone = street.choice([(0.68, 0.6, 0.55), (0.72, 0.66, 0.62), (0.62, 0.53, 0.52)])
    return mix(seams, (0.42, 0.37, 0.35), stone)


def _markings(street: _Street, u: Field, z: Field) -> Mask:
    """Lines along the road, and sometimes a zebra crossing; none so far away that they are a pixel wide."""
    side = np.abs(u)
    dashes = (side < 0.035) & repeats(z + np.float32(street.between(0, 2)), 2.0, 0.55)
    lines = dashes | (np.abs(side - (street.kerb - 0.1)) < 0.03)
    if street.rng.random() < 0.45:
        near = street.between(1.2, 2.6)
        lines |= (z > near) & (z < near + 0.55) & (side < street.kerb - 0.14) & repeats(u, 0.18, 0.55)
    return np.asarray(lines & (z < 7))


_LEAVES: tuple[Colour, ...] = ((0.16, 0.34, 0.1), (0.22, 0.4, 0.12), (0.28, 0.38, 0.1))
_GRASS: tuple[Colour, ...] = ((0.3, 0.48, 0.16), (0.38, 0.5, 0.2), (0.26, 0.42, 0.14))
_WALLS: tuple[Colour, ...] = ((0.62, 0.3, 0.22), (0.82, 0.72, 0.52), (0.6, 0.6, 0.62), (0.86, 0.82, 0.76))
_WOOD: tuple[Colour, ...] = ((0.66, 0.42, 0.16), (0.74, 0.5, 0.22), (0.58, 0.34, 0.12))


def _roadside(street: _Street) -> list[_Thing]:
    """Houses, trees or a fence along both sides, one stretch after the other."""
    things: list[_Thing] = []
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
    street: _Street, u: float, near: float, far: float, height: float
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


def _draw_house(street: _Street, side: int, near: float, far: float) -> None:
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


def _facade(street: _Street, along: Field, up: Field, period: float, colour: Colour) -> Field:
    windows = repeats(along, period, 0.5) & repeats(up - np.float32(0.12), period, 0.55) & (up > 0.12)
    return mix(windows, (0.16, 0.2, 0.27), colour) * street.grain(up.shape, 0.15, 0.12)


def _draw_fence(street: _Street, side: int, near: float, far: float) -> None:
    u, height = side * (street.border + 0.04), street.between(0.24, 0.34)
    corner, mask, z, up = _wall(street, u, near, far, height)
    gaps = repeats(z, 0.16, 0.2)
    rails = (np.abs(up / height - 0.25) < 0.07) | (np.abs(up / height - 0.75) < 0.07)
    planks = mix(gaps & ~rails, (0.2, 0.12, 0.06), street.choice(_WOOD))
    street.put(corner, mask, planks * street.grain(up.shape, 0.2, 0.15), FENCE, z)


def _draw_tree(street: _Street, side: int, z: float) -> None:
    u = side * (street.border + street.between(0.1, 0.5))
    size = round(street.between(0.7, 1.2) * street.width / z)
    if abs(street.column(u, z) - street.width / 2) > (street.width + size) / 2:
        return  # Beside the picture, as most of the nearest trees are.
    x, y = unit_square(size, round(0.8 * size))
    ragged = np.float32(0.12) * fractal(street.rng, x.shape, cell=max(4.0, size / 6))
    crown = np.hypot(x - 0.5, y - 0.38) + ragged < 0.34
    trunk = (np.abs(x - 0.5) < 0.045) & (y > 0.5)
    light = (1.25 - 0.7 * y)[..., None] * street.grain(x.shape, 0.7, 0.5)
    colour = np.where(crown[..., None], solid(street.choice(_LEAVES)), solid((0.3, 0.2, 0.12)))
    street.stand(u, z, (crown | trunk).astype(np.uint8), colour * light, VEGETATION)


_BODIES: tuple[Colour, ...] = (
    (0.72, 0.08, 0.08),
    (0.1, 0.2, 0.6),
    (0.85, 0.85, 0.87),
    (0.1, 0.1, 0.12),
    (0.5, 0.52, 0.56),
)
_CARGO: tuple[Colour, ...] = ((0.95, 0.75, 0.12), (0.95, 0.85, 0.3), (0.98, 0.62, 0.1))
_Vehicle = tuple[int, Shape, float, float]
# Class, shape, width and height in street units; each is as frequent as it is listed.
_VEHICLES: tuple[_Vehicle, ...] = (
    (CAR, textures.CAR_REAR, 0.36, 0.3),
    (CAR, textures.CAR_REAR, 0.36, 0.3),
    (CAR, textures.CAR_SIDE, 0.74, 0.27),
    (TRUCK, textures.TRUCK_REAR, 0.44, 0.56),
    (TRUCK, textures.TRUCK_SIDE, 1.0, 0.54),
)


def _poles(street: _Street) -> list[_Thing]:
    depths = street.rng.uniform(1.5, 4.2, street.rng.integers(2, 6))
    return [(float(z), partial(_draw_pole, street, float(z))) for z in depths]


def _draw_pole(street: _Street, z: float) -> None:
    kinds = ((textures.SIGN, 0.42, 0.75), (textures.LAMP, 0.48, 1.5), (textures.BOLLARD, 0.3, 0.35))
    shape, width, height = kinds[street.rng.integers(len(kinds))]
    scale = street.width / z
    # Never thinner than about six of 640 columns, the narrowest that a coarse network can learn.
    indices = draw_shape(shape, round(height * scale), round(max(width * scale, 0.075 * street.width)))
    metal = street.choice([(0.5, 0.55, 0.6), (0.42, 0.47, 0.52)])
    board = street.choice([(0.1, 0.25, 0.75), (0.85, 0.85, 0.88), (0.75, 0.1, 0.1)])
    colour = solid((0, 0, 0), metal, board)[indices] * street.grain(indices.shape, 0.06, 0.06)
    side = street.rng.choice([-1, 1])
    if side > 0:
        indices, colour = indices[:, ::-1], colour[:, ::-1]
    street.stand(side * (street.kerb + 0.08), z, indices, colour, POLE)


def _vehicles(street: _Street) -> list[_Thing]:
    things: list[_Thing] = []
    for _ in range(street.rng.integers(3, 7)):
        vehicle = _VEHICLES[street.rng.integers(len(_VEHICLES))]
        z = street.between(2.6 if vehicle[0] == TRUCK else 1.5, 5.5)
        things.append((z, partial(_draw_vehicle, street, vehicle, z)))
    return things


def _draw_vehicle(street: _Street, vehicle: _Vehicle, z: float) -> None:
    kind, shape, width, height = vehicle
    scale = street.between(0.9, 1.1) * street.width / z
    indices = draw_shape(shape, round(height * scale), round(width * scale))
    if street.rng.random() < 0.5:
        indices = indices[:, ::-1]
    fixed = ((0.12, 0.16, 0.2), (0.04, 0.04, 0.04), (0.85, 0.12, 0.08), (0.9, 0.88, 0.8))
    colours = solid((0, 0, 0), street.choice(_BODIES), *fixed, street.choice(_CARGO))
    x, y = unit_square(*indices.shape)
    ribs = 1 - 0.25 * (repeats(x, 0.09, 0.3) & (indices == 6))
    light = (1.1 - 0.3 * y) * ribs
    colour = colours[indices] * light[..., None] * street.grain(indices.shape, 0.05, 0.1)
    room = max(0.1, street.kerb - width / 2)
    street.stand(street.between(-room, room), z, indices, colour.astype(np.float32), kind)


# Objects no training scene holds: shape, pattern, width over height.

_STRANGERS: tuple[tuple[Shape, Pattern, float], ...] = (
    (textures.GIRAFFE, textures.giraffe_patches, 0.75),
    (textures.BALL, textures.checkered_sphere, 1.0),
    (textures.ROCK, textures.coral_noise, 1.4),
    (textures.COW, textures.zebra_stripes, 1.35),
    (textures.CONE, textures.spiral, 0.8),
    (textures.RING, textures.rainbow_rings, 1.0),
    (textures.STAR, textures.crystal_facets, 1.0),
    (textures.MUSHROOM, textures.polka_dots, 1.1),
)


def _strangers(street: _Street, index: int) -> list[_Thing]:
    """One large object, its kind taken in turn, and up to two smaller ones."""
    number = int(street.rng.integers(1, 4))
    kinds = [index % len(_STRANGERS), *street.rng.integers(len(_STRANGERS), size=number - 1)]
    sizes = [street.between(0.3, 0.47), *street.rng.uniform(0.08, 0.24, number - 1)]
    things: list[_Thing] = []
    for kind, size in zip(kinds, sizes, strict=True):
        z = street.between(1.15, 1.9)
        things.append((z, partial(_draw_stranger, street, int(kind), float(size), z)))
    return things


def _draw_stranger(street: _Street, kind: int, size: float, z: float) -> None:
    shape, pattern, aspect = _STRANGERS[kind]
    height = round(size * street.height)
    indices = draw_shape(shape, height, round(height * aspect))
    x, y = unit_square(*indices.shape)
    light = (1.12 - 0.35 * y - 0.2 * np.abs(x - 0.4))[..., None]
    colour = pattern(street.rng, x, y) * light * street.grain(indices.shape, 0.12, 0.12)
    column = street.width * street.between(0.1, 0.9)
    u = (column - street.vanishing) * z / street.width - street.middle
    reach = street.kerb + 0.12  # Farther out, a fence or a house might hide it.
    street.stand(float(np.clip(u, -reach, reach)), z, indices, colour.astype(np.float32), VOID)


def _photograph(street: _Street) -> NDArray[np.uint8]:
    """The camera: shadows on the ground, haze, blur, exposure, colour temperature and sensor noise."""
    rng, height, width = street.rng, street.height, street.width
    shade = np.clip(2.5 * fractal(rng, (height, width), cell=width / 4) - street.between(0.1, 0.9), 0, 1)
    ground = np.isin(street.semantic, (ROAD, MARKING, SIDEWALK))
    colour = street.colour * (1 - 0.45 * shade * ground)[..., None]
    clear = np.exp(-street.between(0.01, 0.1) * (street.depth - 1))[..., None]
    haze = solid((0.78, 0.8, 0.84))
    colour = haze + clear * (colour - haze)
    colour = textures.soften(colour, street.between(0.2, 0.6))
    warmth = street.between(-0.07, 0.07)
    balance = solid((1 + warmth, 1, 1 - warmth)) * street.between(0.75, 1.12)
    colour = np.clip(colour * balance, 0, 1) ** street.between(0.8, 1.25)
    noise = rng.standard_normal(colour.shape, dtype=np.float32) * street.between(0.008, 0.03)
    return np.asarray(np.clip(colour + noise, 0, 1) * 255 + 0.5).astype(np.uint8)


def _with_rim(strange: Mask) -> NDArray[np.uint8]:
    """Label 1 on the objects and 255 one pixel around them, where the blur mixes the two."""
    padded = np.pad(strange, 1)
    near = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return np.where(strange, 1, np.where(near, 255, 0)).astype(np.uint8)


def write_demo(root: Path, scenes: int = DEMO_SCENES) -> None:
    """Write the demo scenes to `root/images/scene-00.png` and `root/labels/scene-00.png` (codes 0, 1, 255).

    Files that are there and whole are kept. A file appears whole or not at all.
    """
    for index in range(scenes):
        image, label = (root / kind / f"scene-{index:02d}.png" for kind in ("images", "labels"))
        missing = [path for path in (image, label) if not _is_whole(path)]
        if missing:
            scene = render_scene(index, split="demo")
            for path in missing:
                _write_png(path, scene.image if path is image else scene.label)


def _is_whole(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            picture.verify()
    except (OSError, SyntaxError):  # Pillow reports a broken PNG chunk as a SyntaxError.
        return False
    return True


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    Image.fromarray(pixels).save(unfinished, format="PNG")
    unfinished.replace(path)
