"""Colours for clusters and classes, and where in a map their numbers are written.

The first eight are those of Okabe and Ito, which people with any of the common colour deficiencies can tell apart.
Beyond them a map relies on its numbers.
"""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
from numpy.typing import NDArray

DISTINCT: tuple[tuple[int, int, int], ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
    (90, 90, 90),
)

_LARGEST_SEARCHED = 160  # pixels of the longer side: a place for a number needs no more


def colours(count: int) -> NDArray[np.uint8]:
    """A colour for each id below `count`: uint8 `(count, 3)`."""
    more = (_spread_colour(index) for index in range(len(DISTINCT), count))
    return np.array([*DISTINCT, *more], np.uint8)[:count]


def places_for_numbers(ids: NDArray[Any]) -> dict[int, tuple[float, float]]:
    """For each id in a map the point that lies deepest inside of it, as shares of width and height.

    >>> ids = np.zeros((10, 20), np.uint8)
    >>> ids[:, 10:] = 7
    >>> {cluster: x < 0.5 for cluster, (x, _) in places_for_numbers(ids).items()}
    {0: True, 7: False}
    """
    from scipy import ndimage

    step = max(1, max(ids.shape) // _LARGEST_SEARCHED)
    small = ids[step // 2 :: step, step // 2 :: step]
    height, width = small.shape
    places = {}
    for cluster in np.unique(small).tolist():
        inside = np.pad(small == cluster, 1)  # the edge of the image is an edge
        depth = ndimage.distance_transform_edt(inside)[1:-1, 1:-1]
        row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
        places[cluster] = ((float(column) + 0.5) / width, (float(row) + 0.5) / height)
    return places


def _spread_colour(index: int) -> tuple[int, ...]:
    """Hues a golden angle apart, which keeps neighbours in the list apart."""
    saturation, value = ((0.75, 0.8), (0.5, 0.95), (0.9, 0.55))[index % 3]
    channels = colorsys.hsv_to_rgb(index * 0.618034 % 1, saturation, value)
    return tuple(round(255 * channel) for channel in channels)
