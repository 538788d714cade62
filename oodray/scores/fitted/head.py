"""Scores of a network that sees its features changed: its last layer is applied again, and LSE taken of what it says.

    react   every activation clipped at c, a quantile of in-distribution activations
    ash     of each position's activations the lower ones set to 0, the others scaled by exp(s1 / s2)
    scale   all activations scaled by exp(s1 / s2)

s1 is the sum of a position's activations, s2 the sum of those that are not pruned. The score is -LSE. The activations
are what the last layer sees: a network that offers its last layer has `head(activations)`.

Sun et al., ReAct, NeurIPS 2021 (arXiv 2111.12797); Djurisic et al., Extremely Simple Activation Shaping (ASH-S),
ICLR 2023 (arXiv 2209.09858); Xu et al., Scaling for Training Time and Post-hoc OOD Detection Enhancement, ICLR 2024
(arXiv 2310.00227).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from oodray.scores.fitted.bank import Bank

REACT_QUANTILE = 0.9
ASH_PERCENTILE = 90
SCALE_PERCENTILE = 85

Head = Callable[[Tensor], Tensor]
"""The last layer: `(D', h, w)` activations to `(C, h, w)` logits."""


@dataclass(frozen=True)
class ReactParameters:
    """Where activations are clipped."""

    limit: float


def fit_react(bank: Bank) -> ReactParameters:
    """The quantile of all activations in the bank.

    Raises:
        ValueError: the bank holds no activations, as of a network without `head(features)`.
    """
    if bank.head_inputs is None or not bank.head_inputs.size:
        raise ValueError("the bank holds no input of the network's last layer: the network offers no head(features)")
    return ReactParameters(float(np.quantile(bank.head_inputs, REACT_QUANTILE)))


def react(activations: Tensor, head: Head, parameters: ReactParameters) -> Tensor:
    """The score `react`, `(h, w)` float32, of activations `(D', h, w)`."""
    return _energy(head(activations.clamp(max=parameters.limit)))


def ash(activations: Tensor, head: Head) -> Tensor:
    """The score `ash`, `(h, w)` float32, of activations `(D', h, w)`."""
    greatest = _greatest(activations, ASH_PERCENTILE)
    pruned = activations.where(greatest, 0)
    return _energy(head(pruned * _scale(activations, greatest)))


def scale(activations: Tensor, head: Head) -> Tensor:
    """The score `scale`, `(h, w)` float32, of activations `(D', h, w)`."""
    return _energy(head(activations * _scale(activations, _greatest(activations, SCALE_PERCENTILE))))


def _greatest(activations: Tensor, percentile: int) -> Tensor:
    """The activations of each position that are not pruned: the greatest `100 - percentile` %, at least one."""
    count = max(1, len(activations) - round(len(activations) * percentile / 100))
    least = activations.topk(count, dim=0).values[-1:]
    return activations >= least


def _scale(activations: Tensor, greatest: Tensor) -> Tensor:
    """exp(s1 / s2) of each position, `(1, h, w)`; 1 where nothing positive is left."""
    total, rest = activations.sum(0, keepdim=True), activations.where(greatest, 0).sum(0, keepdim=True)
    exponent = torch.where(rest > 0, total / rest.clamp(min=torch.finfo(rest.dtype).tiny), 0)
    return exponent.exp()


def _energy(logits: Tensor) -> Tensor:
    return -logits.float().logsumexp(0)
