"""Refinement of a score along the edges of its image: no weights, no training, linear in pixels.

    guided[:RADIUS]      guided filter: in every window the score becomes a linear function of the image's brightness
    bilateral[:RADIUS]   joint bilateral upsampling: means over cells go back to pixels, by distance and colour

The filters are in `oodray.scores.edge_filters`, which needs numba.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oodray.ranges import refinement


def refined(values: NDArray[np.float32], image: NDArray[np.uint8], how: str | None) -> NDArray[np.float32]:
    """A score `(H, W)` float32 after it was refined by its image `(H, W, 3)` uint8.

    Args:
        values: of every pixel.
        image: RGB.
        how: as the option `--refine` says it; None leaves the score as it is.

    Raises:
        ConfigError: there is no such way.

    >>> refined(np.eye(2, dtype=np.float32), np.zeros((2, 2, 3), np.uint8), "guided:4").tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    if how is None:
        return values
    from oodray.scores.edge_filters import cell_means, guided_filter, joint_bilateral_upsampling

    kind, radius = refinement(how)
    if kind == "guided":
        return guided_filter(values, image, radius)
    return joint_bilateral_upsampling(cell_means(values), image, radius)
