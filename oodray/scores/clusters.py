"""The paper's scores, which rank a pixel by its cluster (section 3.3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oodray.scores.score import ClusterMaps, ClusterScore

_ABOVE_ALL = 2.0**18  # more than two float16 values can differ by; float64 holds the sum


class Ratio(ClusterScore):
    """r_k of the cluster that the pixel lies in (eq. 3)."""

    name = "ratio"
    help = "share of unsure pixels in the pixel's cluster, the paper's r_k"

    def of_clusters(self, maps: ClusterMaps) -> NDArray[np.float64]:
        """See `ClusterScore`."""
        return maps.ratio


class MaskThenLogit(ClusterScore):
    """All pixels of the mask before all others; in both parts, the lowest max-logit first."""

    name = "mask-then-logit"
    help = "pixels of the mask first, then the others, each by falling max-logit"

    def of_clusters(self, maps: ClusterMaps) -> NDArray[np.float64]:
        """See `ClusterScore`."""
        return np.where(maps.mask > 0, _ABOVE_ALL, 0.0) - maps.confidence.astype(np.float64)
