"""Scores of the distance to a bank: `knn`, and what combines it with the logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from oodray.metrics.scales import Scale
from oodray.scores.fitted.fit_in_use import FitInUse, MadeOfFit, Search
from oodray.scores.score import FeatureScore, ImageFeatures

if TYPE_CHECKING:
    from torch import Tensor

    from oodray.scores.strips import Strip


class OfDistance(MadeOfFit, FeatureScore):
    """A score of the distance that a search gives."""

    search: Search

    def planes(self, image: ImageFeatures) -> Tensor:
        """See `FeatureScore`."""
        return self.search.distance(image)[None]


class Knn(OfDistance):
    """Mean distance to the k = 3 nearest vectors of the bank."""

    name = "knn"
    help = "mean distance of the feature to its 3 nearest in-distribution features"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "fit"})

    def __init__(self, search: Search, scale: Scale) -> None:
        self.search, self.scale = search, scale

    @classmethod
    def of_fit(cls, use: FitInUse) -> Self:
        """See `MadeOfFit`."""
        use.fit.require(cls.name)
        return cls(use.search(use.knn_metric), use.fit.scale(cls.name, use.knn_metric))


class WithDistance(OfDistance):
    """A score that combines the distance of `knn` with the logits."""

    needs: ClassVar[frozenset[str]] = frozenset({"logits", "features", "fit"})

    def __init__(self, search: Search, parameters: Any, scale: Scale) -> None:
        self.search, self.parameters, self.scale = search, parameters, scale

    @classmethod
    def of_fit(cls, use: FitInUse) -> Self:
        """See `MadeOfFit`."""
        return cls(use.search(), use.fit.parameters(cls.name), use.fit.scale(cls.name))


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
