"""Fitted scores as objects: what each computes of an image, from the parameters of a fit.

Heavy modules are imported where they compute: the names and lines of help of scores need none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

from oodray.errors import ConfigError, ImageError
from oodray.metrics.scales import Real, Scale
from oodray.scores.maskomaly import Maskomaly
from oodray.scores.score import FeatureScore, ImageFeatures, ImageScore, PixelScore

if TYPE_CHECKING:
    from torch import Tensor

    from oodray.scores.fitted.folder import Fit
    from oodray.scores.fitted.neighbours import Neighbours
    from oodray.scores.fitted.novelty import LeftOut
    from oodray.scores.strips import Strip

_OF_LOGITS = frozenset({"logits", "fit"})
_OF_FEATURES = frozenset({"features", "fit"})
_OF_BOTH = frozenset({"logits", "features", "fit"})


class OfFit(PixelScore):
    """A score that is made of a fit.

    Args:
        parameters: of the score.
        scale: of its keys.
    """

    def __init__(self, parameters: Any, scale: Scale) -> None:
        self.parameters, self.scale = parameters, scale

    @classmethod
    def of_fit(cls, fit: Fit) -> Self:
        """The score with the parameters of a fit.

        Raises:
            ConfigError: the fit does not hold it; the message says why.
        """
        return cls(fit.parameters(cls.name), fit.scale(cls.name))


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


class Knn(FeatureScore):
    """Mean distance to the k = 3 nearest vectors of the bank."""

    name = "knn"
    help = "mean distance of the feature to its 3 nearest in-distribution features"
    needs: ClassVar[frozenset[str]] = _OF_FEATURES

    def __init__(self, search: Search, scale: Scale) -> None:
        self.search, self.scale = search, scale

    @classmethod
    def of_fit(cls, fit: Fit, *, metric: str, left_out: LeftOut) -> Self:
        """The score with the bank of a fit.

        Raises:
            ConfigError: the fit does not hold it; the message says why.
        """
        fit.require(cls.name)
        return cls(Search(fit, metric, left_out=left_out), fit.scale(cls.name, metric))

    def planes(self, image: ImageFeatures) -> Tensor:
        """See `FeatureScore`."""
        return self.search.distance(image)[None]


class WithDistance(FeatureScore):
    """A score that combines the distance of `knn` with the logits."""

    needs: ClassVar[frozenset[str]] = _OF_BOTH

    def __init__(self, search: Search, parameters: Any, scale: Scale) -> None:
        self.search, self.parameters, self.scale = search, parameters, scale

    @classmethod
    def of_fit(cls, fit: Fit, search: Search) -> Self:
        """The score with the bank of a fit; its metric is always Euclidean.

        Raises:
            ConfigError: the fit does not hold it; the message says why.
        """
        return cls(search, fit.parameters(cls.name), fit.scale(cls.name))

    def planes(self, image: ImageFeatures) -> Tensor:
        """See `FeatureScore`."""
        return self.search.distance(image)[None]


class Cdnp(WithDistance):
    """min-max of (1 - LSE), plus the distance of `knn` over its greatest value."""

    name = "cdnp"
    help = "knn combined with the log-sum-exp of the logits"

    def combine(self, planes: Tensor, strip: Strip) -> Tensor:
        """See `FeatureScore`."""
        from oodray.scores.fitted.neighbours import cdnp

        return cdnp(planes[0], strip.lse, self.parameters)


class Novelty(WithDistance):
    """z(-m) + z(d), d being `knn`."""

    name = "novelty"
    help = "how unsure the network is, plus the distance to the nearest features of other images"
    weight: ClassVar[float] = 1.0

    def combine(self, planes: Tensor, strip: Strip) -> Tensor:
        """See `FeatureScore`."""
        from oodray.scores.fitted.novelty import novelty

        return novelty(planes[0], strip.confidence, self.parameters, self.weight)


class NoveltyHalf(Novelty):
    """z(-m) + z(d) / 2."""

    name = "novelty-half"
    help = "novelty with half the weight on the distance"
    weight: ClassVar[float] = 0.5


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
    def of_fit(cls, fit: Fit) -> Self:
        """See `OfFit`.

        Raises:
            ConfigError: the fit does not hold it, or scikit-image is not there.
        """
        from oodray.scores.fitted.superpixels import require_superpixels

        require_superpixels()
        return super().of_fit(fit)

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


class Search:
    """The distances of an image's features to a bank, which scores share: of each image they are taken once.

    Args:
        fit: that holds the bank.
        metric: of `oodray.config.KNN_METRICS`.
        left_out: of an image, by its id, the images whose vectors are left out.
    """

    def __init__(self, fit: Fit, metric: str = "euclidean", *, left_out: LeftOut) -> None:
        self.fit, self.metric, self.left_out = fit, metric, left_out
        self._last: tuple[Tensor, Tensor] | None = None
        self._device: str | None = None

    def distance(self, image: ImageFeatures) -> Tensor:
        """Mean distance to the nearest vectors, `(h, w)` float32.

        Raises:
            ImageError: fewer than three vectors are left for an image of the run that the bank is of.
        """
        if self._last is None or self._last[0] is not image.features:
            self._device = self._device or str(image.features.device)
            self._last = image.features, self._measured(image)
        return self._last[1]

    def _measured(self, image: ImageFeatures) -> Tensor:
        from oodray.scores.fitted.grid import rows_of
        from oodray.scores.fitted.neighbours import K

        features, neighbours = image.features, self._neighbours
        lost = neighbours.of_images(self.left_out(image.image_id))
        left = len(neighbours.images) - int(lost.sum())
        if not self.fit.of_run:
            return neighbours.distance(rows_of(features), excluded=lost).view(features.shape[1:])
        if left < K:
            raise ImageError(
                f"the run's own reference has {left} feature vectors of other images, and it takes {K}: give the run "
                "more images, a larger --reference-images, or a smaller --reference-gap"
            )
        # As they are kept between the two passes of such a run.
        return neighbours.distance(rows_of(features.half()), excluded=lost).view(features.shape[1:])

    @cached_property
    def _neighbours(self) -> Neighbours:
        assert self._device is not None, "the device is that of the first features"
        return self.fit.neighbours(metric=self.metric, device=self._device)


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
    wanted = {*names} | ({"knn"} if {"cdnp", "novelty", "novelty-half"} & {*names} else set())
    return tuple(name for name in FITTED_SCORES if name in wanted)


def scores_needing(what: str) -> tuple[str, ...]:
    """Those that need `what` of the network, of `oodray.scores.score.NEEDS`.

    >>> scores_needing("head"), scores_needing("queries")
    (('react', 'ash', 'scale'), ('maskomaly',))
    """
    return tuple(score.name for score in FITTED if what in score.needs)


def scores_of_fit(
    fit: Fit, classes: list[type[PixelScore]], *, knn_metric: str, left_out: LeftOut | None = None
) -> list[PixelScore]:
    """Scores that need a fit, made of one.

    Args:
        fit: that holds them.
        classes: of the scores.
        knn_metric: the metric of `knn`; that of `cdnp` is always Euclidean.
        left_out: of an image, by its id, the images whose vectors in the bank are left out. None leaves out those of
            the image itself where the bank is of the images of the run, and none where it is not.

    Raises:
        ConfigError: the fit does not hold one of them; the message says why.
    """
    if left_out is None:
        left_out = _itself if fit.of_run else _nobody
    euclidean = Search(fit, left_out=left_out)
    made: list[PixelScore] = []
    for score in classes:
        if issubclass(score, WithDistance):
            made.append(score.of_fit(fit, euclidean))
        elif score is Knn:
            knn = Knn.of_fit(fit, metric=knn_metric, left_out=left_out)
            if knn_metric == euclidean.metric:
                knn.search = euclidean
            made.append(knn)
        elif issubclass(score, OfFit | Maskomaly):
            made.append(score.of_fit(fit))
        else:
            raise ConfigError(f"the score {score.name} cannot be made of a fit")
    return made


def _itself(image_id: str) -> tuple[str, ...]:
    return (image_id,)


def _nobody(image_id: str) -> tuple[str, ...]:  # noqa: ARG001
    return ()
