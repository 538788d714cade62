"""A network that is ready to be used, and what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from oodray.models.segmenter import Segmentation, Segmenter, segment_named
from oodray.models.source import ModelSource

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Network:
    """A `Segmenter` that knows where it comes from; see `oodray.load`.

    Attributes:
        source: where it comes from.
        device: where it runs, `"cpu"` or `"cuda"`. A factory puts its network where it likes.
        dtype: in which its convolutions and linear layers multiply; None where a factory decides.
        segmenter: the network itself.
    """

    source: ModelSource
    device: str
    dtype: str | None
    segmenter: Segmenter = field(repr=False)

    @property
    def name(self) -> str:
        """What was asked for: a name, a path, `package.module:factory`."""
        return self.source.name

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of its classes, in the order of the logits; none where they are not known."""
        from oodray.models.class_names import class_names_of

        return class_names_of(self.source)

    @property
    def tau(self) -> float | None:
        """The threshold on the confidence that is known for this network; None for weights of your own."""
        return self.source.tau

    @property
    def head(self) -> Callable[[Tensor], Tensor] | None:
        """The classifier alone: from `Segmentation.head_input` to logits; None where the network does not offer it."""
        return getattr(self.segmenter, "head", None)

    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        """Segment images of one size, each `(H, W, 3)` uint8 RGB; one result per image, in order."""
        return self.segmenter.segment(images)

    def segment_named(self, images: list[NDArray[np.uint8]], image_ids: Sequence[str]) -> list[Segmentation]:
        """As `segment`, of images with a name, which decides what dropout leaves out."""
        return segment_named(self.segmenter, images, image_ids)
