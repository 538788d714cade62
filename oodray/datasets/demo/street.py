"""The world of the procedural scenes: its classes, and the street that they are painted on.

The world is a flat street seen from a camera above the road. A point of the ground has a position `u`
across the street and a depth `z`, 1 at the lower edge of the image. At depth z one unit is `width / z`
pixels. Things are drawn far to near.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from oodray.datasets.demo.textures import Colour, Field, fractal, pixels

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

ROAD, MARKING, SIDEWALK, BUILDING, FENCE, POLE, VEGETATION, SKY, CAR, TRUCK = range(len(CLASSES))
VOID = 255
"""The class id of objects of no class."""
FARTHEST = 14.0

Mask = NDArray[np.bool_]

Thing = tuple[float, Callable[[], None]]
"""Its depth, and what draws it."""


class Street:
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
        self.depth = np.full((height, width), FARTHEST, np.float32)
        self.fine = fractal(rng, (height, width), grain=width / 160, octaves=2)
        self.coarse = fractal(rng, (height, width), grain=width / 20)

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
        np.copyto(pixels(self.colour[here]), pixels(colour[there].astype(np.float32, copy=False)), where=mask)
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
