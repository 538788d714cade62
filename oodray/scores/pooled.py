"""Pixel scores pooled over the regions of an image: every pixel of a region has one value.

    ratio(energy>-3.5)   share of the region's pixels whose energy is above -3.5, strictly
    mean(knn)            mean of `knn` over the region
    top-share(knn)       mean of `knn` over the tenth of the region's pixels where it is largest

The regions are the clusters of the run, or those that `--regions` names. `ratio` by itself is that of the paper, of
max-logit below tau: it follows from tallies, so that it can be swept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from oodray.metrics.scales import Probability
from oodray.scores.score import PixelScore

if TYPE_CHECKING:
    from torch import Tensor

    from oodray.scores.strips import Strip

TOP_SHARE = 0.1
"""Of a region's pixels, those that `top-share` takes the mean of; at least one."""

_MEAN = re.compile(r"(mean|top-share)\(([^()>]+)\)")
_RATIO = re.compile(r"(ratio)\(([^()>]+)>([-+]?[0-9.]+(?:e[-+]?[0-9]+)?)\)", re.IGNORECASE)


@dataclass(frozen=True)
class Pool:
    """How a score is pooled.

    Attributes:
        how: `ratio`, `mean` or `top-share`.
        of: the pixel score.
        threshold: above which a pixel counts for `ratio`; None for the others.
    """

    how: str
    of: str
    threshold: float | None = None

    @classmethod
    def named(cls, name: str) -> Self | None:
        """What a name of a pooled score means; None where it is none.

        >>> Pool.named("mean(knn)"), Pool.named("ratio(energy>-3.5)"), Pool.named("knn")
        (Pool(how='mean', of='knn', threshold=None), Pool(how='ratio', of='energy', threshold=-3.5), None)
        """
        if found := _MEAN.fullmatch(name):
            return cls(found[1], found[2].strip())
        if found := _RATIO.fullmatch(name):
            return cls("ratio", found[2].strip(), float(found[3]))
        return None


class PooledScore(PixelScore):
    """A pixel score, pooled over regions.

    Args:
        name: how results name it.
        score: the pixel score.
        pool: how it is pooled.
    """

    def __init__(self, name: str, score: PixelScore, pool: Pool) -> None:
        self.name, self.help = name, f"{score.help}; {pool.how} over the pixel's region"
        self._score, self._pool = score, pool
        self.scale = Probability() if pool.how == "ratio" else score.scale

    @property
    def source(self) -> PixelScore:
        """The pixel score."""
        return self._score

    def pixels(self, strip: Strip) -> Tensor:
        """See `PixelScore`."""
        return self._score.pixels(strip)

    def pool(self, values: NDArray[np.float32], regions: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `PixelScore`."""
        if self._pool.threshold is not None:
            # As the decimal that was written: a float32 score is compared without rounding the threshold.
            above = (values.astype(np.float64) > self._pool.threshold).astype(np.float64)
            return region_means(above, regions)
        return region_means(values, regions) if self._pool.how == "mean" else region_tops(values, regions)


def region_means(values: NDArray[np.floating], regions: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Of every pixel, the mean of its region.

    Args:
        values: `(H, W)`.
        regions: `(H, W)` uint8, the region of each pixel.

    >>> region_means(np.array([[1.0, 3.0, 5.0]]), np.array([[7, 7, 2]], np.uint8)).tolist()
    [[2.0, 2.0, 5.0]]
    """
    sums = np.bincount(regions.ravel(), weights=values.ravel(), minlength=256)
    pixels = np.bincount(regions.ravel(), minlength=256)
    means: NDArray[np.float32] = (sums / np.maximum(pixels, 1)).astype(np.float32)[regions]
    return means


def region_tops(values: NDArray[np.float32], regions: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Of every pixel, the mean of the largest `TOP_SHARE` of its region.

    >>> region_tops(np.array([[1.0, 3.0, 5.0]], np.float32), np.array([[7, 7, 2]], np.uint8)).tolist()
    [[3.0, 3.0, 5.0]]
    """
    tops = np.zeros(256, np.float32)
    for region in np.unique(regions):
        inside = values[regions == region].astype(np.float64)
        count = max(1, round(TOP_SHARE * inside.size))
        tops[region] = np.partition(inside, inside.size - count)[-count:].mean()
    return tops[regions]
