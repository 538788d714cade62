"""Scores from how much of a feature lies in the principal subspace of in-distribution features.

    vim    alpha |R (f - u)| - LSE: R projects on the residual space, what the principal components leave
    neco   -(a z(|P (f - u)| / |f - u|) + (1 - a) z(LSE)): P projects on the principal components, z standardizes

u is the mean feature. Wang et al., ViM, CVPR 2022 (arXiv 2203.10807); there u is -W^+ b of the classifier where the
features are its input, which a backbone's are not. Ben Ammar et al., NECO, ICLR 2024 (arXiv 2310.06823), in the dense
form of Zhang et al., Energy-Aware NECO, 2026 (arXiv 2605.29773), with their 16 components and a = 0.6.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodray.scores.fitted.bank import Bank
from oodray.scores.fitted.grid import rows_of
from oodray.scores.fitted.sums import Moments, Sums

NECO_COMPONENTS = 16
"""Of features with fewer than twice as many dimensions, half of them: all of a feature would lie in all components."""

NECO_WEIGHT = 0.6
"""The a of the formula."""

_BLOCK = 8192
"""Vectors of the bank that are float64 at a time."""


@dataclass(frozen=True, eq=False)
class VimParameters:
    """The residual space, and the scale of a residual.

    Attributes:
        centre: u, `(D,)` float64.
        residual: a basis of the residual space, orthonormal, `(R, D)` float64.
        alpha: mean m over mean length of the residual, over the bank.
        components: principal ones, `D - R`.
    """

    centre: NDArray[np.float64]
    residual: NDArray[np.float64]
    alpha: float
    components: int


@dataclass(frozen=True, eq=False)
class NecoParameters:
    """The principal subspace, and what standardizes both parts.

    Attributes:
        centre: u, `(D,)` float64.
        principal: its basis, orthonormal, `(P, D)` float64.
        share: mean and deviation of |P (f - u)| / |f - u|, over the bank.
        lse: mean and deviation of LSE, over all pixels that count.
    """

    centre: NDArray[np.float64]
    principal: NDArray[np.float64]
    share: tuple[float, float]
    lse: tuple[float, float]


def vim_components(features: int) -> int:
    """The number of principal components: 1000 from 2048 features on, 512 from 768 on, else half of them.

    The first two are the paper's (section 5: 1000 for features of 2048, 512 for those of 768); half is the rule that
    OpenOOD and pytorch-ood add for fewer.

    >>> vim_components(2048), vim_components(768), vim_components(640)
    (1000, 512, 320)
    """
    return 1000 if features >= 2048 else 512 if features >= 768 else features // 2


def fit_vim(sums: Sums, bank: Bank) -> VimParameters:
    """The residual space from the covariance of all features, and alpha from the bank.

    Raises:
        ValueError: the bank is empty, or its vectors have no residual, as where all lie in the principal subspace.
    """
    _require_vectors(bank)
    components = vim_components(bank.features.shape[1])
    centre = sums.mean_feature
    residual = _eigenvectors(sums)[components:]
    found = [(block.norm(dim=1), _projected(block, residual).norm(dim=1)) for block in _centred(bank, centre)]
    whole, lengths = (torch.cat(parts).mean().item() for parts in zip(*found, strict=True))
    # A bank vector is float32: what is left of it by rounding is no residual.
    if lengths <= float(np.finfo(np.float32).eps) * whole:
        raise ValueError(f"features have no residual beyond {components} principal components")
    alpha = float(bank.m.mean(dtype=np.float64)) / lengths
    return VimParameters(centre, residual, alpha, components)


def vim_residual(features: Tensor, parameters: VimParameters) -> Tensor:
    """alpha |R (f - u)| on the grid, `(h, w)` float64, of features `(D, h, w)`."""
    f = rows_of(features).double() - _like(parameters.centre, features)
    lengths: Tensor = _projected(f, parameters.residual).norm(dim=1)
    return (parameters.alpha * lengths).view(features.shape[1:])


def vim(residual: Tensor, lse: Tensor) -> Tensor:
    """The score `vim` of what `vim_residual` gave and LSE, both at the size of the image."""
    return residual - lse


def fit_neco(sums: Sums, bank: Bank) -> NecoParameters:
    """The principal subspace from the covariance of all features, the standardization from bank and sums.

    Raises:
        ValueError: the bank is empty, or a part does not vary.
    """
    _require_vectors(bank)
    centre = sums.mean_feature
    principal = _eigenvectors(sums)[: min(NECO_COMPONENTS, max(1, len(centre) // 2))]
    found = [_shares(block, torch.from_numpy(principal)) for block in _centred(bank, centre)]
    shares = Moments.of(torch.cat(found).numpy())
    parameters = NecoParameters(centre, principal, (shares.mean, shares.deviation), (sums.lse.mean, sums.lse.deviation))
    for what, (_, deviation) in (("the share of the principal subspace", parameters.share), ("LSE", parameters.lse)):
        if not deviation > 1e-12:
            raise ValueError(f"{what} does not vary over in-distribution images: it cannot be standardized")
    return parameters


def neco_share(features: Tensor, parameters: NecoParameters) -> Tensor:
    """|P (f - u)| / |f - u| on the grid, standardized, `(h, w)` float64, of features `(D, h, w)`."""
    f = rows_of(features).double() - _like(parameters.centre, features)
    mean, deviation = parameters.share
    return ((_shares(f, _like(parameters.principal, features)) - mean) / deviation).view(features.shape[1:])


def neco(share: Tensor, lse: Tensor, parameters: NecoParameters) -> Tensor:
    """The score `neco` of what `neco_share` gave and LSE, both at the size of the image."""
    mean, deviation = parameters.lse
    return -(NECO_WEIGHT * share + (1 - NECO_WEIGHT) * (lse - mean) / deviation)


def _shares(f: Tensor, principal: Tensor) -> Tensor:
    """|P f| / |f| of rows; 0 of a row of length 0."""
    lengths = f.norm(dim=1)
    shares: Tensor = (f @ principal.T).norm(dim=1) / lengths.where(lengths > 0, 1.0)
    return shares


def _eigenvectors(sums: Sums) -> NDArray[np.float64]:
    """Of the covariance, as rows, those of the greatest eigenvalue first."""
    vectors: NDArray[np.float64] = np.linalg.eigh(sums.covariance())[1].T[::-1]
    return np.ascontiguousarray(vectors)


def _centred(bank: Bank, centre: NDArray[np.float64]) -> Iterator[Tensor]:
    """The vectors of a bank about a centre, in float64, some at a time."""
    for block in torch.split(torch.from_numpy(bank.features), _BLOCK):
        yield block.double() - torch.from_numpy(centre)


def _projected(f: Tensor, basis: NDArray[np.float64]) -> Tensor:
    return f @ torch.from_numpy(basis).to(f.device).T


def _like(values: NDArray[np.float64], features: Tensor) -> Tensor:
    return torch.from_numpy(values).to(features.device)


def _require_vectors(bank: Bank) -> None:
    if not len(bank):
        raise ValueError("the bank holds no feature vector")
