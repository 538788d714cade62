"""A fit in use: what scores are made of, and the search of its bank that they share."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from oodray.errors import ImageError
from oodray.metrics.scales import Scale
from oodray.scores.score import ImageFeatures, PixelScore

if TYPE_CHECKING:
    from torch import Tensor

    from oodray.scores.fitted.folder import Fit
    from oodray.scores.fitted.neighbours import Neighbours
    from oodray.scores.fitted.novelty import LeftOut

EUCLIDEAN = "euclidean"


class FitInUse:
    """A fit, and the searches of its bank: one of each metric, however many scores take distances from it.

    Args:
        fit: that scores are made of.
        knn_metric: the metric of `knn`, of `oodray.config.KNN_METRICS`; that of all other scores is Euclidean.
        left_out: of an image, by its id, the images whose vectors in the bank are left out. None leaves out those of
            the image itself where the bank is of the images of the run, and none where it is not.
    """

    def __init__(self, fit: Fit, knn_metric: str = EUCLIDEAN, left_out: LeftOut | None = None) -> None:
        self.fit, self.knn_metric = fit, knn_metric
        self.left_out = left_out or (_itself if fit.of_run else _nobody)
        self._searches: dict[str, Search] = {}

    def search(self, metric: str = EUCLIDEAN) -> Search:
        """The search by a metric, the same one each time."""
        return self._searches.setdefault(metric, Search(self.fit, metric, left_out=self.left_out))


class MadeOfFit(PixelScore):
    """A score that is made of a fit."""

    @classmethod
    @abstractmethod
    def of_fit(cls, use: FitInUse) -> Self:
        """The score as a fit has it.

        Raises:
            ConfigError: the fit does not hold it; the message says why.
        """


class OfFit(MadeOfFit):
    """A score that is its parameters in a fit.

    Args:
        parameters: of the score.
        scale: of its keys.
    """

    def __init__(self, parameters: Any, scale: Scale) -> None:
        self.parameters, self.scale = parameters, scale

    @classmethod
    def of_fit(cls, use: FitInUse) -> Self:
        """See `MadeOfFit`."""
        return cls(use.fit.parameters(cls.name), use.fit.scale(cls.name))


class Search:
    """The distances of an image's features to a bank, which scores share: of each image they are taken once.

    Args:
        fit: that holds the bank.
        metric: of `oodray.config.KNN_METRICS`.
        left_out: see `FitInUse`.
    """

    def __init__(self, fit: Fit, metric: str, *, left_out: LeftOut) -> None:
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


def _itself(image_id: str) -> tuple[str, ...]:
    return (image_id,)


def _nobody(image_id: str) -> tuple[str, ...]:  # noqa: ARG001
    return ()
