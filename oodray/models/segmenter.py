"""The seam between networks and the method: image in, logits and features out, and queries where there are any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from oodray.errors import ImageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from oodray.scores.queries import Queries, Windows


@dataclass(frozen=True)
class Segmentation:
    """What a network says of one image. All maps cover exactly the image, at whatever resolution they have.

    Attributes:
        logits: `(C, h, w)`, class scores before softmax; of a mask classifier the semantic map L, which `of_queries`
            makes.
        features: `(D, h', w')`, the backbone's third stage, or whatever is to be clustered.
        class_logits: `(Q, C + 1)`, of a mask classifier: for each query the classes, and "nothing" as the last. With
            windows `(W, Q, C + 1)`.
        mask_logits: `(Q, h, w)`, of a mask classifier, before the sigmoid. With windows `(W, Q, h, w)`.
        windows: where the network saw the image in windows, their places.
        scores: by the name of a score, its map `(H, W)` at the size of the image, where the network gives it itself.
        head_input: `(E, h'', w'')`, what the network's classifier saw, for scores that change it and classify again:
            the segmenter then has a method `head`, from it to logits `(C, h'', w'')`. None where it offers neither.
    """

    logits: Tensor
    features: Tensor
    class_logits: Tensor | None = None
    mask_logits: Tensor | None = None
    windows: Windows | None = None
    scores: Mapping[str, Tensor] = field(default_factory=dict)
    head_input: Tensor | None = None

    @classmethod
    def of_queries(
        cls, class_logits: Tensor, mask_logits: Tensor, features: Tensor, windows: Windows | None = None
    ) -> Self:
        """What a mask classifier says of one image; `logits` is L at about the size of the mask logits."""
        from oodray.scores.queries import semantic_map

        found = cls(features, features, class_logits, mask_logits, windows)
        queries = found.queries
        assert queries is not None, "they were given"
        return replace(found, logits=semantic_map(queries))

    @property
    def queries(self) -> Queries | None:
        """The queries of a mask classifier."""
        from oodray.scores.queries import Queries

        if self.class_logits is None or self.mask_logits is None:
            return None
        if self.windows is None:
            return Queries(self.class_logits[None], self.mask_logits[None])
        return Queries(self.class_logits, self.mask_logits, self.windows)

    @property
    def per_pixel(self) -> Tensor | Queries:
        """What the confidence and the scores of a pixel follow from: queries where there are any, else the logits."""
        return self.logits if (queries := self.queries) is None else queries

    def refuse_scores(self, scores: Mapping[str, frozenset[str]]) -> None:
        """Whether scores can be computed, by what each needs.

        Raises:
            ImageError: naming one that cannot.
        """
        for name, needs in scores.items():
            if name in self.scores:
                continue
            if "passes" in needs and "mutual-information" not in self.scores:
                raise ImageError(f"the score {name} needs {PASSES}")
            if "queries" in needs and self.class_logits is None:
                raise ImageError(f"the score {name} needs {QUERIES}")


QUERIES = "a mask classifier, with class_logits and mask_logits: the network gives one map of logits, no queries"
PASSES = "several passes over an image: pass --model several times, --flip, --scales or --mc-dropout"


@runtime_checkable
class Segmenter(Protocol):
    """A trained closed-set segmentation network.

    Any object with this method can be run: `--model package.module:factory` names a callable without
    arguments that returns one.
    """

    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        """Segment images of one size, each `(H, W, 3)` uint8 RGB; one result per image, in order."""
        ...


def segment_named(
    segmenter: Segmenter, images: list[NDArray[np.uint8]], image_ids: Sequence[str]
) -> list[Segmentation]:
    """What a segmenter says of images with a name, which matters to some, such as one with active dropout."""
    named = getattr(segmenter, "segment_named", None)
    found: list[Segmentation] = segmenter.segment(images) if named is None else named(images, image_ids)
    return found


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
        _check_queries(found)
    return segmentations


def _check_queries(found: Segmentation) -> None:
    if found.class_logits is None and found.mask_logits is None:
        return
    classes, masks = _shape(found.class_logits), _shape(found.mask_logits)
    windows = () if found.windows is None else (len(found.windows.windows),)
    lead = len(windows)
    if (
        len(classes) != lead + 2
        or len(masks) != lead + 3
        or classes[: lead + 1] != masks[: lead + 1]
        or classes[:lead] != windows
        or classes[-1] < 2
        or 0 in (*classes, *masks)
    ):
        expected = "(windows, queries, ...)" if windows else "(queries, classes + 1) and (queries, height, width)"
        raise ImageError(
            f"the segmenter returned class_logits {classes} and mask_logits {masks}, expected floats {expected}"
        )


def _shape(values: Any) -> tuple[int, ...]:
    import torch

    is_float = isinstance(values, torch.Tensor) and values.is_floating_point()
    return tuple(values.shape) if is_float else ()


def _check_map(name: str, values: Any) -> None:
    import torch

    if not isinstance(values, torch.Tensor):
        raise ImageError(f"the segmenter returned {name} of type {type(values).__name__}, expected a tensor")
    if values.ndim != 3 or not values.numel() or not values.is_floating_point():
        raise ImageError(
            f"the segmenter returned {name} of {values.dtype} {tuple(values.shape)}, "
            "expected floats (channels, height, width)"
        )
