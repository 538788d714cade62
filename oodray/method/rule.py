"""The paper's rule, equations 1 to 3: which clusters of an image are out of distribution.

A pixel is unsure where its confidence lies below tau; a cluster is out of distribution where the share of its
pixels that are unsure exceeds T. Pixels are counted by `oodray.metrics.tally`; counts are integers, compared as
fractions: nothing is rounded on the way.

Every cluster of the package is judged here: by `exceeds` at one T, by `exceeded` at all the T of a sweep.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.errors import ConfigError
from oodray.metrics.curves import MAX_CLUSTER_PIXELS

MAX_DECIMALS = 8
"""Of a T of a sweep: up to it, a T and a ratio that differ are two different float64 numbers, see `exceeded`."""

_FLOAT_ERROR = 1e-12
"""More than a few operations of floating-point arithmetic move a number within 0..1."""


@dataclass(frozen=True)
class Rule:
    """The setting at which clusters are judged.

    Attributes:
        k: K, the number of clusters asked for.
        tau: a pixel with a smaller confidence is unsure.
        ood_ratio: T, a cluster with a larger share of unsure pixels is OoD.
    """

    k: int
    tau: float
    ood_ratio: float


def upsample_nearest(clusters: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Bring cluster ids to the size of the image (eq. 2): each pixel takes the id that its centre lies in.

    Nearest, because ids are names: a value between two of them would name a third cluster. On the line
    between two positions the later one is taken. The indices are integer arithmetic: no rounding moves a border.

    Args:
        clusters: `(h, w)` uint8.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        `(height, width)` uint8, contiguous.

    >>> upsample_nearest(np.array([[0, 1]], np.uint8), 1, 5).tolist()
    [[0, 0, 1, 1, 1]]
    """
    _require_ids(clusters)
    if height < 1 or width < 1 or not clusters.size:
        raise ValueError(f"clusters {clusters.shape} and image {height} x {width} must each have a pixel")
    rows = _positions_of_pixels(clusters.shape[0], height)
    columns = _positions_of_pixels(clusters.shape[1], width)
    return np.take(np.take(clusters, columns, axis=1), rows, axis=0)


def is_ood(unsure: int, pixels: int, ood_ratio: float) -> bool:
    """Whether r_k = unsure / pixels exceeds T, strictly (section 3.5): `exceeds` for one cluster.

    >>> is_ood(3, 10, 0.3), is_ood(31, 100, 0.3)
    (False, True)
    """
    return bool(exceeds(np.array([unsure]), np.array([pixels]), ood_ratio)[0])


def exceeds(unsure: NDArray[np.integer[Any]], pixels: NDArray[np.integer[Any]], ood_ratio: float) -> NDArray[np.bool_]:
    """Which clusters have r_k = unsure / pixels > T, strictly; one without a pixel never does.

    Both sides are fractions, and T is the decimal that it is written as: the float 0.3 lies a little below
    3/10, so as a binary fraction it would flag a cluster with exactly 3 unsure pixels of 10.

    Args:
        unsure: `(c,)`, unsure pixels of each cluster.
        pixels: `(c,)`, all pixels of each cluster.
        ood_ratio: T, 0..1.

    >>> exceeds(np.array([3, 4, 0]), np.array([10, 10, 0]), 0.3).tolist()
    [False, True, False]
    """
    if not 0 <= ood_ratio <= 1:
        raise ValueError(f"ood_ratio must lie within 0..1, not {ood_ratio}")
    if np.any((unsure < 0) | (unsure > pixels)):
        raise ValueError("a cluster cannot have fewer than 0 or more than all its pixels unsure")
    threshold = Fraction(str(ood_ratio))
    # a / b > p / q as a q > p b, in Python's integers: a T of many digits would overflow int64.
    scaled = unsure.astype(object) * threshold.denominator
    return np.asarray(scaled > pixels.astype(object) * threshold.numerator, dtype=np.bool_)


def exceeded(
    unsure: NDArray[np.integer[Any]], pixels: NDArray[np.integer[Any]], ood_ratios: Sequence[float]
) -> NDArray[np.int32]:
    """How many of the given values of T each r_k exceeds: the first so many of them. `exceeds` for all at once.

    The comparison is one of float64 numbers, and says what that of the fractions does. Two different fractions, of
    at most 2**26 pixels and of 10**8, lie more than 2**-53 apart; below 1 rounding moves each by at most 2**-54, so
    that they neither meet nor swap. Equal ones are one float64 number.

    Args:
        unsure: `(c,)`, unsure pixels of each cluster.
        pixels: `(c,)`, all pixels of each cluster, at least 1.
        ood_ratios: values of T, ascending, as `check_ood_ratios` admits them.

    Raises:
        ValueError: a cluster has no pixel, more than `MAX_CLUSTER_PIXELS`, or more unsure ones than it has.

    >>> exceeded(np.array([0, 3, 4]), np.array([10, 10, 10]), [0, 0.3, 0.35]).tolist()
    [0, 1, 3]
    """
    if np.any((pixels < 1) | (pixels > MAX_CLUSTER_PIXELS) | (unsure < 0) | (unsure > pixels)):
        raise ValueError(f"a cluster must have 1 to {MAX_CLUSTER_PIXELS} pixels, and 0 to all of them unsure")
    return np.searchsorted(np.asarray(ood_ratios), unsure / pixels).astype(np.int32)


def as_decimals(ood_ratios: Iterable[float]) -> list[float]:
    """Values of T without the errors of floating-point arithmetic: ascending, each once.

    `numpy.arange(0, 1, 0.01)` has 0.35000000000000003 in place of 0.35, which `check_ood_ratios` refuses.

    >>> as_decimals([0.35000000000000003, 0.35, 0.1 + 0.2, 0.123456789])
    [0.123456789, 0.3, 0.35]
    """
    nearest = ((ood_ratio, round(ood_ratio, MAX_DECIMALS)) for ood_ratio in ood_ratios)
    return sorted({near if abs(near - ood_ratio) <= _FLOAT_ERROR else ood_ratio for ood_ratio, near in nearest})


def check_ood_ratios(ood_ratios: Sequence[float]) -> None:
    """Refuse values that cannot be a T, or have more decimals than `exceeded` is exact for.

    Raises:
        ConfigError: naming the first of them.
    """
    for ood_ratio in ood_ratios:
        if not 0 <= ood_ratio <= 1:
            raise ConfigError(f"T is a share from 0 to 1, not {ood_ratio}")
        if round(ood_ratio, MAX_DECIMALS) != ood_ratio:
            raise ConfigError(f"T = {ood_ratio} has more than {MAX_DECIMALS} decimals")


def ood_mask(clusters: NDArray[np.uint8], flagged: Collection[int] | NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """The paper's output: 255 where a pixel's cluster is flagged, else 0.

    Args:
        clusters: `(H, W)` uint8 ids.
        flagged: ids of the clusters that are out of distribution.

    >>> ood_mask(np.array([[0, 1, 2]], np.uint8), {1, 2}).tolist()
    [[0, 255, 255]]
    """
    _require_ids(clusters)
    ids = np.array(list(flagged))
    if ids.size and (ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() > 255):
        raise ValueError(f"flagged must hold cluster ids, integers within 0..255, not {ids.tolist()}")
    values = np.zeros(256, np.uint8)
    values[ids.astype(np.intp)] = 255
    return values[clusters]


def _positions_of_pixels(positions: int, pixels: int) -> NDArray[np.int64]:
    """Along one axis of the map, the position that the centre of each pixel lies in."""
    return (2 * np.arange(pixels, dtype=np.int64) + 1) * positions // (2 * pixels)


def _require_ids(clusters: NDArray[np.uint8]) -> None:
    if clusters.ndim != 2 or clusters.dtype != np.uint8:
        raise ValueError(f"clusters must be uint8 (H, W), not {clusters.dtype} {clusters.shape}")
