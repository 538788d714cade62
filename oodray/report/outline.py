"""The outline of a mask: a light line on a dark one, which can be told from any image without colour vision."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]

LINE: Colour = (255, 225, 60)
CASING: Colour = (10, 10, 10)


def outlined(image: NDArray[np.uint8], mask: NDArray[np.uint8], width: int = 1) -> NDArray[np.uint8]:
    """A copy of an image with the outline of a mask drawn into it.

    Args:
        image: RGB, uint8 `(H, W, 3)`.
        mask: `(H, W)`; the line lies inside of what is not 0, its casing around it. The edge of the image is
            an outline, too.
        width: of the line in pixels; its casing is as wide on either side.

    >>> mask = np.zeros((5, 5), np.uint8)
    >>> mask[1:4, 1:4] = 255
    >>> drawn = outlined(np.full((5, 5, 3), 128, np.uint8), mask)
    >>> drawn[1, 1].tolist() == list(LINE), drawn[0, 1].tolist() == list(CASING), drawn[0, 0].tolist()
    (True, True, [128, 128, 128])
    """
    inside = mask > 0
    line = inside & _grown(np.pad(~inside, 1, constant_values=True), width)[1:-1, 1:-1]
    casing = _grown(line, width) & ~line
    drawn = image.copy()
    drawn[casing] = CASING
    drawn[line] = LINE
    return drawn


def _grown(chosen: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """The chosen pixels and those within some steps up, down, left or right of them."""
    for _ in range(steps):
        grown = chosen.copy()
        grown[1:] |= chosen[:-1]
        grown[:-1] |= chosen[1:]
        grown[:, 1:] |= chosen[:, :-1]
        grown[:, :-1] |= chosen[:, 1:]
        chosen = grown
    return chosen
