"""Novelty: how unsure the network is of a pixel, and how far its feature lies from those of other images.

    novelty          z(-m) + z(d)
    novelty-mutual   z(-m) + z(p)

m is the confidence, and d the mean Euclidean distance of the feature to its k = 3 nearest vectors of a bank, as in
`knn`. z(x) is (x - median) / range, the range being half the distance between the quantiles at 16 and at 84 %; of a
normal distribution that is its standard deviation. Medians and ranges are those of the bank's own vectors, each of
which is measured against the vectors of other images. Where a range is 0, that z is 0.

p, mutual proximity, is how far the feature is for the vectors that were found: the logarithm of the share of the bank
that is nearer to them. So a distance counts little among features that lie far apart anyway. Schnitzer, Flexer, Schedl
and Widmer, Local and Global Scaling Reduce Hubs in Space, JMLR 2012; of both sides here the found ones' alone.

The bank may be that of in-distribution images, or of the images of the run itself: see `docs/novelty.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodray.scores.fitted.bank import Bank
from oodray.scores.fitted.neighbours import K, Neighbours

MEASURED = 4096
"""Vectors of the bank whose distances give median and range, the first ones: they are a random sample themselves."""

SAMPLE = 500
"""Vectors of the bank, the first ones, that the usual distances of a vector are taken to."""

_QUERIES = 256
"""Vectors that are measured at once: their distances to 100,000 others are 100 MB."""

LeftOut = Callable[[str], Collection[str]]
"""Of an image, by its id: the images whose vectors it is not compared with."""


@dataclass(frozen=True)
class NoveltyParameters:
    """What brings both parts of `novelty` to one size.

    Attributes:
        unsure_median: of -m.
        unsure_range: of -m.
        distance_median: of d.
        distance_range: of d.
    """

    unsure_median: float
    unsure_range: float
    distance_median: float
    distance_range: float

    @property
    def constant(self) -> tuple[str, ...]:
        """The parts that do not vary, whose z is 0."""
        ranges = {"the max-logit": self.unsure_range, "the distance to the nearest features": self.distance_range}
        return tuple(name for name, spread in ranges.items() if not spread)


@dataclass(frozen=True, eq=False)
class MutualParameters(NoveltyParameters):
    """The same for `novelty-mutual`, where p takes the place of d, and what p is made of.

    Attributes:
        means: of the distances of every vector to a sample of the bank, `(N,)` float32.
        deviations: of these distances, `(N,)` float32.
    """

    means: NDArray[np.float32]
    deviations: NDArray[np.float32]


def fit_novelty(nearest: Nearest, bank: Bank) -> NoveltyParameters:
    """Medians and ranges over a bank, of which `nearest` is what `nearest_of_others` gave.

    Raises:
        ValueError: the bank is empty.
    """
    return NoveltyParameters(*_of_unsure(bank), *median_and_range(nearest.distances.mean(1).cpu().numpy()))


def fit_mutual(nearest: Nearest, bank: Bank, neighbours: Neighbours) -> MutualParameters:
    """The same for `novelty-mutual`.

    Raises:
        ValueError: the bank is empty.
    """
    unsure = _of_unsure(bank)
    sample = neighbours.index.vectors[:SAMPLE]
    found = [torch.cdist(block, sample) for block in neighbours.index.vectors.split(_QUERIES)]
    means = torch.cat([block.mean(1) for block in found])
    deviations = torch.cat([block.std(1, correction=0) for block in found])
    proximity = mutual_proximity(nearest.distances, nearest.places, means, deviations)
    near = median_and_range(proximity.cpu().numpy())
    return MutualParameters(*unsure, *near, means.cpu().numpy(), deviations.cpu().numpy())


def mutual_proximity(distances: Tensor, places: Tensor, means: Tensor, deviations: Tensor) -> Tensor:
    """How far a feature is for its nearest vectors: the logarithm of the share of the bank that is nearer to them.

    The distances of a vector to the bank are taken as normal.

    Args:
        distances: to the nearest vectors, `(Q, k)`.
        places: of these vectors in the bank, `(Q, k)`.
        means: of the distances of every vector of the bank, `(N,)`.
        deviations: of these, `(N,)`.

    Returns:
        `(Q,)` float32.

    >>> mutual_proximity(torch.tensor([[3.0]]), torch.tensor([[1]]), torch.tensor([9.0, 3.0]), torch.ones(2)).exp()
    tensor([0.5000])
    """
    usual = (distances - means[places]) / deviations[places].clamp(min=1e-12)
    shares = torch.special.log_ndtr(usual.double()).logsumexp(1) - math.log(places.shape[1])
    return shares.float()


def _of_unsure(bank: Bank) -> tuple[float, float]:
    if not len(bank):
        raise ValueError("the bank holds no feature vector")
    return median_and_range(-bank.m.astype(np.float16).astype(np.float64))


def median_and_range(values: NDArray[np.floating]) -> tuple[float, float]:
    """The median, and half the distance between the quantiles at 16 and at 84 %; 0 and 0 of no values.

    >>> median_and_range(np.arange(101.0))
    (50.0, 34.0)
    """
    if not values.size:
        return 0.0, 0.0
    low, middle, high = np.quantile(values.astype(np.float64), [0.16, 0.5, 0.84])
    return float(middle), float((high - low) / 2)


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest vectors of other images, of some vectors of a bank.

    Attributes:
        distances: to them, `(n, 3)` float32.
        places: of them in the bank, `(n, 3)` int64.
    """

    distances: Tensor
    places: Tensor


@torch.no_grad()
def nearest_of_others(bank: Bank, neighbours: Neighbours, left_out: LeftOut = lambda image_id: (image_id,)) -> Nearest:
    """The k = 3 nearest vectors of other images, of each of the first `MEASURED` vectors of a bank.

    Vectors for which fewer than three are left have none.

    Args:
        bank: of features.
        neighbours: that bank, ready to be searched.
        left_out: the images whose vectors one of an image is not compared with; by default its own.
    """
    vectors = neighbours.index.vectors
    queries = torch.from_numpy(bank.features[:MEASURED].copy()).to(vectors.device)
    if neighbours.projection is not None:
        queries = queries @ neighbours.projection.T
    place = {name: index for index, name in enumerate(neighbours.image_ids)}
    found = []
    for first in range(0, len(queries) if len(vectors) >= K else 0, _QUERIES):
        block = queries[first : first + _QUERIES]
        table = torch.cdist(block, vectors)
        images = bank.images[first : first + len(block)]
        for image in np.unique(images):
            lost = torch.zeros(len(place), dtype=torch.bool, device=table.device)
            lost[[place[name] for name in left_out(bank.image_ids[image]) if name in place]] = True
            rows = torch.from_numpy(np.flatnonzero(images == image)).to(table.device)
            table[rows] = table[rows].masked_fill(lost[neighbours.images.long()], torch.inf)
        values, places = table.topk(K, dim=1, largest=False)
        # Measured again by differences: what a product of matrices gives of small distances is rounding.
        exact = (block[:, None] - vectors[places]).norm(dim=2)
        enough = values.isfinite().all(1)
        found.append((exact[enough], places[enough]))
    if not found:
        return Nearest(torch.empty(0, K), torch.empty(0, K, dtype=torch.int64))
    return Nearest(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def novelty(distance: Tensor, confidence: Tensor, parameters: NoveltyParameters) -> Tensor:
    """The score of d, or of p, and the confidence, both at the size of the image.

    The confidence is rounded to float16, as everywhere.

    >>> novelty(torch.tensor(5.0), torch.tensor(1.0), NoveltyParameters(-3.0, 2.0, 1.0, 4.0)).item()
    2.0
    """
    unsure = -confidence.half().float()
    return _z(unsure, parameters.unsure_median, parameters.unsure_range) + _z(
        distance, parameters.distance_median, parameters.distance_range
    )


def _z(values: Tensor, median: float, spread: float) -> Tensor:
    return (values - median) * (1 / spread if spread else 0.0)
