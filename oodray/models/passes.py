"""Several passes over an image, one after the other: networks of an ensemble, views, dropout.

Probabilities are averaged at the size of the image. What remains of a pass is its share in the running means: logits
of two passes never lie in memory at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from oodray.errors import ImageError, ModelError
from oodray.models.dropout import RepeatedDropout
from oodray.models.segmenter import Segmentation, Segmenter, check_segmentations
from oodray.scores.logits import Entropy
from oodray.scores.masks import QUERY_SCORES
from oodray.scores.score import PixelScore, QueryMapScore
from oodray.scores.strips import strips

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class View:
    """How a network sees an image.

    Attributes:
        scale: of both sides.
        flipped: left and right exchanged.
    """

    scale: float = 1.0
    flipped: bool = False

    def of(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The image `(H, W, 3)`, seen so; bilinear."""
        if self.scale != 1:
            import cv2

            height, width = (max(1, round(side * self.scale)) for side in image.shape[:2])
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR).astype("uint8", copy=False)
        return np.ascontiguousarray(image[:, ::-1]) if self.flipped else image


def views_of(scales: Sequence[float], *, flip: bool) -> tuple[View, ...]:
    """The views to average over: every scale as it is, and flipped; first the image as it is, whose features are taken.

    >>> [(view.scale, view.flipped) for view in views_of((0.5, 1.0), flip=True)]
    [(1.0, False), (1.0, True), (0.5, False), (0.5, True)]
    """
    sides = (False, True) if flip else (False,)
    own_first = sorted(scales or (1.0,), key=lambda scale: scale != 1)
    return tuple(View(scale, flipped) for scale in own_first for flipped in sides)


class Passes:
    """Networks, views and dropout as one `Segmenter`.

    Its logits are the logarithm of the mean probability at the size of the image, and its features those of the first
    pass. It gives `mutual-information`, `energy`, which is 0 of a probability, and, where all members are mask
    classifiers, the means of the scores of queries.

    Args:
        members: the networks, by name.
        views: of every image.
        dropout: how often each member and view is repeated with active dropout; 0 for once, without.
        seed: of the dropout.

    Raises:
        ModelError: a member has no dropout to repeat.
    """

    def __init__(
        self, members: Sequence[tuple[str, Segmenter]], views: Sequence[View], *, dropout: int = 0, seed: int = 0
    ) -> None:
        self.members, self.views, self.dropout, self.seed = list(members), list(views), dropout, seed
        self._repeated = [RepeatedDropout(_network_of(*member), member[0]) if dropout else None for member in members]

    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        """See `Segmenter.segment`; images without a name."""
        return self.segment_named(images, [""] * len(images))

    def segment_named(self, images: list[NDArray[np.uint8]], image_ids: Sequence[str]) -> list[Segmentation]:
        """As `segment`, of images with a name, which decides what dropout leaves out."""
        return [self._segment(image, image_id) for image, image_id in zip(images, image_ids, strict=True)]

    @torch.inference_mode()
    def _segment(self, image: NDArray[np.uint8], image_id: str) -> Segmentation:
        means: _Means | None = None
        for (name, member), repeated in zip(self.members, self._repeated, strict=True):
            for view in self.views:
                seen = view.of(image)
                for found in self._passes(name, member, repeated, seen, image_id):
                    if means is None:
                        means = _Means(found, image.shape[:2])
                    means.add(name, found, flipped=view.flipped)
        assert means is not None, "there is a member"
        return means.segmentation()

    def _passes(
        self, name: str, member: Segmenter, repeated: RepeatedDropout | None, image: NDArray[np.uint8], image_id: str
    ) -> Iterator[Segmentation]:
        """What a member says of an image, once, or as often as dropout is repeated."""
        if repeated is None:
            yield _named(name, lambda: member.segment([image.copy()]))
            return
        with repeated.image():
            for number in range(self.dropout):
                with repeated.seeded(self.seed, image_id, number):
                    found = _named(name, lambda: member.segment([image.copy()]))
                yield found


class _Means:
    """Running means of passes over an image."""

    def __init__(self, first: Segmentation, size: tuple[int, int]) -> None:
        self.size, self.features, self.count = size, first.features, 0
        self.classes = _classes(first)
        device = first.features.device
        self.log_sum = torch.full((self.classes, *size), -math.inf, device=device)
        self.entropy = torch.zeros(size, device=device)
        made = [] if first.queries is None else [score() for score in QUERY_SCORES]
        self.scores: dict[PixelScore, Tensor] = {score: torch.zeros(size, device=device) for score in made}

    def add(self, name: str, found: Segmentation, *, flipped: bool) -> None:
        """Take a pass in, turned back where it is flipped."""
        if _classes(found) != self.classes:
            raise ImageError(f"the member {name} gives {_classes(found)} classes, the first gives {self.classes}")
        if found.queries is None:
            self.scores = {}
        turn: Callable[[Tensor], Tensor] = (lambda map_: map_.flip(-1)) if flipped else (lambda map_: map_)
        top = 0
        of_queries = [score for score in self.scores if isinstance(score, QueryMapScore)]
        for strip in strips(found.per_pixel, *self.size, of_queries=of_queries):
            rows = slice(top, top + strip.logits.shape[1])
            log_p = turn(strip.log_weights - strip.log_total).to(self.log_sum)
            self.log_sum[:, rows] = torch.logaddexp(self.log_sum[:, rows], log_p)
            self.entropy[rows] += turn(Entropy().pixels(strip)).to(self.entropy)
            for score, total in self.scores.items():
                total[rows] += turn(score.pixels(strip)).to(total)
            top = rows.stop
        self.count += 1

    def segmentation(self) -> Segmentation:
        """The means of all passes."""
        self.log_sum -= math.log(self.count)
        scores = {score.name: total / self.count for score, total in self.scores.items()}
        entropy = torch.cat([Entropy().pixels(strip) for strip in strips(self.log_sum, *self.size)])
        scores["mutual-information"] = (entropy - self.entropy / self.count).clamp_(min=0)
        scores["energy"] = torch.zeros_like(entropy)
        return Segmentation(self.log_sum, self.features, scores=scores)


def _classes(found: Segmentation) -> int:
    return len(found.logits) if (queries := found.queries) is None else queries.classes


def _named(name: str, segment: Callable[[], list[Segmentation]]) -> Segmentation:
    """What a member says; its failure has its name."""
    try:
        [found] = check_segmentations(segment(), 1)
    except Exception as error:
        what = str(error) if isinstance(error, ImageError) else f"{type(error).__name__}: {error}"
        raise ImageError(f"the member {name} failed: {what}") from error
    return found


def _network_of(name: str, segmenter: Segmenter) -> nn.Module:
    network = getattr(segmenter, "network", None)
    if not isinstance(network, nn.Module):
        raise ModelError(f"--mc-dropout: {name} must offer its torch.nn.Module as the attribute `network`")
    return network
