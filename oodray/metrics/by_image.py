"""Metrics under conventions that need the images one by one: means, left-out images, bins of an image, its weight.

Images are taken one at a time. What is kept of each is what its convention needs: a few numbers, or some bins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

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
        self._whole, self._pooled = totals, pooled
        self._left_out: list[Totals] = []
        self._by_number = totals.ranking(score).by_number
        self._levels = convention.bins == "levels" and within_unit(totals, score)
        self._lacking = 0
        self._pixels: list[tuple[int, int]] = []
        self._measures: list[Measures] = []
        self._frames: list[Frame] = []
        self._held: list[Totals] = []
        self._totals = RunningTotals()

    def add(self, image: Totals) -> None:
        """Take an image."""
        pixels = image.labelled(self.score)
        self._lacking += not all(pixels)
        if not is_measured(pixels, self.convention):
            self._left_out.append(image)
            return
        self._pixels.append(pixels)
        if self.convention.pooling == "image":
            self._measures.append(measure_curve(image.ranking(self.score).curve(image), self.convention))
        elif self.convention.bins == "none" and self.convention.image_pixels is None:
            # The counts of scores follow from those of all images, less those that are left out.
            self._totals.add(replace(image, scores={}))
        elif self._weighs_pixels:
            self._held.append(replace(image, scores={n: c for n, c in image.scores.items() if n == self.score}))
        else:
            self._frames.append(self._seen(image))

    def metrics(self) -> ScoreMetrics:
        """The metrics of the images taken so far.

        Raises:
            DatasetError: some lack a class, which the convention refuses.
        """
        if self.convention.lacking == "refuse" and self._lacking:
            raise DatasetError(
                f"{self._lacking} of {len(self._pixels)} images lack an OoD or an in-distribution pixel; "
                "--lacking drop leaves them out, --lacking keep keeps them"
            )
        if self.convention.pooling == "image":
            return self._mean()
        if self._held and self._pooled is not None and not self._left_out and len(set(map(sum, self._pixels))) == 1:
            # Pixels that all weigh the same are counted: their weights would only be rounded.
            return replace(self._pooled.metrics(self.convention), largest_tie=None)
        if self._held or self._frames:
            return self._binned()
        if not self._pixels:
            nothing = np.zeros(0, np.int64)
            return score_metrics(self.score, measure(nothing, nothing), self.convention, pixels=(0, 0))
        if not self._left_out and self._pooled is not None:
            return self._pooled.metrics(self.convention)
        return RankedPixels.of(self._measured(), self.score).metrics(self.convention)

    def _measured(self) -> Totals:
        """The counts of the images that are measured."""
        totals = self._totals.total()
        if self.score not in self._whole.scores:
            return totals
        less = [image.scores[self.score] for image in self._left_out if self.score in image.scores]
        return replace(totals, scores={self.score: self._whole.scores[self.score].without(less)})

    def _mean(self) -> ScoreMetrics:
        weights = [sum(pixels) for pixels in self._pixels] if self.convention.weigh_pixels else None
        measures = mean_measures(self._measures, weights)
        return score_metrics(self.score, measures, self.convention, pixels=self._pixels_in_all())

    @property
    def _weighs_pixels(self) -> bool:
        """Whether pixels of images weigh differently, and nothing else is done to them."""
        return (
            self.convention.image_pixels is not None and not self._levels and self.convention.bins != "frame-quantiles"
        )

    def _seen(self, image: Totals) -> Frame:
        return seen(image, self.score, self.convention, levels=self._levels)

    def _binned(self) -> ScoreMetrics:
        pool = pooled_as_smiyc if self.convention.bins == "frame-quantiles" else pooled
        whole = pool([*self._frames, *map(self._seen, self._held)])
        measures = measure_curve(Curve.of(whole.ood[::-1], whole.ind[::-1]), self.convention)
        threshold = float(whole.scores[::-1][measures.best]) if measures.best >= 0 and self._by_number else None
        return score_metrics(self.score, measures, self.convention, pixels=self._pixels_in_all(), threshold=threshold)

    def _pixels_in_all(self) -> tuple[int, int]:
        return sum(ood for ood, _ in self._pixels), sum(ind for _, ind in self._pixels)


def evaluate_images(images: Iterable[Totals], scores: Sequence[str], convention: Convention) -> list[ScoreMetrics]:
    """The metrics of each score from the counts of each image, under any convention.

    Raises:
        DatasetError: an image lacks a class, which the convention refuses.
    """
    held = list(images)
    totals = Totals.sum(held)
    found = [ByImage(score, convention, totals) for score in scores]
    for image in held:
        for of_score in found:
            of_score.add(image)
    return [of_score.metrics() for of_score in found]


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
