"""Metrics under conventions that need the images one by one: means, left-out images, bins of an image, its weight.

Images are taken one at a time. What is kept of each is what its convention needs: a few numbers, or some bins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from oodray.errors import DatasetError
from oodray.metrics.conventions import Convention, Measures, mean_measures, measure, measure_curve
from oodray.metrics.curve import Curve
from oodray.metrics.evaluation import RankedPixels, RunningTotals, ScoreMetrics, Totals, score_metrics
from oodray.metrics.frames import (
    Frame,
    in_levels,
    in_quantile_bins,
    pooled,
    pooled_as_smiyc,
    weighing_at_most,
)


class ByImage:
    """The metrics of one score under one convention, from the counts of one image after the other.

    Args:
        score: its name.
        convention: to measure under.
        totals: the counts of all images together.
        pooled: the curve of all of them, where it is known.
    """

    def __init__(self, score: str, convention: Convention, totals: Totals, pooled: RankedPixels | None = None) -> None:
        self.score, self.convention = score, convention
        self._images = _images_of(score, convention, totals, pooled)
        self._count = 0
        self._lacking = 0

    def add(self, image: Totals) -> None:
        """Take an image."""
        pixels = image.labelled(self.score)
        self._count += 1
        self._lacking += not all(pixels)
        if is_measured(pixels, self.convention):
            self._images.add(image, pixels)
        else:
            self._images.leave_out(image)

    def metrics(self) -> ScoreMetrics:
        """The metrics of the images taken so far.

        Raises:
            DatasetError: some lack a class, which the convention refuses.
        """
        if self.convention.lacking == "refuse" and self._lacking:
            raise DatasetError(
                f"{self._lacking} of {self._count} images lack an OoD or an in-distribution pixel; "
                "--lacking drop leaves them out, --lacking keep keeps them"
            )
        return self._images.metrics()


class _Images(Protocol):
    """The images that a convention measures, and how their pixels make one set of metrics."""

    def add(self, image: Totals, pixels: tuple[int, int]) -> None:
        """Take an image, which has so many OoD and in-distribution pixels."""

    def leave_out(self, image: Totals) -> None:
        """Take notice of an image that the convention does not measure."""

    def metrics(self) -> ScoreMetrics:
        """The metrics of the images taken so far."""


def _images_of(score: str, convention: Convention, totals: Totals, pooled: RankedPixels | None) -> _Images:
    """What a convention makes of images; the arguments are those of `ByImage`."""
    if convention.pooling == "image":
        return _ImagesAlone(score, convention)
    if convention.bins == "none" and convention.image_pixels is None:
        return _CountedImages(score, convention, totals, pooled)
    by_number = totals.ranking(score).by_number
    levels = convention.bins == "levels" and within_unit(totals, score)
    if levels or convention.bins == "frame-quantiles" or convention.image_pixels is None:
        return _BinnedImages(score, convention, levels=levels, by_number=by_number)
    return _WeighedImages(score, convention, pooled, by_number=by_number)


class _ImagesAlone:
    """Every image has metrics of its own, and the mean of these counts."""

    def __init__(self, score: str, convention: Convention) -> None:
        self._score, self._convention = score, convention
        self._measures: list[Measures] = []
        self._pixels: list[tuple[int, int]] = []

    def add(self, image: Totals, pixels: tuple[int, int]) -> None:
        self._measures.append(measure_curve(image.ranking(self._score).curve(image), self._convention))
        self._pixels.append(pixels)

    def leave_out(self, image: Totals) -> None:
        pass

    def metrics(self) -> ScoreMetrics:
        weights = [sum(pixels) for pixels in self._pixels] if self._convention.weigh_pixels else None
        measures = mean_measures(self._measures, weights)
        return score_metrics(self._score, measures, self._convention, pixels=_pixels_in_all(self._pixels))


class _CountedImages:
    """All pixels of the images make one curve: that of the whole dataset, less the images that are left out."""

    def __init__(self, score: str, convention: Convention, totals: Totals, pooled: RankedPixels | None) -> None:
        self._score, self._convention = score, convention
        self._whole, self._pooled = totals, pooled
        self._rest = RunningTotals()  # of images that are measured: all but scores, which follow from the whole
        self._count = 0
        self._left_out: list[Totals] = []

    def add(self, image: Totals, pixels: tuple[int, int]) -> None:  # noqa: ARG002
        self._rest.add(replace(image, scores={}))
        self._count += 1

    def leave_out(self, image: Totals) -> None:
        self._left_out.append(image)

    def metrics(self) -> ScoreMetrics:
        if not self._count:
            return _of_nothing(self._score, self._convention)
        if self._pooled is not None and not self._left_out:
            return self._pooled.metrics(self._convention)
        return RankedPixels.of(self._measured(), self._score).metrics(self._convention)

    def _measured(self) -> Totals:
        """The counts of the images that are measured."""
        rest = self._rest.total()
        if self._score not in self._whole.scores:
            return rest
        less = [image.scores[self._score] for image in self._left_out if self._score in image.scores]
        return replace(rest, scores={self._score: self._whole.scores[self._score].without(less)})


class _BinnedImages:
    """The pixels of every image are put into bins, and those make one curve."""

    def __init__(self, score: str, convention: Convention, *, levels: bool, by_number: bool) -> None:
        self._score, self._convention = score, convention
        self._levels, self._by_number = levels, by_number
        self._frames: list[Frame] = []
        self._pixels: list[tuple[int, int]] = []

    def add(self, image: Totals, pixels: tuple[int, int]) -> None:
        self._frames.append(seen(image, self._score, self._convention, levels=self._levels))
        self._pixels.append(pixels)

    def leave_out(self, image: Totals) -> None:
        pass

    def metrics(self) -> ScoreMetrics:
        if not self._frames:
            return _of_nothing(self._score, self._convention)
        pool = pooled_as_smiyc if self._convention.bins == "frame-quantiles" else pooled
        whole = pool(self._frames)
        measures = measure_curve(Curve.of(whole.ood[::-1], whole.ind[::-1]), self._convention)
        threshold = float(whole.scores[::-1][measures.best]) if measures.best >= 0 and self._by_number else None
        pixels = _pixels_in_all(self._pixels)
        return score_metrics(self._score, measures, self._convention, pixels=pixels, threshold=threshold)


class _WeighedImages:
    """All pixels make one curve, in which those of an image that has many weigh less."""

    def __init__(self, score: str, convention: Convention, pooled: RankedPixels | None, *, by_number: bool) -> None:
        self._score, self._convention = score, convention
        self._pooled, self._by_number = pooled, by_number
        self._held: list[Totals] = []
        self._pixels: list[tuple[int, int]] = []
        self._all_measured = True

    def add(self, image: Totals, pixels: tuple[int, int]) -> None:
        self._held.append(replace(image, scores={n: c for n, c in image.scores.items() if n == self._score}))
        self._pixels.append(pixels)

    def leave_out(self, image: Totals) -> None:  # noqa: ARG002
        self._all_measured = False

    def metrics(self) -> ScoreMetrics:
        if self._pooled is not None and self._all_measured and len(set(map(sum, self._pixels))) == 1:
            # Pixels that all weigh the same are counted: their weights would only be rounded.
            return replace(self._pooled.metrics(self._convention), largest_tie=None)
        binned = _BinnedImages(self._score, self._convention, levels=False, by_number=self._by_number)
        for image, pixels in zip(self._held, self._pixels, strict=True):
            binned.add(image, pixels)
        return binned.metrics()


def _of_nothing(score: str, convention: Convention) -> ScoreMetrics:
    nothing = np.zeros(0, np.int64)
    return score_metrics(score, measure(nothing, nothing), convention, pixels=(0, 0))


def _pixels_in_all(pixels: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return sum(ood for ood, _ in pixels), sum(ind for _, ind in pixels)


def evaluate_images(images: Iterable[Totals], scores: Sequence[str], convention: Convention) -> list[ScoreMetrics]:
    """The metrics of each score from the counts of each image, under any convention.

    Raises:
        DatasetError: an image lacks a class, which the convention refuses.
    """
    held = list(images)
    totals = Totals.sum(held)
    by_score = [ByImage(score, convention, totals) for score in scores]
    for image in held:
        for of_score in by_score:
            of_score.add(image)
    return [of_score.metrics() for of_score in by_score]


def seen(image: Totals, score: str, convention: Convention, *, levels: bool) -> Frame:
    """The pixels of an image by score, as the evaluator of a convention counts them; `levels`: of scores in 0..1."""
    ranking = image.ranking(score)
    rounded = convention.bins == "frame-quantiles" and ranking.by_number
    frame = ranking.frame(image, rounded=rounded)
    if convention.bins == "frame-quantiles":
        frame = in_quantile_bins(frame, rounding=ranking.by_number)
    if convention.bins == "levels" and levels:
        frame = in_levels(frame)
    if convention.image_pixels is not None:
        frame = weighing_at_most(frame, convention.image_pixels)
    return frame


def is_measured(pixels: tuple[int, int], convention: Convention) -> bool:
    """Whether a convention measures an image with so many OoD and in-distribution pixels, if it measures at all."""
    return {"drop": all(pixels), "drop-without-ood": pixels[0] > 0}.get(convention.lacking, True)


def within_unit(totals: Totals, score: str) -> bool:
    """Whether all values of a score lie within 0..1, as those of a submission to BRAVO."""
    low, high = totals.ranking(score).limits(totals)
    return low >= 0 and high <= 1
