"""The settings of a fit."""

from __future__ import annotations

from dataclasses import dataclass

LABELS = ("predicted", "true")
"""Whose classes the statistics go by."""


OF_SELF = ("knn", "novelty", "novelty-half")
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
