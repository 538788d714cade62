"""Mahalanobis distance of a feature to the nearest class.

    mahalanobis     min over classes c of (f - mu_c)' S^-1 (f - mu_c), with one covariance S for all classes
    mahalanobis++   the same of f / |f|

Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples, NeurIPS 2018 (arXiv 1807.03888);
Müller and Hein, Mahalanobis++, ICML 2025 (arXiv 2505.18032).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodray.scores.fitted.grid import rows_of
from oodray.scores.fitted.sums import Sums, symmetric

LEAST_SHARE = 1e-10
"""A covariance whose least eigenvalue is a smaller share of its greatest one is singular, as far as sums can tell."""

SHRINKAGES = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Tried in this order on a singular covariance."""


@dataclass(frozen=True, eq=False)
class MahalanobisParameters:
    """Means and the inverse of the covariance.

    Attributes:
        centre: mean of all features, `(D,)` float64.
        whitening: `(D, D)` float64: distances are Euclidean between products with it.
        means: of the classes that have a position, about the centre and whitened, `(C', D)` float64.
        classes: which these are, `(C',)` int64.
        directions: whether features are divided by their length first.
        shrinkage: share of the covariance that was replaced by a multiple of the identity; 0 where it is regular.
    """

    centre: NDArray[np.float64]
    whitening: NDArray[np.float64]
    means: NDArray[np.float64]
    classes: NDArray[np.int64]
    directions: bool
    shrinkage: float


def fit_mahalanobis(sums: Sums, *, directions: bool = False) -> MahalanobisParameters:
    """Means of classes, and the covariance of features about the mean of their own class.

    A class without a position has no mean, and no feature is near to it. A singular covariance S, as that of fewer
    positions than features, is shrunk to (1 - a) S + a trace(S) / D I with the least a of `SHRINKAGES` that helps.

    Args:
        sums: over in-distribution images.
        directions: divide features by their length, for `mahalanobis++`.

    Raises:
        ValueError: no position counts, or features do not vary.
    """
    total = sums.direction_sum if directions else sums.feature_sum
    products = sums.direction_products if directions else sums.feature_products
    classes = np.flatnonzero(sums.positions)
    if not len(classes):
        raise ValueError("no position of the feature grid counts: there is no class to be near to")
    counts = sums.positions[classes]
    means = total[classes] / counts[:, None]
    centre = total.sum(0) / counts.sum()
    about = means - centre
    scatter = products - counts.sum() * np.outer(centre, centre) - (about * counts[:, None]).T @ about
    values, vectors, shrinkage = _regular(symmetric(scatter / counts.sum()))
    whitening = vectors.T / np.sqrt(values)[:, None]
    return MahalanobisParameters(centre, whitening, about @ whitening.T, classes, directions, shrinkage)


def mahalanobis(features: Tensor, parameters: MahalanobisParameters) -> Tensor:
    """The squared distance to the nearest class on the grid, `(h, w)` float64, of features `(D, h, w)`."""
    f = rows_of(features).double()
    if parameters.directions:
        sizes = f.norm(dim=1, keepdim=True)
        f = f / sizes.where(sizes > 0, 1.0)
    centre, whitening, means = (
        torch.from_numpy(values).to(f.device) for values in (parameters.centre, parameters.whitening, parameters.means)
    )
    white = (f - centre) @ whitening.T
    squared = white.square().sum(1, keepdim=True) - 2 * white @ means.T + means.square().sum(1)
    return squared.amin(1).clamp(min=0).view(features.shape[1:])


def _regular(covariance: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Eigenvalues and eigenvectors of a covariance, shrunk where it is singular, and by how much."""
    values, vectors = np.linalg.eigh(covariance)
    mean = float(np.trace(covariance)) / len(covariance)
    if not mean > 0:
        raise ValueError("features do not vary about the means of their classes: there is no distance to measure")
    for shrinkage in (0.0, *SHRINKAGES):
        # Shrinking turns no eigenvector.
        shrunk = (1 - shrinkage) * values + shrinkage * mean
        if shrunk[0] > LEAST_SHARE * shrunk[-1]:
            break
    return shrunk, vectors, shrinkage
