"""gmm: how unlikely a feature is under a small mixture of Gaussians for each class.

    gmm   -max over classes c of log sum_j pi_cj N(f; mu_cj, diag S_cj)

After Liang et al., GMMSeg, NeurIPS 2022 (arXiv 2210.02025), where the mixtures are the network's trained head; here
they are fitted afterwards, by EM on the bank.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodray.scores.fitted.bank import Bank
from oodray.scores.fitted.grid import rows_of

COMPONENTS = 5
"""Gaussians of a class, as in GMMSeg."""

VECTORS_PER_COMPONENT = 20
"""Fewest: a class with fewer vectors has fewer components, and at least one."""

MOST_VECTORS = 10_000
"""Of a class, the first of the bank, which are a random sample of them."""

FLOOR = 1e-3
"""Added to every variance, as a share of the feature's variance over the bank: few vectors make no class narrow."""


@dataclass(frozen=True, eq=False)
class MixtureParameters:
    """All Gaussians of all classes, of features that are standardized first.

    Attributes:
        centre: `(D,)` float64.
        scales: `(D,)` float64: the deviation of each feature, 1 where it is 0.
        log_weights: `(J,)` float64.
        means: `(J, D)` float64.
        variances: `(J, D)` float64.
        classes: of each Gaussian, `(J,)` int64, ascending.
    """

    centre: NDArray[np.float64]
    scales: NDArray[np.float64]
    log_weights: NDArray[np.float64]
    means: NDArray[np.float64]
    variances: NDArray[np.float64]
    classes: NDArray[np.int64]


def fit_mixture(bank: Bank, *, seed: int) -> MixtureParameters:
    """A mixture for each class of which the bank holds a vector.

    Raises:
        ValueError: the bank is empty.
    """
    if not len(bank):
        raise ValueError("the bank holds no feature vector")
    # Sums in float64: of float32 the mean of many vectors has no digits.
    centre, scales = bank.features.mean(0, dtype=np.float64), bank.features.std(0, dtype=np.float64)
    scales = np.where(scales > 0, scales, 1.0)
    classes = np.unique(bank.classes).astype(np.int64)
    fitted = []
    for of_class in classes:
        rows = np.flatnonzero(bank.classes == of_class)[:MOST_VECTORS]
        fitted.append(_fit((bank.features[rows] - centre) / scales, seed))
    weights, means, variances = (np.concatenate(parts) for parts in zip(*fitted, strict=True))
    counts = [len(found[0]) for found in fitted]
    with np.errstate(divide="ignore"):  # a component without a vector has the weight 0
        log_weights = np.log(weights)
    return MixtureParameters(centre, scales, log_weights, means, variances, np.repeat(classes, counts))


def mixture(features: Tensor, parameters: MixtureParameters) -> Tensor:
    """The score on the grid, `(h, w)` float64, of features `(D, h, w)`."""
    centre, scales, log_weights, means, variances = (
        torch.from_numpy(values).to(features.device)
        for values in (
            parameters.centre,
            parameters.scales,
            parameters.log_weights,
            parameters.means,
            parameters.variances,
        )
    )
    x = (rows_of(features).double() - centre) / scales
    precisions = 1 / variances
    squared = x.square() @ precisions.T - 2 * x @ (means * precisions).T + (means.square() * precisions).sum(1)
    sizes = variances.log().sum(1) + 2 * scales.log().sum() + len(centre) * math.log(2 * math.pi)
    logs = log_weights - (squared + sizes) / 2
    best = [logs[:, _of(parameters, of_class)].logsumexp(1) for of_class in np.unique(parameters.classes)]
    return -torch.stack(best).amax(0).view(features.shape[1:])


def _of(parameters: MixtureParameters, of_class: np.int64) -> slice:
    first, last = np.searchsorted(parameters.classes, (of_class, of_class + 1))
    return slice(int(first), int(last))


def _fit(x: NDArray[np.float64], seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Weights, means and variances of the mixture of one class."""
    components = max(1, min(COMPONENTS, len(x) // VECTORS_PER_COMPONENT))
    if components == 1:
        return np.ones(1), x.mean(0)[None], x.var(0)[None] + FLOOR
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    found = GaussianMixture(components, covariance_type="diag", reg_covar=FLOOR, random_state=seed)
    with warnings.catch_warnings():
        # After 100 iterations the mixture is as good as it is.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found.fit(x)
    return found.weights_, found.means_, found.covariances_
