"""Pooled counts of a whole dataset, and the numbers that follow from them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from oodray.errors import DatasetError
from oodray.metrics.conventions import DEFAULT, Convention, Measures, mean_measures, measure
from oodray.metrics.curves import OperatingPoint, operating_point
from oodray.metrics.rankings import BY_CLUSTERS, ByTally, Ranking
from oodray.metrics.score_counts import RunningCounts, ScoreCounts
from oodray.metrics.tally import IN_DISTRIBUTION, OOD, RunningTally, Tally

TIE_RULE = "equal scores share one threshold"


def _nothing() -> Tally:
    return Tally.sum(())


def _no_clusters() -> NDArray[np.int64]:
    return np.zeros((4, 0), np.int64)


@dataclass(frozen=True, eq=False)
class Totals:
    """Counts of any number of images; they add up in any order.

    Attributes:
        images: images that were processed.
        failed: images that were not.
        scores: labelled pixels by key of each pixel score.
        inside: tally of confidence inside the masks.
        outside: the same outside them.
        clusters: `(4, c)`: unsure, all, OoD and in-distribution pixels of every cluster.
    """

    images: int = 0
    failed: int = 0
    scores: Mapping[str, ScoreCounts] = field(default_factory=dict)
    inside: Tally = field(default_factory=_nothing)
    outside: Tally = field(default_factory=_nothing)
    clusters: NDArray[np.int64] = field(default_factory=_no_clusters)

    @staticmethod
    def sum(parts: Iterable[Totals]) -> Totals:
        """All parts as one, taken one at a time: memory grows by 32 bytes a cluster, and by nothing else."""
        images, failed = 0, 0
        scores: defaultdict[str, RunningCounts] = defaultdict(RunningCounts)
        inside, outside = RunningTally(), RunningTally()
        clusters = [_no_clusters()]
        for part in parts:
            images += part.images
            failed += part.failed
            for name, counts in part.scores.items():
                scores[name].add(counts)
            inside.add(part.inside)
            outside.add(part.outside)
            clusters.append(part.clusters)
        return Totals(
            images=images,
            failed=failed,
            scores={name: running.total() for name, running in scores.items()},
            inside=inside.tally(),
            outside=outside.tally(),
            clusters=np.concatenate(clusters, axis=1),
        )

    def mask(self) -> OperatingPoint:
        """What the masks achieve, pooled over the dataset."""
        return operating_point(
            tp=self.inside.pixels(OOD),
            fp=self.inside.pixels(IN_DISTRIBUTION),
            fn=self.outside.pixels(OOD),
            tn=self.outside.pixels(IN_DISTRIBUTION),
        )

    def ranking(self, score: str) -> Ranking:
        """How these counts rank pixels by a score.

        Raises:
            KeyError: if the score was not counted.
        """
        return ByTally(score) if score in self.scores else BY_CLUSTERS[score]

    def counts(self, score: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """OoD and in-distribution pixels by distinct value of a score, most anomalous first; raises as `ranking`."""
        return self.ranking(score).counts(self)

    def labelled(self, score: str) -> tuple[int, int]:
        """OoD and in-distribution pixels, all scores' being the same."""
        ood, ind = self.counts(score)
        return int(ood.sum()), int(ind.sum())


@dataclass(frozen=True)
class ScoreMetrics:
    """The curve metrics of one score over a dataset, as fractions, with the conventions that they follow.

    NaN where a class has no pixel. `best_f1_threshold` is the score from which on pixels are called OoD at the largest
    F1; None for `mask-then-logit`, which ranks by two things, and for a mean over images. `largest_tie` is the share of
    the labelled pixels that have the value that most of them have; None for scores of clusters, whose values are few,
    and for a mean over images. The `low` and `high` ends are those of a 95 % confidence interval from a bootstrap over
    images, where one was asked for.
    """

    score: str
    ap: float
    fpr95: float
    auroc: float
    pixels_id: int
    pixels_ood: int
    tpr: float = DEFAULT.tpr
    fpr_at_tpr: float = math.nan
    best_f1: float = math.nan
    best_f1_threshold: float | None = None
    like: str | None = None
    pooling: str = DEFAULT.pooling
    ap_rule: str = DEFAULT.ap_rule
    fpr95_rule: str = DEFAULT.fpr95_rule
    lacking: str = DEFAULT.lacking
    tie_rule: str = TIE_RULE
    largest_tie: float | None = None
    ap_low: float | None = None
    ap_high: float | None = None
    fpr95_low: float | None = None
    fpr95_high: float | None = None
    auroc_low: float | None = None
    auroc_high: float | None = None


def evaluate(totals: Totals, scores: Sequence[str], convention: Convention = DEFAULT) -> list[ScoreMetrics]:
    """The metrics of each score, the pixels of all images pooled."""
    return [_pooled(totals, score, convention) for score in scores]


def evaluate_images(images: Sequence[Totals], scores: Sequence[str], convention: Convention) -> list[ScoreMetrics]:
    """The metrics of each score from the counts of each image, under any convention.

    Raises:
        DatasetError: an image lacks a class, which the convention refuses.
    """
    return [_evaluate_score(measurable(images, score, convention), score, convention) for score in scores]


def measurable(images: Sequence[Totals], score: str, convention: Convention) -> list[Totals]:
    """The images that a convention measures.

    Raises:
        DatasetError: an image lacks a class, which the convention refuses.
    """
    if convention.lacking == "keep":
        return list(images)
    complete = [image for image in images if all(image.labelled(score))]
    if convention.lacking == "refuse" and len(complete) < len(images):
        raise DatasetError(
            f"{len(images) - len(complete)} of {len(images)} images lack an OoD or an in-distribution pixel; "
            "--lacking drop leaves them out, --lacking keep keeps them"
        )
    return complete


def _evaluate_score(images: Sequence[Totals], score: str, convention: Convention) -> ScoreMetrics:
    if convention.pooling == "dataset":
        return _pooled(Totals.sum(images), score, convention)
    measures = mean_measures(measure(*image.counts(score), convention) for image in images)
    pixels = np.sum([image.labelled(score) for image in images], axis=0) if images else (0, 0)
    return _metrics(score, measures, convention, pixels=(int(pixels[0]), int(pixels[1])))


def _pooled(totals: Totals, score: str, convention: Convention) -> ScoreMetrics:
    ranking = totals.ranking(score)
    ood, ind = ranking.counts(totals)
    measures = measure(ood, ind, convention)
    threshold = math.nan if measures.best < 0 else float(ranking.values(totals)[measures.best])
    return _metrics(
        score,
        measures,
        convention,
        pixels=(int(ood.sum()), int(ind.sum())),
        threshold=None if math.isnan(threshold) else threshold,
        largest_tie=ranking.largest_tie(totals),
    )


def _metrics(
    score: str,
    measures: Measures,
    convention: Convention,
    *,
    pixels: tuple[int, int],
    threshold: float | None = None,
    largest_tie: float | None = None,
) -> ScoreMetrics:
    return ScoreMetrics(
        score=score,
        ap=measures.ap,
        fpr95=measures.fpr95,
        auroc=measures.auroc,
        pixels_id=pixels[1],
        pixels_ood=pixels[0],
        tpr=convention.tpr,
        fpr_at_tpr=measures.fpr_at_tpr,
        best_f1=measures.best_f1,
        best_f1_threshold=threshold,
        like=convention.like,
        pooling=convention.pooling,
        ap_rule=convention.ap_rule,
        fpr95_rule=convention.fpr95_rule,
        lacking=convention.lacking,
        largest_tie=largest_tie,
    )
