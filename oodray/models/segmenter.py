"""The seam between networks and the method: image in, logits and features out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from oodray.errors import ImageError

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
        head_input: `(E, h'', w'')`, what the network's classifier saw, for scores that change it and classify again:
            the segmenter then has a method `head`, from it to logits `(C, h'', w'')`. None where it offers neither.
    """

    logits: Tensor
    features: Tensor
    head_input: Tensor | None = None


@runtime_checkable
class Segmenter(Protocol):
    """A trained closed-set segmentation network.

    Any object with this method can be run: `--model package.module:factory` names a callable without
    arguments that returns one.
    """

    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        """Segment images of one size, each `(H, W, 3)` uint8 RGB; one result per image, in order."""
        ...


def check_one_size(images: list[NDArray[np.uint8]]) -> None:
    """Whether `Segmenter.segment` can be asked for `images`.

    Raises:
        ValueError: if there are none, or some differ in size.
    """
    sizes = {image.shape for image in images}
    if len(sizes) != 1:
        raise ValueError(f"images of one size expected, got {sorted(sizes)}")


def check_segmentations(segmentations: list[Segmentation], images: int) -> list[Segmentation]:
    """What a segmenter returned for `images` images, if it keeps to the protocol.

    Raises:
        ImageError: saying what it returned instead.
    """
    if len(segmentations) != images:
        raise ImageError(f"the segmenter returned {len(segmentations)} results for {images} images")
    for found in segmentations:
        _check_map("logits", found.logits)
        _check_map("features", found.features)
        if found.head_input is not None:
            _check_map("head_input", found.head_input)
    return segmentations


def _check_map(name: str, values: Any) -> None:
    import torch

    if not isinstance(values, torch.Tensor):
        raise ImageError(f"the segmenter returned {name} of type {type(values).__name__}, expected a tensor")
    if values.ndim != 3 or not values.numel() or not values.is_floating_point():
        raise ImageError(
            f"the segmenter returned {name} of {values.dtype} {tuple(values.shape)}, "
            "expected floats (channels, height, width)"
        )
