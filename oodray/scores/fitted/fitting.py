"""From the sums and the bank of all images to the parameters of every score that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from oodray.errors import ConfigError
from oodray.scores.fitted.bank import Bank
from oodray.scores.fitted.head import ReactParameters, fit_react
from oodray.scores.fitted.mahalanobis import MahalanobisParameters, fit_mahalanobis
from oodray.scores.fitted.mixture import MixtureParameters, fit_mixture
from oodray.scores.fitted.neighbours import CdnpParameters, Neighbours, SearchParameters, fit_cdnp, fit_search
from oodray.scores.fitted.novelty import LeftOut, NoveltyParameters, distances_to_others, fit_novelty
from oodray.scores.fitted.scores import FITTED_SCORES, scores_with
from oodray.scores.fitted.settings import OF_SELF, FitSettings
from oodray.scores.fitted.standardized import StandardizedParameters, fit_standardized
from oodray.scores.fitted.subspace import NecoParameters, VimParameters, fit_neco, fit_vim
from oodray.scores.fitted.sums import Sums
from oodray.scores.fitted.superpixels import SupLidParameters, fit_suplid
from oodray.scores.maskomaly import MaskomalyParameters, QueryUse, fit_maskomaly


@dataclass(frozen=True)
class Fitted:
    """What was fitted.

    Attributes:
        parameters: of each score that has some, by name.
        names: scores that can be had.
        refused: why a score cannot be had, by name.
        remarks: what the user should know of a score that was fitted, by name.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)


def fit_scores(
    names: Sequence[str], sums: Sums, bank: Bank, settings: FitSettings, queries: QueryUse | None = None
) -> Fitted:
    """The parameters of scores; a score that these statistics do not allow is refused, with the reason.

    Args:
        names: of the scores.
        sums: over in-distribution images.
        bank: of them.
        settings: of the fit.
        queries: what the images make of the queries of a mask classifier; None for other networks.

    Raises:
        ConfigError: a name is unknown.
    """
    unknown = [name for name in names if name not in FITTED_SCORES]
    if unknown:
        raise ConfigError(f"no score to fit is named {', '.join(unknown)}; known: {', '.join(FITTED_SCORES)}")
    statistics, fitted = _Statistics(sums, bank, settings, queries), Fitted()
    for name in scores_with(names):
        try:
            parameters = _WAYS[name](statistics)
        except ValueError as error:
            fitted.refused[name] = str(error)
            continue
        fitted.names.append(name)
        if parameters is not None:
            fitted.parameters[name] = parameters
        if remark := _remark(parameters):
            fitted.remarks[name] = remark
    return fitted


@dataclass(frozen=True)
class _Statistics:
    sums: Sums
    bank: Bank
    settings: FitSettings
    queries: QueryUse | None

    @cached_property
    def search(self) -> SearchParameters:
        return fit_search(
            self.sums,
            self.bank,
            dims=self.settings.bank_dims,
            size=self.settings.bank_coreset,
            seed=self.settings.seed,
        )

    @cached_property
    def neighbours(self) -> Neighbours:
        return Neighbours.of(self.bank, self.search)

    @cached_property
    def novelty(self) -> NoveltyParameters:
        return fit_novelty(self.bank, distances_to_others(self.bank, self.neighbours))


def _fit_cdnp(of: _Statistics) -> CdnpParameters:
    return fit_cdnp(of.sums, of.neighbours)


def _require_activations(of: _Statistics) -> None:
    """For scores that fit nothing, but need the same activations as `react`."""
    fit_react(of.bank)


_WAYS: dict[str, Callable[[_Statistics], Any]] = {
    "sml": lambda of: fit_standardized(of.sums),
    "sml-smoothed": lambda of: fit_standardized(of.sums),
    "mahalanobis": lambda of: fit_mahalanobis(of.sums),
    "mahalanobis++": lambda of: fit_mahalanobis(of.sums, directions=True),
    "knn": lambda of: of.search,
    "cdnp": _fit_cdnp,
    "novelty": lambda of: of.novelty,
    "novelty-half": lambda of: of.novelty,
    "vim": lambda of: fit_vim(of.sums, of.bank),
    "neco": lambda of: fit_neco(of.sums, of.bank),
    "gmm": lambda of: fit_mixture(of.bank, seed=of.settings.seed),
    "suplid": lambda of: fit_suplid(of.bank),
    "react": lambda of: fit_react(of.bank),
    "ash": _require_activations,
    "scale": _require_activations,
    "maskomaly": lambda of: fit_maskomaly(of.queries),
}

KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        StandardizedParameters,
        MahalanobisParameters,
        SearchParameters,
        CdnpParameters,
        NoveltyParameters,
        VimParameters,
        NecoParameters,
        MixtureParameters,
        SupLidParameters,
        ReactParameters,
        MaskomalyParameters,
    )
}
"""Parameters by the name that a fit gives them."""


def fit_of_self(bank: Bank, left_out: LeftOut) -> Fitted:
    """What the images of a run itself are enough for, of their bank alone.

    Args:
        bank: of the images.
        left_out: the images whose vectors one of an image is not compared with.

    Raises:
        ValueError: the bank is empty.
    """
    nothing = np.zeros((0, bank.features.shape[1]))
    search = SearchParameters(np.zeros(0, np.int64), nothing, nothing)
    neighbours = Neighbours.of(bank, search)
    parameters = fit_novelty(bank, distances_to_others(bank, neighbours, left_out))
    remark = _remark(parameters)
    return Fitted(
        {"knn": search, "novelty": parameters, "novelty-half": parameters},
        list(OF_SELF),
        remarks={} if remark is None else {"novelty": remark},
    )


def _remark(parameters: Any) -> str | None:
    if isinstance(parameters, NoveltyParameters) and parameters.constant:
        return f"{' and '.join(parameters.constant)} does not vary between 16 and 84 % of the features: its z is 0"
    if isinstance(parameters, MahalanobisParameters) and parameters.shrinkage:
        return (
            f"the covariance of the features is singular: it was shrunk, {parameters.shrinkage:g} of it replaced by a "
            "multiple of the identity"
        )
    if isinstance(parameters, StandardizedParameters) and parameters.pooled:
        classes = ", ".join(map(str, parameters.pooled))
        return f"classes without enough pixels have the statistics of all pixels: {classes}"
    if isinstance(parameters, MaskomalyParameters) and not len(parameters.rejected):
        return (
            f"each of the {parameters.queries} queries is accepted somewhere, or responds to much: none is rejected, "
            "and what remains of the score is the part of accepted queries"
        )
    return None
