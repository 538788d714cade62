"""Fitted scores as objects: what each computes of an image, from the parameters of a fit.

Heavy modules are imported where they compute: the names and lines of help of scores need none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Self

from oodray.metrics.scales import Real, Scale
from oodray.scores.fitted.distance_scores import Cdnp, Knn, Novelty, NoveltyHalf, WithDistance
from oodray.scores.fitted.fit_in_use import FitInUse, OfFit
from oodray.scores.maskomaly import Maskomaly
from oodray.scores.score import FeatureScore, ImageFeatures, ImageScore, PixelScore

if TYPE_CHECKING:
    from torch import Tensor

    from oodray.scores.strips import Strip

_OF_LOGITS = frozenset({"logits", "fit"})
_OF_FEATURES = frozenset({"features", "fit"})
_OF_BOTH = frozenset({"logits", "features", "fit"})


class Sml(OfFit):
    """-(m - mu_c) / sigma_c of the predicted class c."""

    name = "sml"
    help = "minus the largest logit, standardized among pixels of the predicted class"
    needs: ClassVar[frozenset[str]] = _OF_LOGITS

    def pixels(self, strip: Strip) -> Tensor:
        """See `PixelScore`."""
        from oodray.scores.fitted.standardized import standardized

        return standardized(strip.confidence, strip.classes, self.parameters)


class SmlSmoothed(Sml):
    """`sml`, its class boundaries filled in from the inside of classes, then smoothed."""

    name = "sml-smoothed"
    help = "sml with class boundaries suppressed, then smoothed"

    def finish(self, values: Tensor, classes: Tensor) -> Tensor:
        """See `PixelScore`."""
        from oodray.scores.fitted.standardized import smoothed

        return smoothed(values, classes)


class Mahalanobis(OfFit, FeatureScore):
    """min over classes c of (f - mu_c)' S^-1 (f - mu_c)."""

    name = "mahalanobis"
    help = "squared Mahalanobis distance of the feature to its nearest class"
    needs: ClassVar[frozenset[str]] = _OF_FEATURES

    def planes(self, image: ImageFeatures) -> Tensor:
        """See `FeatureScore`."""
        from oodray.scores.fitted.mahalanobis import mahalanobis

        return mahalanobis(image.features, self.parameters)[None].float()


class MahalanobisOfDirections(Mahalanobis):
    """The same of f / |f|."""

    name = "mahalanobis++"
    help = "mahalanobis of features divided by their length"


class Vim(OfFit, FeatureScore):
    """alpha |R (f - u)| - LSE."""

    name = "vim"
    help = "length of the feature's residual, as a virtual logit, minus the log-sum-exp"
    needs: ClassVar[frozenset[str]] = _OF_BOTH

    def planes(self, image: ImageFeatures) -> Tensor:
        """See `FeatureScore`."""
        from oodray.scores.fitted.subspace import vim_residual

        return vim_residual(image.features, self.parameters)[None].float()

    def combine(self, planes: Tensor, strip: Strip) -> Tensor:
        """See `FeatureScore`."""
        from oodray.scores.fitted.subspace import vim

        return vim(planes[0], strip.lse)


class Neco(OfFit, FeatureScore):
    """-(a z(|P (f - u)| / |f - u|) + (1 - a) z(LSE))."""

    name = "neco"
    help = "share of the feature in the principal subspace, combined with the log-sum-exp"
    needs: ClassVar[frozenset[str]] = _OF_BOTH

    def planes(self, image: ImageFeatures) -> Tensor:
        """See `FeatureScore`."""
        from oodray.scores.fitted.subspace import neco_share

        return neco_share(image.features, self.parameters)[None].float()

    def combine(self, planes: Tensor, strip: Strip) -> Tensor:
        """See `FeatureScore`."""
        from oodray.scores.fitted.subspace import neco

        return neco(planes[0], strip.lse, self.parameters)


class Gmm(OfFit, FeatureScore):
    """-max over classes of the log-likelihood under a small mixture of Gaussians."""

    name = "gmm"
    help = "minus the log-likelihood of the feature under the likeliest class's mixture of Gaussians"
    needs: ClassVar[frozenset[str]] = _OF_FEATURES

    def planes(self, image: ImageFeatures) -> Tensor:
        """See `FeatureScore`."""
        from oodray.scores.fitted.mixture import mixture

        return mixture(image.features, self.parameters)[None].float()


class SupLid(OfFit, ImageScore):
    """LID_s (-LSE_s) of the pixel's superpixel s, smoothed."""

    name = "suplid"
    help = "local dimension of the mean feature of the pixel's superpixel, times its energy, smoothed"
    needs: ClassVar[frozenset[str]] = _OF_BOTH

    @classmethod
    def of_fit(cls, use: FitInUse) -> Self:
        """See `OfFit`.

        Raises:
            ConfigError: the fit does not hold it, or scikit-image is not there.
        """
        from oodray.scores.fitted.superpixels import require_superpixels

        require_superpixels()
        return super().of_fit(use)

    def pixels(self, strip: Strip) -> Tensor:
        """See `PixelScore`: the energy."""
        return -strip.lse

    def of_image(self, values: Tensor, image: ImageFeatures) -> Tensor:
        """See `ImageScore`."""
        import torch

        from oodray.scores.blur import blurred
        from oodray.scores.fitted.superpixels import superpixels_of, suplid

        if image.rgb is None:
            raise ValueError(f"the score {self.name} needs the colours of the image")
        found = suplid(values, image.features, superpixels_of(image.rgb), self.parameters)
        return torch.from_numpy(blurred(found))


class React(OfFit, FeatureScore):
    """`energy` after activations were clipped at a quantile of in-distribution ones."""

    name = "react"
    help = "energy after the classifier's input is clipped"
    needs: ClassVar[frozenset[str]] = frozenset({"head", "fit"})

    def planes(self, image: ImageFeatures) -> Tensor:
        """See `FeatureScore`."""
        from oodray.scores.fitted.head import react

        activations, head = image.classifier(self.name)
        return react(activations, head, self.parameters)[None]


class Ash(FeatureScore):
    """`energy` after the lower activations were set to 0, the others scaled."""

    name = "ash"
    help = "energy after the classifier's input is pruned and scaled (ASH-S)"
    needs: ClassVar[frozenset[str]] = frozenset({"head"})
    scale: Scale = Real()

    def planes(self, image: ImageFeatures) -> Tensor:
        """See `FeatureScore`."""
        from oodray.scores.fitted.head import ash

        return ash(*image.classifier(self.name))[None]


class ScaleActivations(FeatureScore):
    """`energy` after activations were scaled by how much of them lies in the largest."""

    name = "scale"
    help = "energy after the classifier's input is scaled"
    needs: ClassVar[frozenset[str]] = frozenset({"head"})
    scale: Scale = Real()

    def planes(self, image: ImageFeatures) -> Tensor:
        """See `FeatureScore`."""
        from oodray.scores.fitted.head import scale

        return scale(*image.classifier(self.name))[None]


FITTED: tuple[type[PixelScore], ...] = (
    Sml,
    SmlSmoothed,
    Mahalanobis,
    MahalanobisOfDirections,
    Knn,
    Cdnp,
    Novelty,
    NoveltyHalf,
    Vim,
    Neco,
    Gmm,
    SupLid,
    React,
    Ash,
    ScaleActivations,
    Maskomaly,
)
"""Scores that a fit can hold, in the order of tables."""

FITTED_SCORES = tuple(score.name for score in FITTED)

BY_NAME_ALONE = (SupLid.name,)
"""Those that are fitted only where they are asked for: they need a package that is an extra."""


def scores_with(names: Sequence[str]) -> tuple[str, ...]:
    """Scores in the order of `FITTED_SCORES`, with those that they are made of.

    >>> scores_with(["cdnp", "sml"])
    ('sml', 'knn', 'cdnp')
    """
    of_knn = {score.name for score in FITTED if issubclass(score, WithDistance)}
    wanted = {*names} | ({Knn.name} if of_knn & {*names} else set())
    return tuple(name for name in FITTED_SCORES if name in wanted)


def scores_needing(what: str) -> tuple[str, ...]:
    """Those that need `what` of the network, of `oodray.scores.score.NEEDS`.

    >>> scores_needing("head"), scores_needing("queries")
    (('react', 'ash', 'scale'), ('maskomaly',))
    """
    return tuple(score.name for score in FITTED if what in score.needs)
