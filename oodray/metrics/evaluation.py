"""Pooled counts of a whole dataset, and the numbers that follow from them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from oodray.metrics.conventions import DEFAULT, Convention, Measures, measure_curve
from oodray.metrics.curve import Curve
from oodray.metrics.curves import OperatingPoint, operating_point
from oodray.metrics.id_quality import IdTally
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
        classes: what the network makes of true classes; None where nobody counted.
    """

    images: int = 0
    failed: int = 0
    scores: Mapping[str, ScoreCounts] = field(default_factory=dict)
    inside: Tally = field(default_factory=_nothing)
    outside: Tally = field(default_factory=_nothing)
    clusters: NDArray[np.int64] = field(default_factory=_no_clusters)
    classes: IdTally | None = None

    @staticmethod
    def sum(parts: Iterable[Totals]) -> Totals:
        """All parts as one, taken one at a time: memory grows by 32 bytes a cluster, and by nothing else."""
        running = RunningTotals()
        for part in parts:
            running.add(part)
        return running.total()

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
        return self.ranking(score).labelled(self)


class RunningTotals:
    """A sum of totals that are added one after the other."""

    def __init__(self) -> None:
        self._images, self._failed = 0, 0
        self._scores: defaultdict[str, RunningCounts] = defaultdict(RunningCounts)
        self._inside, self._outside = RunningTally(), RunningTally()
        self._clusters = [_no_clusters()]
        self._classes: IdTally | None = None

    def add(self, part: Totals) -> None:
        """Add totals.

        Raises:
            ResultsError: the keys of a score are of two scales.
        """
        self._images += part.images
        self._failed += part.failed
        for name, counts in part.scores.items():
            self._scores[name].add(counts)
        self._inside.add(part.inside)
        self._outside.add(part.outside)
        self._clusters.append(part.clusters)
        known = [classes for classes in (self._classes, part.classes) if classes is not None]
        self._classes = IdTally.sum(known) if known else None

    def total(self) -> Totals:
        """The sum of what was added so far."""
        return Totals(
            images=self._images,
            failed=self._failed,
            scores={name: running.total() for name, running in self._scores.items()},
            inside=self._inside.tally(),
            outside=self._outside.tally(),
            clusters=np.concatenate(self._clusters, axis=1),
            classes=self._classes,
        )


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
    return [RankedPixels.of(totals, score).metrics(convention) for score in scores]


@dataclass(frozen=True, eq=False)
class RankedPixels:
    """All pixels in the order of one score: their curve, from which any number of conventions are read.

    Attributes:
        score: its name.
        curve: of the pixels.
        value: gives the score of one of the rows of the curve; nan where it is more than one number.
        pixels: OoD and in-distribution pixels.
        largest_tie: see `ScoreMetrics`.
    """

    score: str
    curve: Curve
    value: Callable[[int], float]
    pixels: tuple[int, int]
    largest_tie: float | None = None

    @classmethod
    def of(cls, totals: Totals, score: str) -> RankedPixels:
        """The pixels of a dataset; raises as `Totals.ranking`."""
        ranking = totals.ranking(score)
        value = partial(ranking.value, totals)
        return cls(score, ranking.curve(totals), value, ranking.labelled(totals), ranking.largest_tie(totals))

    def metrics(self, convention: Convention) -> ScoreMetrics:
        """The metrics under a convention that does not need the images one by one."""
        measures = measure_curve(self.curve, convention)
        threshold = math.nan if measures.best < 0 else self.value(measures.best)
        return score_metrics(
            self.score,
            measures,
            convention,
            pixels=self.pixels,
            threshold=None if math.isnan(threshold) else threshold,
            largest_tie=self.largest_tie,
        )


def score_metrics(
    score: str,
    measures: Measures,
    convention: Convention,
    *,
    pixels: tuple[int, int],
    threshold: float | None = None,
    largest_tie: float | None = None,
) -> ScoreMetrics:
    """Measures as the row of a table; `pixels` are the OoD and the in-distribution ones."""
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
