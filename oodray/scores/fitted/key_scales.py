"""The scale of the keys of each fitted score: where its values lie on in-distribution images.

It is chosen once, when a fit is made, and kept in it. So every worker, whatever its processor, counts by the same keys.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.metrics.scales import Positive, Real, Scale
from oodray.scores.fitted.bank import Bank
from oodray.scores.fitted.sums import Sums
from oodray.scores.maskomaly import SCALE as MASKOMALY_SCALE

MEASURED = 2000
"""Vectors of the bank, the first ones, on which a score is tried that has no unit of its own."""

COSINE_SCALE = Positive(0.0625)
"""Of `knn` with the metric "cosine", whose values lie within 0..2."""


def key_scale(name: str, sums: Sums, bank: Bank, parameters: Any) -> Scale:
    """The scale of a score.

    Args:
        name: of the score.
        sums: over in-distribution images.
        bank: of them.
        parameters: of the score, as fitted.
    """
    if name.startswith("mahalanobis"):
        return Positive(float(len(sums.feature_products)))  # the mean of squared distances to the own class
    if name == "knn":
        return _of_spread(float(np.trace(sums.covariance())))
    if name in _MEASURED:
        return _as_measured(_MEASURED[name](bank, parameters))
    if name == "maskomaly":
        return MASKOMALY_SCALE
    if name in ("sml", "sml-smoothed", "neco", "cdnp", "novelty", "novelty-half"):
        return Real(0.0, 1.0)
    return Real(0.0, _rounded(max(sums.m.deviation, 1e-6)))


def scales_of_self(bank: Bank) -> dict[str, Scale]:
    """The scales of the scores that a bank of the run's own images gives."""
    spread = float(bank.features.var(0, dtype=np.float64).sum())
    return {"knn": _of_spread(spread), "novelty": Real(0.0, 1.0), "novelty-half": Real(0.0, 1.0)}


def _of_spread(variance: float) -> Scale:
    """That of distances between features, from the sum of their variances."""
    return Positive(_rounded(math.sqrt(max(variance, 1e-30))))


def _of_mixture(bank: Bank, parameters: Any) -> NDArray[np.float64]:
    import torch

    from oodray.scores.fitted.mixture import mixture

    return mixture(torch.from_numpy(bank.features[:MEASURED].T.copy())[:, None], parameters).numpy()


def _of_superpixels(bank: Bank, parameters: Any) -> NDArray[np.float64]:
    import torch

    from oodray.scores.fitted.superpixels import local_dimensions

    dimensions = local_dimensions(torch.from_numpy(bank.features[:MEASURED]), parameters).numpy()
    return -dimensions * bank.lse[:MEASURED]


_MEASURED = {"gmm": _of_mixture, "suplid": _of_superpixels}
"""Scores without a unit of their own: their values at vectors of the bank."""


def _as_measured(values: NDArray[np.float64]) -> Scale:
    low, middle, high = np.quantile(values, [0.16, 0.5, 0.84])
    return Real(float(np.float32(middle)), _rounded(max((high - low) / 2, 1e-6)))


def _rounded(value: float) -> float:
    """The power of two next below: a short number, and exact in float32."""
    return float(2.0 ** math.floor(math.log2(value)))
