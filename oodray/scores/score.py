"""What a score is. Higher is more out of distribution, for every score.

A score of pixels is a class with a name, a line of help and a function of a strip of the image:

    class Margin(oodray.PixelScore):
        name = "margin"
        help = "minus the distance between the two largest logits"

        def pixels(self, strip):
            first, second = strip.logits.topk(2, dim=0).values
            return second - first

`oodray run --scores my_module:Margin` and `oodray.detect(image, net, scores=[Margin()])` compute it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from oodray.errors import ImageError
from oodray.metrics.scales import Real, Scale

if TYPE_CHECKING:
    from torch import Tensor

    from oodray.scores.strips import Strip

Head: TypeAlias = "Callable[[Tensor], Tensor]"
"""A classifier alone: from what it sees, `(E, h, w)`, to logits `(C, h, w)`."""

NEEDS = ("logits", "features", "queries", "passes", "fit", "head", "clusters")
"""What a score may need: maps of the segmenter, its queries, several passes, statistics of `oodray fit`, the
segmenter's classifier, clusters."""


class Score(ABC):
    """A score: what it is called, and what it needs.

    Attributes:
        name: how options, results and tables name it.
        help: one line that says what it is, without a full stop.
        needs: which of `NEEDS`.
    """

    name: str
    help: str
    needs: ClassVar[frozenset[str]] = frozenset({"logits"})

    def __repr__(self) -> str:
        return f"<score {self.name}>"


class PixelScore(Score):
    """A score that each pixel has by itself. It is tallied by the keys of its scale.

    Attributes:
        scale: from values to the keys of the tally, see `oodray.metrics.scales`. The default suits numbers of any
            size and sign that are mostly of the size of logits.
    """

    scale: Scale = Real()

    @abstractmethod
    def pixels(self, strip: Strip) -> Tensor:
        """The score of each pixel of a strip of the image: `(rows, width)`, floating."""

    @property
    def source(self) -> PixelScore:
        """The score that `pixels` computes: itself, or the one that a pooled score pools."""
        return self

    def pool(self, values: NDArray[np.float32], regions: NDArray[np.uint8]) -> NDArray[np.float32]:  # noqa: ARG002
        """The score of every pixel from those of `source`, where it is pooled over regions.

        Args:
            values: `(height, width)`, those of `source`.
            regions: `(height, width)` uint8, the region of each pixel.
        """
        return values

    def finish(self, values: Tensor, classes: Tensor) -> Tensor:  # noqa: ARG002
        """The scores of the whole image, `(height, width)`, where they depend on those of other pixels.

        Args:
            values: `(height, width)` float32, what `pixels` gave.
            classes: `(height, width)` int16, the likeliest class of each pixel.
        """
        return values

    @classmethod
    def uses_whole_image(cls) -> bool:
        """Whether `finish` does anything."""
        return cls.finish is not PixelScore.finish


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """What scores of features see of an image: all on the grid of the features.

    Attributes:
        features: `(D, h, w)` floating, as the segmenter gave them.
        image_id: of the image, so that its own vectors can be left out of a bank.
        head: `head(features)` of the segmenter: from what its classifier sees, `(E, h', w')`, to logits
            `(C, h', w')`; None where it has none.
        head_input: `(E, h', w')`, what its classifier saw of this image; None where it has none.
        rgb: the image itself, `(H, W, 3)` uint8; None where whoever asks does not have it.
    """

    features: Tensor
    image_id: str
    head: Head | None = None
    head_input: Tensor | None = None
    rgb: NDArray[np.uint8] | None = None

    def classifier(self, score: str) -> tuple[Tensor, Head]:
        """What the classifier saw, and the classifier, for a score that needs both.

        Raises:
            ImageError: the segmenter does not offer them.
        """
        if self.head is None or self.head_input is None:
            raise ImageError(
                f"the score {score} needs a segmenter with head(features) and a Segmentation with head_input, see "
                "docs/models.md; this one has none: leave the score out of --scores"
            )
        return self.head_input, self.head


class FeatureScore(PixelScore):
    """A score with a part that is computed on the grid of the features: it goes to the image in one bilinear step."""

    needs: ClassVar[frozenset[str]] = frozenset({"features", "fit"})

    @abstractmethod
    def planes(self, image: ImageFeatures) -> Tensor:
        """The part on the grid: `(p, h, w)` float32; there may be several planes."""

    def combine(self, planes: Tensor, strip: Strip) -> Tensor:  # noqa: ARG002
        """The score of each pixel of a strip, from the planes there, `(p, rows, width)`; the first plane by default."""
        return planes[0]

    def pixels(self, strip: Strip) -> Tensor:
        """The score of each pixel of a strip of the image."""
        return self.combine(strip.planes_of(self), strip)


class ImageScore(PixelScore):
    """A score of the image as a whole: of its colours, its features, and a number that each pixel has by itself."""

    @abstractmethod
    def of_image(self, values: Tensor, image: ImageFeatures) -> Tensor:
        """The score of each pixel, `(H, W)`.

        Args:
            values: `(H, W)` float32, what `pixels` gave.
            image: its features and its colours.
        """


class QueryScore(PixelScore):
    """A score of the semantic map of a mask classifier, which `strip.logits` is."""

    needs: ClassVar[frozenset[str]] = frozenset({"queries"})


class QueryMapScore(QueryScore):
    """A score of the queries of a mask classifier themselves."""

    @abstractmethod
    def of_queries(self, classes: Tensor, masks: Tensor) -> Tensor:
        """The score of some rows of what the network saw, `(rows, width)`.

        Where a network sees an image in windows, the scores go together as their semantic maps do.

        Args:
            classes: `(Q, C + 1)`, the softmax of the class logits; the last class is "nothing".
            masks: `(Q, rows, width)`, the sigmoid of the mask logits.
        """

    def pixels(self, strip: Strip) -> Tensor:
        """The score of each pixel of a strip of the image."""
        return strip.planes_of(self)[0]


class PassesScore(PixelScore):
    """A score of several passes over an image, which whoever makes the passes computes."""

    needs: ClassVar[frozenset[str]] = frozenset({"passes"})

    def pixels(self, strip: Strip) -> Tensor:
        """There is none of a single pass."""
        raise NotImplementedError(self.name)


@dataclass(frozen=True, eq=False)
class ClusterMaps:
    """What scores of clusters see of an image; all `(height, width)`.

    Attributes:
        ratio: float64, r_k of the cluster of each pixel.
        mask: uint8, 255 in OoD clusters.
        confidence: float16.
    """

    ratio: NDArray[np.float64]
    mask: NDArray[np.uint8]
    confidence: NDArray[np.float16]


class ClusterScore(Score):
    """A score that a pixel has by its cluster. It follows from the tallies of the clusters, at every setting."""

    needs: ClassVar[frozenset[str]] = frozenset({"clusters"})

    @abstractmethod
    def of_clusters(self, maps: ClusterMaps) -> NDArray[np.float64]:
        """The score of each pixel of an image, `(height, width)`."""
