"""From what a segmenter says of an image to the scores of its pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodray.errors import ImageError
from oodray.metrics.tally import IGNORE
from oodray.scores.queries import Queries
from oodray.scores.refine import refined
from oodray.scores.score import FeatureScore, ImageFeatures, ImageScore, PixelScore, QueryMapScore
from oodray.scores.strips import Strip, strips, sum_classes


@dataclass(frozen=True, eq=False)
class PixelMaps:
    """Maps of an image, all `(height, width)`.

    Attributes:
        confidence: float16, m (eq. 1); zeros are +0.
        scores: float32, of the source of each score, by its name.
        classes: int16, the likeliest class, the first of equal ones; None where it was not asked for.
    """

    confidence: NDArray[np.float16]
    scores: dict[str, NDArray[np.float32]]
    classes: NDArray[np.int16] | None = None

    def of(self, score: PixelScore, regions: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        """A score of every pixel, pooled over regions where it is a pooled one.

        Args:
            score: one of those that the maps were made for.
            regions: `(height, width)` uint8, the region of each pixel; None where no score is pooled.
        """
        values = self.scores[score.source.name]
        return values if regions is None else score.pool(values, regions)

    def refined(self, image: NDArray[np.uint8], how: str | None) -> Self:
        """The maps after all scores were refined along the edges of the image `(height, width, 3)`.

        `how` is as in `oodray.scores.refine`. The confidence stays as it is.
        """
        if how is None:
            return self
        return replace(self, scores={name: refined(values, image, how) for name, values in self.scores.items()})


@torch.no_grad()
def pixel_maps(
    logits: Tensor | Queries,
    height: int,
    width: int,
    scores: Sequence[PixelScore],
    features: ImageFeatures | None = None,
    *,
    known: Mapping[str, Tensor] | None = None,
    with_classes: bool = False,
) -> PixelMaps:
    """Confidence and scores of every pixel of an image.

    Args:
        logits: `(C, h, w)`, any floating type, on any device; computed in float32, float64 for float64. Or queries,
            whose semantic map takes the place of the logits.
        height: of the image, in pixels.
        width: of the image, in pixels.
        scores: which scores.
        features: what scores of features need, on the device of the logits.
        known: by name, maps `(height, width)` of scores that whoever gives the logits has computed.
        with_classes: give the likeliest classes, too.

    Raises:
        ImageError: a value is NaN or infinite, the confidence once it is rounded to float16.
        ValueError: an argument is out of range.

    >>> from oodray.scores.logits import MaxLogit
    >>> maps = pixel_maps(torch.tensor([[[2.0]], [[0.0]]]), 1, 2, [MaxLogit()])
    >>> maps.confidence.tolist(), maps.scores["max-logit"].tolist()
    ([[2.0, 2.0]], [[-2.0, -2.0]])
    >>> pixel_maps(torch.tensor([[[2.0, -1.0]], [[0.0, 3.0]]]), 1, 2, [], with_classes=True).classes.tolist()
    [[0, 1]]
    """
    _check_arguments(logits, height, width)
    sources = list({score.source.name: score.source for score in scores}.values())
    computed = [score for score in sources if score.name not in (known or {})]
    planes = {
        score: score.planes(_known_features(score, features)) for score in computed if isinstance(score, FeatureScore)
    }
    of_queries = [score for score in computed if isinstance(score, QueryMapScore)]
    whole = any(score.uses_whole_image() for score in computed)
    confidence, classes = [], []
    values: list[list[Tensor]] = [[] for _ in computed]
    for strip in strips(logits, height, width, planes, of_queries):
        confidence.append(_rounded(strip.confidence))
        if whole or with_classes:
            classes.append(strip.classes)
        for found, score in zip(values, computed, strict=True):
            found.append(_of_strip(score, strip))
    rounded = torch.cat(confidence).cpu().numpy()
    _require_finite("confidence", rounded, "in float16, beyond 65504 is infinite")
    predicted = torch.cat(classes) if classes else torch.empty(0)
    maps = dict(known or {})
    for score, found in zip(computed, values, strict=True):
        joined = torch.cat(found)
        if isinstance(score, ImageScore):
            maps[score.name] = score.of_image(joined, _known_features(score, features))
        else:
            maps[score.name] = score.finish(joined, predicted) if score.uses_whole_image() else joined
    finished = {score.name: _finished(score.name, maps[score.name]) for score in sources}
    return PixelMaps(rounded, finished, predicted.cpu().numpy() if with_classes else None)


def _finished(name: str, values: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = (values.float() + 0.0).cpu().numpy()  # -0 becomes +0
    _require_finite(name, found, "in float32")
    return found


@dataclass(frozen=True, eq=False)
class ClassMaps:
    """What a network makes of the true classes of an image, all `(height, width)`.

    Attributes:
        predicted: int16, the likeliest class, the first of equal ones.
        confidence: float32, its probability.
        squares: float64, the sum over classes of (p - y)^2; without a meaning where there is no true class.
        count: of the network's classes.
    """

    predicted: NDArray[np.int16]
    confidence: NDArray[np.float32]
    squares: NDArray[np.float64]
    count: int


@torch.no_grad()
def class_maps(logits: Tensor | Queries, true_classes: NDArray[np.uint8]) -> ClassMaps:
    """Classes and probabilities of every pixel of an image, beside its true classes.

    Args:
        logits: `(C, h, w)`, or queries, as of `pixel_maps`.
        true_classes: `(height, width)`, 255 where a pixel has none.

    Raises:
        ImageError: a true class is none of the network's.

    >>> maps = class_maps(torch.tensor([[[0.0]], [[0.0]]]), np.array([[1, 255]], np.uint8))
    >>> maps.predicted.tolist(), maps.confidence.tolist(), maps.squares[0, 0].item()
    ([[0, 0]], [[0.5, 0.5]], 0.5)
    """
    height, width = true_classes.shape
    _check_arguments(logits, height, width)
    count = len(logits) if isinstance(logits, Tensor) else logits.classes
    known = true_classes[true_classes != IGNORE]
    if known.size and known.max() >= count:
        raise ImageError(
            f"the label names class {known.max()}, counted from 0, and the network has {count}: --id-quality needs a "
            "network that was trained on the classes of these labels"
        )
    predicted, confidence, squares, top = [], [], [], 0
    for strip in strips(logits, height, width):
        # The softmax: weights over their sum, in units of the largest one.
        shares = (strip.log_weights - strip.log_weights.amax(0)).exp() / (1 + strip.others)
        rows = shares.shape[1]
        truth = torch.from_numpy(true_classes[top : top + rows].astype(np.int64)).to(shares.device)
        of_truth = shares.gather(0, truth.clamp(max=count - 1)[None])[0].double()
        predicted.append(strip.classes)
        confidence.append(shares.gather(0, strip.classes[None].long())[0].float())
        squares.append(sum_classes(shares.square()) + 1 - 2 * of_truth)
        top += rows
    first, second, third = (torch.cat(parts).cpu().numpy() for parts in (predicted, confidence, squares))
    return ClassMaps(first, second, third, count)


def _check_arguments(logits: Tensor | Queries, height: int, width: int) -> None:
    if isinstance(logits, Tensor) and (logits.ndim != 3 or not logits.numel() or not logits.is_floating_point()):
        raise ValueError(f"logits must be floats (C, h, w), not {logits.dtype} {tuple(logits.shape)}")
    if height < 1 or width < 1:
        raise ValueError(f"the image must have a pixel, not {height} x {width}")


def _known_features(score: PixelScore, features: ImageFeatures | None) -> ImageFeatures:
    if features is None:
        raise ValueError(f"the score {score.name} needs features")
    return features


def _of_strip(score: PixelScore, strip: Strip) -> Tensor:
    values = score.pixels(strip)
    expected = tuple(strip.logits.shape[1:])
    if not isinstance(values, Tensor) or tuple(values.shape) != expected or not values.is_floating_point():
        kind = f"{values.dtype} {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise ImageError(f"the score {score.name} must give a floating tensor of the shape {expected}, not {kind}")
    return values.float()


def _require_finite(name: str, values: NDArray[np.floating], where: str) -> None:
    if np.isfinite(values).all():
        return
    raise ImageError(
        f"{name} is NaN at {np.isnan(values).sum()} and infinite at {np.isinf(values).sum()} "
        f"of {values.size} pixels ({where}): run the network in float32, "
        "and check the image and the checkpoint if that does not help"
    )


def _rounded(values: Tensor) -> Tensor:
    """To float16, rounded once, with -0 made +0."""
    if values.dtype == torch.float64:  # which torch would round to float32 first
        with np.errstate(over="ignore"):
            values = torch.from_numpy(values.cpu().numpy().astype(np.float16))
    return values.half() + 0.0
