"""The seam between networks and the method: image in, logits and features out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Segmentation:
    """What a network says of one image. Both maps cover exactly the image, at whatever resolution they have.

    Attributes:
        logits: `(C, h, w)`, class scores before softmax.
        features: `(D, h', w')`, the backbone's third stage, or whatever is to be clustered.
    """

    logits: Tensor
    features: Tensor


@runtime_checkable
class Segmenter(Protocol):
    """A trained closed-set segmentation network.

    Any object with this method can be run: `--model package.module:factory` names a callable without arguments
    that returns one.
    """

    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        """Segment images of one size, each `(H, W, 3)` uint8 RGB; one result per image, in order."""
        ...
