"""From the sums and the bank of all images to the parameters of every score that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from oodray.errors import ConfigError
from oodray.scores.fitted.bank import Bank
from oodray.scores.fitted.head import ReactParameters, fit_react
from oodray.scores.fitted.mahalanobis import MahalanobisParameters, fit_mahalanobis
from oodray.scores.fitted.mixture import MixtureParameters, fit_mixture
from oodray.scores.fitted.neighbours import CdnpParameters, Neighbours, coreset, fit_cdnp, principal_projection
from oodray.scores.fitted.settings import FITTED_SCORES, FitSettings
from oodray.scores.fitted.standardized import StandardizedParameters, fit_standardized
from oodray.scores.fitted.subspace import NecoParameters, VimParameters, fit_neco, fit_vim
from oodray.scores.fitted.sums import Sums


@dataclass(frozen=True)
class Fitted:
    """What was fitted.

    Attributes:
        parameters: of each score that has some, by name; `knn` has none but the bank.
        refused: why a score cannot be had, by name.
        remarks: what the user should know of a score that was fitted, by name.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)


def fit_scores(names: Sequence[str], sums: Sums, bank: Bank, settings: FitSettings) -> Fitted:
    """The parameters of scores; a score that these statistics do not allow is refused, with the reason.

    Raises:
        ConfigError: a name is unknown.
    """
    unknown = [name for name in names if name not in FITTED_SCORES]
    if unknown:
        raise ConfigError(f"no score to fit is named {', '.join(unknown)}; known: {', '.join(FITTED_SCORES)}")
    fitted = Fitted()
    for name in names:
        try:
            parameters = _WAYS[name](sums, bank, settings)
        except ValueError as error:
            fitted.refused[name] = str(error)
            continue
        if parameters is not None:
            fitted.parameters[name] = parameters
        if remark := _remark(parameters):
            fitted.remarks[name] = remark
    return fitted


def neighbours_of(
    bank: Bank, sums: Sums, settings: FitSettings, *, metric: str = "euclidean", device: str = "cpu"
) -> Neighbours:
    """The bank, ready to be searched as the settings say.

    Raises:
        ValueError: the bank is empty, or features have fewer dimensions than are asked for.
    """
    dims, size = settings.bank_dims, settings.bank_coreset
    return Neighbours.of(
        bank,
        metric=metric,
        projection=None if dims is None else principal_projection(sums, dims, metric=metric),
        chosen=None if size is None else coreset(bank, size, seed=settings.seed),
        device=device,
    )


def _fit_knn(sums: Sums, bank: Bank, settings: FitSettings) -> None:
    """Nothing is fitted; refused where it could not be searched."""
    neighbours_of(bank, sums, settings)


def _fit_activations(sums: Sums, bank: Bank, settings: FitSettings) -> None:  # noqa: ARG001
    """Nothing is fitted; refused where the network offers no last layer, as for `react`."""
    fit_react(bank)


_WAYS: dict[str, Callable[[Sums, Bank, FitSettings], Any]] = {
    "sml": lambda sums, bank, settings: fit_standardized(sums),
    "sml-smoothed": lambda sums, bank, settings: fit_standardized(sums),
    "mahalanobis": lambda sums, bank, settings: fit_mahalanobis(sums),
    "mahalanobis++": lambda sums, bank, settings: fit_mahalanobis(sums, directions=True),
    "knn": _fit_knn,
    "cdnp": lambda sums, bank, settings: fit_cdnp(sums, neighbours_of(bank, sums, settings)),
    "vim": lambda sums, bank, settings: fit_vim(sums, bank),
    "neco": lambda sums, bank, settings: fit_neco(sums, bank),
    "gmm": lambda sums, bank, settings: fit_mixture(bank, seed=settings.seed),
    "react": lambda sums, bank, settings: fit_react(bank),
    "ash": _fit_activations,
    "scale": _fit_activations,
}


KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        StandardizedParameters,
        MahalanobisParameters,
        CdnpParameters,
        VimParameters,
        NecoParameters,
        MixtureParameters,
        ReactParameters,
    )
}
"""Parameters by the name that a fit gives them."""


def _remark(parameters: Any) -> str | None:
    if isinstance(parameters, MahalanobisParameters) and parameters.shrinkage:
        return (
            f"the covariance of the features is singular: it was shrunk, {parameters.shrinkage:g} of it replaced by a "
            "multiple of the identity"
        )
    if isinstance(parameters, StandardizedParameters) and parameters.pooled:
        classes = ", ".join(map(str, parameters.pooled))
        return f"classes without enough pixels have the statistics of all pixels: {classes}"
    return None
