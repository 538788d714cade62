"""What can be fitted, and the settings of a fit. It needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FITTED_SCORES = (
    "sml",
    "sml-smoothed",
    "mahalanobis",
    "mahalanobis++",
    "knn",
    "cdnp",
    "novelty",
    "vim",
    "neco",
    "gmm",
    "react",
    "ash",
    "scale",
)
"""Scores that a fit can hold, in the order of tables."""

NEED_HEAD = ("react", "ash", "scale")
"""Those of a network that offers its last layer alone."""

LABELS = ("predicted", "true")
"""Whose classes the statistics go by."""


OF_SELF = ("knn", "novelty")
"""Scores that a bank of the run's own images is enough for."""


@dataclass(frozen=True)
class FitSettings:
    """The settings of a fit.

    Attributes:
        labels: one of `LABELS`.
        bank: vectors of the bank, at most.
        seed: of the bank, of the mixtures and of the coreset.
        bank_dims: principal components that neighbours are searched in; None for all dimensions.
        bank_coreset: vectors that neighbours are searched among; None for the whole bank.
    """

    labels: str = "predicted"
    bank: int = 100_000
    seed: int = 0
    bank_dims: int | None = None
    bank_coreset: int | None = None


def scores_with(names: Sequence[str]) -> tuple[str, ...]:
    """Scores in the order of `FITTED_SCORES`, with those that they are made of.

    >>> scores_with(["cdnp", "sml"])
    ('sml', 'knn', 'cdnp')
    """
    wanted = {*names} | ({"knn"} if {"cdnp", "novelty"} & {*names} else set())
    return tuple(name for name in FITTED_SCORES if name in wanted)
