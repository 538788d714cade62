"""Refinement of a score along the edges of its image: no weights, no training, linear in pixels.

    guided[:RADIUS]      guided filter: in every window the score becomes a linear function of the image's brightness
    bilateral[:RADIUS]   joint bilateral upsampling: means over cells of the image go back to pixels, by distance and colour

The filters are in `oodray.scores.edge_filters`, which needs numba.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from oodray.errors import ConfigError

KINDS = {"guided": 8, "bilateral": 2}
"""Names, and the radius where none is given: of a window in pixels, of a neighbourhood in cells."""

MOST_RADIUS = 256


@dataclass(frozen=True)
class Refinement:
    """How a score is refined.

    Attributes:
        kind: one of `KINDS`.
        radius: of the windows.
    """

    kind: str
    radius: int

    @classmethod
    def named(cls, name: str) -> Self:
        """What an option means.

        Raises:
            ConfigError: there is no such refinement.

        >>> Refinement.named("guided"), Refinement.named("guided:4")
        (Refinement(kind='guided', radius=8), Refinement(kind='guided', radius=4))
        """
        kind, colon, text = name.partition(":")
        radius = int(text) if text.isascii() and text.isdigit() else 0 if colon else KINDS.get(kind, 0)
        if kind not in KINDS or not 1 <= radius <= MOST_RADIUS:
            raise ConfigError(
                f"refine must be guided or bilateral, with a radius from 1 to {MOST_RADIUS} such as guided:8, "
                f"got {name!r}"
            )
        return cls(kind, radius)

    def __call__(self, values: NDArray[np.float32], image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """A score `(H, W)` float32, refined by its image `(H, W, 3)` uint8."""
        from oodray.scores.edge_filters import cell_means, guided_filter, joint_bilateral_upsampling

        if self.kind == "guided":
            return guided_filter(values, image, self.radius)
        return joint_bilateral_upsampling(cell_means(values), image, self.radius)
