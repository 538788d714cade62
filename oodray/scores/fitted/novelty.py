"""Novelty: how unsure the network is of a pixel, and how far its feature lies from those of other images.

    novelty        z(-m) + z(d)
    novelty-half   z(-m) + z(d) / 2

m is the confidence, and d the mean Euclidean distance of the feature to its k = 3 nearest vectors of a bank, as in
`knn`. z(x) is (x - median) / range, the range being half the distance between the quantiles at 16 and at 84 %; of a
normal distribution that is its standard deviation. Medians and ranges are those of the bank's own vectors, each of
which is measured against the vectors of other images. Where a range is 0, that z is 0.

On the sets of `docs/novelty.md` d finds what m misses, and ranks too many thin things high: half its weight costs less.

The bank may be that of in-distribution images, or of the images of the run itself: see `docs/novelty.md`.
"""

from __future__ import annotations

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


def fit_novelty(bank: Bank, distances: NDArray[np.float32]) -> NoveltyParameters:
    """Medians and ranges over a bank, and over the distances that `distances_to_others` gave.

    Raises:
        ValueError: the bank is empty.
    """
    if not len(bank):
        raise ValueError("the bank holds no feature vector")
    unsure = -bank.m.astype(np.float16).astype(np.float64)
    return NoveltyParameters(*median_and_range(unsure), *median_and_range(distances))


def median_and_range(values: NDArray[np.floating]) -> tuple[float, float]:
    """The median, and half the distance between the quantiles at 16 and at 84 %; 0 and 0 of no values.

    >>> median_and_range(np.arange(101.0))
    (50.0, 34.0)
    """
    if not values.size:
        return 0.0, 0.0
    low, middle, high = np.quantile(values.astype(np.float64), [0.16, 0.5, 0.84])
    return float(middle), float((high - low) / 2)


@torch.no_grad()
def distances_to_others(
    bank: Bank, neighbours: Neighbours, left_out: LeftOut = lambda image_id: (image_id,)
) -> NDArray[np.float32]:
    """Mean distance to the k = 3 nearest vectors of other images, of each of the first `MEASURED` vectors of a bank.

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
        found.append(exact[values.isfinite().all(1)].mean(1).cpu().numpy())
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def novelty(distance: Tensor, confidence: Tensor, parameters: NoveltyParameters, weight: float = 1.0) -> Tensor:
    """The score of d and the confidence, both at the size of the image; the weight is that of d.

    The confidence is rounded to float16, as everywhere.

    >>> novelty(torch.tensor(5.0), torch.tensor(1.0), NoveltyParameters(-3.0, 2.0, 1.0, 4.0)).item()
    2.0
    """
    unsure = _z(-confidence.half().float(), parameters.unsure_median, parameters.unsure_range)
    return unsure + weight * _z(distance, parameters.distance_median, parameters.distance_range)


def _z(values: Tensor, median: float, spread: float) -> Tensor:
    return (values - median) * (1 / spread if spread else 0.0)
