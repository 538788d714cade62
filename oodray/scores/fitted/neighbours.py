"""Distance to the nearest in-distribution features, and its combination with LSE.

    knn    d, the mean distance of f to its k = 3 nearest vectors of the bank
    cdnp   (1 - LSE), scaled to 0..1 over in-distribution pixels, + d / d_max

Distances are Euclidean, of features as they are. With the metric "cosine" it is 1 - cos, for `knn` alone.

Galesso et al., Far Away in the Deep Space: Dense Nearest-Neighbor-Based Out-of-Distribution Detection, ICCV Workshops
2023 (arXiv 2211.06660). There d_max is taken over bank vectors that find themselves at distance 0; here they do not.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodray.config import KNN_METRICS
from oodray.scores.fitted.bank import Bank
from oodray.scores.fitted.search import Index, nearest
from oodray.scores.fitted.sums import Sums

K = 3

MOST_MEASURED = 30_000
"""Bank vectors over which d_max is taken, the first ones."""

CORESET_DIMS = 128
"""Of the random projection in which a coreset is chosen."""


@dataclass(frozen=True, eq=False)
class SearchParameters:
    """What of a bank is searched: by default all of it.

    Attributes:
        rows: of the bank that are searched, `(n,)` int64; empty for all.
        basis: of the subspace in which distances are taken, orthonormal, `(d, D)` float64; empty for all dimensions.
        direction_basis: the same for f / |f|, which the metric "cosine" is of.
    """

    rows: NDArray[np.int64]
    basis: NDArray[np.float64]
    direction_basis: NDArray[np.float64]


def fit_search(
    sums: Sums, bank: Bank, *, dims: int | None = None, size: int | None = None, seed: int = 0
) -> SearchParameters:
    """The principal components and the coreset that neighbours are searched in.

    Args:
        sums: over in-distribution images.
        bank: of them.
        dims: principal components to keep; None for all dimensions.
        size: of the coreset; None for the whole bank.
        seed: of the coreset.

    Raises:
        ValueError: the bank is empty, or features have fewer dimensions than `dims`.
    """
    if not len(bank):
        raise ValueError("the bank holds no feature vector")
    features = bank.features.shape[1]
    if dims is not None and not 1 <= dims <= features:
        raise ValueError(f"features have {features} dimensions: a projection keeps 1 to {features}, not {dims}")
    return SearchParameters(
        rows=np.zeros(0, np.int64) if size is None else coreset(bank, size, seed=seed),
        basis=_principal(sums.covariance(), dims or 0),
        direction_basis=_principal(sums.direction_covariance(), dims or 0),
    )


@dataclass(frozen=True, eq=False)
class Neighbours:
    """A bank that is ready to be searched, on a device.

    Attributes:
        index: of the vectors, after metric and projection.
        images: the image of each vector, as its place in `image_ids`, `(N,)` int32.
        image_ids: images that a vector is of.
        metric: one of `KNN_METRICS`.
        projection: rows that vectors are multiplied by, `(d, D)` float32; None for none.
    """

    index: Index
    images: Tensor
    image_ids: tuple[str, ...]
    metric: str = "euclidean"
    projection: Tensor | None = None

    @classmethod
    def of(
        cls,
        bank: Bank,
        parameters: SearchParameters,
        *,
        metric: str = "euclidean",
        device: torch.device | str = "cpu",
    ) -> Neighbours:
        """The vectors of a bank. On a CPU, Euclidean and whole, they are not copied.

        Args:
            bank: of features.
            parameters: what of it is searched.
            metric: one of `KNN_METRICS`.
            device: where the search is done.

        Raises:
            ValueError: the bank is empty, or the metric unknown.
        """
        if metric not in KNN_METRICS:
            raise ValueError(f"unknown metric {metric!r}; known: {', '.join(KNN_METRICS)}")
        rows = parameters.rows if len(parameters.rows) else slice(None)
        with warnings.catch_warnings():
            # Vectors may lie in memory that several processes share; nothing writes to them.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            vectors = torch.from_numpy(bank.features[rows]).to(device)
            images = torch.from_numpy(bank.images[rows]).to(device)
        basis = parameters.direction_basis if metric == "cosine" else parameters.basis
        onto = torch.from_numpy(basis).to(device, torch.float32) if len(basis) else None
        return cls(Index.of(_prepared(vectors, metric, onto)), images, bank.image_ids, metric, onto)

    def distance(self, rows: Tensor, *, excluded: Tensor | None = None, k: int = K) -> Tensor:
        """Mean distance of features `(Q, D)` to their k nearest vectors, `(Q,)` float32.

        Args:
            rows: features, on the device of the index.
            excluded: vectors that are left out, `(N,)` bool, see `of_images`.
            k: how many vectors; where fewer are left, all of them.

        Raises:
            ValueError: no vector is left.
        """
        queries = _prepared(rows, self.metric, self.projection)
        distances, _ = nearest(queries, self.index, k, excluded=excluded)
        return self._as_metric(distances).mean(1)

    def greatest(self, k: int = K) -> float:
        """d_max: the greatest mean distance of a vector of the bank to the k nearest others.

        Raises:
            ValueError: there is only one vector.
        """
        if len(self.index.vectors) < 2:
            raise ValueError("a bank of one vector has no distance between its vectors")
        queries = self.index.vectors[:MOST_MEASURED]
        distances, places = nearest(queries, self.index, k + 1)
        own = torch.arange(len(queries), device=queries.device)[:, None]
        # Where a vector does not find itself, as others are the same, any of them is as good to leave out.
        itself = places == own
        itself[:, -1] |= ~itself.any(1)
        others = self._as_metric(distances[~itself].view(len(queries), -1))
        return float(others.mean(1).max())

    def _as_metric(self, distances: Tensor) -> Tensor:
        # Of vectors of length 1, |a - b|^2 = 2 (1 - cos).
        return distances.square() / 2 if self.metric == "cosine" else distances

    def of_images(self, image_ids: Collection[str]) -> Tensor:
        """Which vectors are of one of some images, `(N,)` bool."""
        chosen = torch.zeros(len(self.image_ids), dtype=torch.bool, device=self.images.device)
        chosen[[self._places[name] for name in image_ids if name in self._places]] = True
        return chosen[self.images.long()]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.image_ids)}


@dataclass(frozen=True)
class CdnpParameters:
    """What brings both parts of `cdnp` to about 0..1.

    Attributes:
        least_lse: over in-distribution pixels.
        greatest_lse: over in-distribution pixels.
        d_max: see `Neighbours.greatest`.
    """

    least_lse: float
    greatest_lse: float
    d_max: float


def fit_cdnp(sums: Sums, neighbours: Neighbours) -> CdnpParameters:
    """The ranges of both parts.

    Raises:
        ValueError: LSE is the same everywhere, or all vectors of the bank are.
    """
    if not sums.lse.greatest > sums.lse.least:
        raise ValueError("LSE does not vary over in-distribution pixels: it has no range to be scaled by")
    d_max = neighbours.greatest()
    if not d_max > 0:
        raise ValueError("all vectors of the bank are the same: there is no distance to scale by")
    return CdnpParameters(sums.lse.least, sums.lse.greatest, d_max)


def cdnp(distance: Tensor, lse: Tensor, parameters: CdnpParameters) -> Tensor:
    """The score `cdnp` of the mean distance and LSE, both at the size of the image.

    >>> cdnp(torch.tensor(1.0), torch.tensor(3.0), CdnpParameters(2.0, 10.0, 4.0)).item()
    1.125
    """
    # min-max of 1 - LSE, whose least value is that of the greatest LSE.
    scaled = (parameters.greatest_lse - lse) / (parameters.greatest_lse - parameters.least_lse)
    return scaled + distance / parameters.d_max


def coreset(bank: Bank, size: int, *, seed: int) -> NDArray[np.int64]:
    """Rows of a bank that cover it: each next one is farthest from those chosen so far; ascending.

    Greedy k-centre (Gonzalez 1985), after a random projection to `CORESET_DIMS` dimensions, as in PatchCore (Roth et
    al., CVPR 2022).
    """
    if size >= len(bank):
        return np.arange(len(bank))
    vectors = torch.from_numpy(bank.features)
    if vectors.shape[1] > CORESET_DIMS:
        generator = torch.Generator().manual_seed(seed)
        onto = torch.randn((vectors.shape[1], CORESET_DIMS), generator=generator) / CORESET_DIMS**0.5
        vectors = vectors @ onto
    norms = vectors.square().sum(1)
    closest = torch.full((len(vectors),), torch.inf)
    chosen = np.zeros(size, np.int64)
    for nth in range(size):
        # The first vector of a bank is a random one.
        last = int(closest.argmax()) if nth else 0
        chosen[nth] = last
        closest = torch.minimum(closest, norms + norms[last] - 2 * (vectors @ vectors[last]))
        closest[last] = -torch.inf
    return np.sort(chosen)


def _principal(covariance: NDArray[np.float64], dims: int) -> NDArray[np.float64]:
    """The eigenvectors of the greatest eigenvalues, `(dims, D)`. Projecting on them makes no distance greater."""
    if not dims:
        return np.zeros((0, len(covariance)))
    return np.ascontiguousarray(np.linalg.eigh(covariance)[1].T[::-1][:dims])


def _prepared(vectors: Tensor, metric: str, projection: Tensor | None) -> Tensor:
    """Vectors in the space in which they are searched."""
    if metric == "cosine":
        sizes = vectors.norm(dim=1, keepdim=True)
        vectors = vectors / sizes.where(sizes > 0, 1.0)
    return vectors if projection is None else vectors @ projection.T
