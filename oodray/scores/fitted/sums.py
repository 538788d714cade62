"""Sums over in-distribution images that add up: what the means, variances and covariances of all of them follow from.

Sums are float64. They are made for one image at a time, and added in the order of the manifest. So they are the same
to the last bit, whatever the number of workers and the order in which the images arrive.

Logits are summed at the size of the image, as the scores that use them are computed there. Features are summed on their
own grid. The class of a grid position, and whether it counts, are those of the pixel at its centre.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from oodray.errors import ImageError

if TYPE_CHECKING:
    from torch import Tensor

NO_CLASS = -1
"""The class of a pixel, or position, that does not count."""


@dataclass(frozen=True, eq=False)
class LogitMaps:
    """What is summed at the size of the image.

    Attributes:
        m: maximum logit, `(H, W)` float32.
        lse: log-sum-exp of the logits, `(H, W)` float32.
        classes: `(H, W)` int16, `NO_CLASS` where a pixel does not count.
    """

    m: NDArray[np.float32]
    lse: NDArray[np.float32]
    classes: NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class Positions:
    """The positions of a feature grid, row by row.

    Attributes:
        features: `(P, D)` float32, on any device.
        m: maximum logit, `(P,)` float32.
        lse: log-sum-exp of the logits, `(P,)` float32.
        classes: `(P,)` int16, `NO_CLASS` where a position does not count.
        head_inputs: what the network's last layer sees there, `(P, D')` float32; None without such a network.
    """

    features: Tensor
    m: NDArray[np.float32]
    lse: NDArray[np.float32]
    classes: NDArray[np.int16]
    head_inputs: Tensor | None = None


@dataclass(frozen=True)
class Moments:
    """Count, sum, sum of squares, least and greatest of numbers.

    >>> both = Moments.of(np.array([1.0, 3.0])) + Moments.of(np.array([5.0]))
    >>> both.mean, both.least, both.greatest, round(both.deviation, 3)
    (3.0, 1.0, 5.0, 1.633)
    """

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    least: float = np.inf
    greatest: float = -np.inf

    @classmethod
    def of(cls, values: NDArray[np.floating[Any]]) -> Moments:
        """Those of an array, of any shape."""
        if not values.size:
            return cls()
        exact = values.astype(np.float64)
        least, greatest = float(exact.min()), float(exact.max())
        return cls(exact.size, float(exact.sum()), float(np.square(exact).sum()), least, greatest)

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
            min(self.least, other.least),
            max(self.greatest, other.greatest),
        )

    @property
    def mean(self) -> float:
        """NaN of no numbers."""
        return self.total / self.count if self.count else np.nan

    @property
    def deviation(self) -> float:
        """The standard deviation, with the count as denominator; NaN of no numbers."""
        return float(np.sqrt(max(0.0, self.squares / self.count - self.mean**2))) if self.count else np.nan


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over images with C classes and D features.

    Attributes:
        images: how many.
        m: of all pixels that count.
        lse: of all pixels that count.
        pixels: by class, `(C,)` int64; the following two belong to it.
        m_sum: `(C,)`.
        m_squares: `(C,)`.
        positions: of the feature grid, by class, `(C,)` int64; the following belong to it.
        feature_sum: `(C, D)`, of f.
        feature_products: `(D, D)`, of the outer products of f, over all classes.
        direction_sum: `(C, D)`, of f / |f|; a feature of length 0 has the direction 0.
        direction_products: `(D, D)`.
    """

    images: int
    m: Moments
    lse: Moments
    pixels: NDArray[np.int64]
    m_sum: NDArray[np.float64]
    m_squares: NDArray[np.float64]
    positions: NDArray[np.int64]
    feature_sum: NDArray[np.float64]
    feature_products: NDArray[np.float64]
    direction_sum: NDArray[np.float64]
    direction_products: NDArray[np.float64]

    @classmethod
    def of(cls, maps: LogitMaps, positions: Positions, classes: int) -> Sums:
        """Those of one image.

        Raises:
            ImageError: m, LSE or a feature is NaN or infinite.
        """
        require_finite(maps, positions)
        counts = maps.classes != NO_CLASS
        m, of_class = maps.m[counts].astype(np.float64), maps.classes[counts]
        grid = positions.classes
        f = positions.features[_where(grid != NO_CLASS, positions.features)].double()
        sizes = f.norm(dim=1, keepdim=True)
        directions = f / sizes.where(sizes > 0, 1.0)
        members = _members(grid[grid != NO_CLASS], classes, f)
        return cls(
            images=1,
            m=Moments.of(m),
            lse=Moments.of(maps.lse[counts]),
            pixels=np.bincount(of_class, minlength=classes).astype(np.int64),
            m_sum=_sum_by_class(m, of_class, classes),
            m_squares=_sum_by_class(np.square(m), of_class, classes),
            positions=np.bincount(grid[grid != NO_CLASS], minlength=classes).astype(np.int64),
            feature_sum=(members @ f).cpu().numpy(),
            feature_products=(f.T @ f).cpu().numpy(),
            direction_sum=(members @ directions).cpu().numpy(),
            direction_products=(directions.T @ directions).cpu().numpy(),
        )

    @classmethod
    def total(cls, sums: Iterable[Sums]) -> Sums | None:
        """All of them, added in their order; None where there are none."""
        found = list(sums)
        return reduce(cls.__add__, found) if found else None

    def __add__(self, other: Sums) -> Sums:
        if self.feature_sum.shape != other.feature_sum.shape:
            raise ValueError(
                f"sums of {self.feature_sum.shape} and {other.feature_sum.shape} classes and features do not add up"
            )
        return Sums(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)})

    @property
    def mean_feature(self) -> NDArray[np.float64]:
        """`(D,)`, over all positions that count."""
        mean: NDArray[np.float64] = self.feature_sum.sum(0) / self.positions.sum()
        return mean

    def covariance(self) -> NDArray[np.float64]:
        """Of the features about their mean, `(D, D)`, with the count as denominator."""
        mean = self.mean_feature
        return symmetric(self.feature_products / self.positions.sum() - np.outer(mean, mean))

    def direction_covariance(self) -> NDArray[np.float64]:
        """The same of f / |f|."""
        mean = self.direction_sum.sum(0) / self.positions.sum()
        return symmetric(self.direction_products / self.positions.sum() - np.outer(mean, mean))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """As arrays by name, for a file."""
        names = [field.name for field in fields(self) if field.name not in _MOMENTS]
        arrays = {name: np.asarray(getattr(self, name)) for name in names}
        for name in _MOMENTS:
            found = getattr(self, name)
            arrays[f"{name}_count"] = np.asarray(found.count)
            arrays[f"{name}_moments"] = np.array([found.total, found.squares, found.least, found.greatest])
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Sums:
        """From what `to_arrays` gave."""
        found: dict[str, Any] = {
            name: Moments(int(arrays[f"{name}_count"]), *map(float, arrays[f"{name}_moments"])) for name in _MOMENTS
        }
        names = {field.name for field in fields(cls)} - {"images", *_MOMENTS}
        found |= {name: arrays[name] for name in names}
        return cls(images=int(arrays["images"]), **found)


_MOMENTS = ("m", "lse")


def require_finite(maps: LogitMaps, positions: Positions) -> None:
    """Refuse an image of which a number is NaN or infinite; a single one would spoil every sum.

    Raises:
        ImageError: saying what is.
    """
    bad = int((~positions.features.isfinite()).sum())
    if bad:
        raise ImageError(
            f"{bad} of {positions.features.numel()} feature values are NaN or infinite: run the network in float32, "
            "and check the image and the checkpoint if that does not help"
        )
    for name, values in (("the maximum logit", maps.m), ("the log-sum-exp of the logits", maps.lse)):
        if not np.isfinite(values).all():
            raise ImageError(f"{name} is NaN or infinite at {np.count_nonzero(~np.isfinite(values))} pixels")


def symmetric(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of a matrix and its transpose: rounding may differ above and below the diagonal."""
    mean: NDArray[np.float64] = (matrix + matrix.T) / 2
    return mean


def _sum_by_class(values: NDArray[np.float64], of_class: NDArray[np.int16], classes: int) -> NDArray[np.float64]:
    return np.bincount(of_class, weights=values, minlength=classes).astype(np.float64)


def _where(chosen: NDArray[np.bool_], like: Tensor) -> Tensor:
    import torch

    return torch.from_numpy(chosen).to(like.device)


def _members(classes: NDArray[np.int16], count: int, like: Tensor) -> Tensor:
    """Whether a position is of a class, `(C, P)`, as numbers for a product.

    On a GPU scattered sums have no fixed order of addition.
    """
    import torch

    of_class = torch.from_numpy(classes.astype(np.int64)).to(like.device)
    return (of_class[None] == torch.arange(count, device=like.device)[:, None]).to(like.dtype)
