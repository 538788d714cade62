"""The photograph of a painted street: the light, the air and the camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oodray.datasets.demo.street import MARKING, ROAD, SIDEWALK, Street
from oodray.datasets.demo.textures import Field, fractal, solid


def photograph(street: Street) -> NDArray[np.uint8]:
    """The street as `(H, W, 3)` uint8: with shadows, haze, blur, exposure, colour temperature and sensor noise."""
    rng, height, width = street.rng, street.height, street.width
    shade = np.clip(2.5 * fractal(rng, (height, width), grain=width / 4) - street.between(0.1, 0.9), 0, 1)
    ground = np.isin(street.semantic, (ROAD, MARKING, SIDEWALK))
    colour = street.colour * (1 - 0.45 * shade * ground)[..., None]
    clear = np.exp(-street.between(0.01, 0.1) * (street.depth - 1))[..., None]
    haze = solid((0.78, 0.8, 0.84))
    colour = haze + clear * (colour - haze)
    colour = _soften(colour, street.between(0.2, 0.6))
    warmth = street.between(-0.07, 0.07)
    balance = solid((1 + warmth, 1, 1 - warmth)) * street.between(0.75, 1.12)
    colour = np.clip(colour * balance, 0, 1) ** street.between(0.8, 1.25)
    noise = rng.standard_normal(colour.shape, dtype=np.float32) * street.between(0.008, 0.03)
    return np.asarray(np.clip(colour + noise, 0, 1) * 255 + 0.5).astype(np.uint8)


def _soften(image: Field, strength: float) -> Field:
    """A small separable blur, `(H, W, 3)`: each pixel takes `strength` of its two neighbours, per axis."""
    for axis in (0, 1):
        padded = np.pad(image, [(int(axis == each),) * 2 for each in range(3)], mode="edge")
        before, after = (padded[:-2], padded[2:]) if axis == 0 else (padded[:, :-2], padded[:, 2:])
        image = (1 - strength) * image
        image += (strength / 2) * (before + after)
    return image
