"""The Gaussian blur that PEBAL and methods after it lay over score maps: 7x7 pixels, sigma 1, borders mirrored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_REACH, _SIGMA = 3, 1.0


def blurred(scores: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """A score map, `(H, W)`, blurred, of the same type; what torchvision's `GaussianBlur(7, sigma=1)` makes of it.

    >>> dot = np.zeros((9, 9))
    >>> dot[4, 4] = 1
    >>> blurred(dot)[4, 4:].round(3).tolist()
    [0.159, 0.097, 0.022, 0.002, 0.0]
    """
    from scipy import ndimage

    distance = np.arange(-_REACH, _REACH + 1)
    weights = np.exp(-0.5 * (distance / _SIGMA) ** 2)
    weights /= weights.sum()
    across = ndimage.correlate1d(scores.astype(np.float64), weights, axis=1, mode="mirror")
    return np.asarray(ndimage.correlate1d(across, weights, axis=0, mode="mirror").astype(scores.dtype))
