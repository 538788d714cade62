"""Regions that pixels are judged by: K-Means clusters of features, as in the paper, superpixels, or a grid."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from oodray.errors import ConfigError

COMPACTNESS = 10.0
"""Weight of position against colour, that of scikit-image."""

MOST_REGIONS = 255


def regions_of(kind: str, image: NDArray[np.uint8], k: int) -> NDArray[np.uint8]:
    """The region of every pixel, by the image alone.

    Args:
        kind: `"slic"` or `"grid"`.
        image: `(H, W, 3)` uint8 RGB.
        k: how many regions; there may be a few less.

    Returns:
        `(H, W)` uint8, ids from 0 on.

    Raises:
        ConfigError: the package that makes superpixels is not there.
    """
    return superpixels(image, k) if kind == "slic" else grid(image.shape[0], image.shape[1], k)


def superpixels(image: NDArray[np.uint8], k: int) -> NDArray[np.uint8]:
    """Connected regions of similar position and colour (Achanta et al., SLIC superpixels, TPAMI 2012).

    They are made by scikit-image, which may give more than it is asked for; it is then asked for fewer.

    Raises:
        ConfigError: it is not there.
    """
    try:
        from skimage.segmentation import slic
    except ImportError:
        raise ConfigError("--regions slic needs scikit-image: pip install 'oodray[slic]'") from None
    for segments in range(k, 0, -1):
        found = slic(image, n_segments=segments, compactness=COMPACTNESS, start_label=0)
        ids, regions = np.unique(found, return_inverse=True)
        if len(ids) <= k:
            return regions.reshape(found.shape).astype(np.uint8)
    return np.zeros(image.shape[:2], np.uint8)


def grid(height: int, width: int, k: int) -> NDArray[np.uint8]:
    """Rectangles of nearly one size, as square as k allows.

    >>> grid(2, 4, 2).tolist()
    [[0, 0, 1, 1], [0, 0, 1, 1]]
    """
    rows, columns = _layout(height, width, k)
    of_row = np.arange(height) * rows // height
    of_column = np.arange(width) * columns // width
    regions: NDArray[np.uint8] = (of_row[:, None] * columns + of_column).astype(np.uint8)
    return regions


def _layout(height: int, width: int, k: int) -> tuple[int, int]:
    """Rows and columns of at most k cells, the most that there are and, of those, the squarest."""
    fits = [(rows, min(k // rows, width)) for rows in range(1, min(k, height) + 1)]

    # Cells as high as wide come first, but never at the price of half of the cells.
    def unlike_a_square(layout: tuple[int, int]) -> float:
        rows, columns = layout
        return abs(math.log((height / rows) / (width / columns)))

    enough = [layout for layout in fits if layout[0] * layout[1] > 0.8 * max(rows * columns for rows, columns in fits)]
    return min(enough, key=unlike_a_square)
