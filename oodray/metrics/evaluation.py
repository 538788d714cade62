"""Pooled counts of a whole dataset, and the numbers that follow from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from oodray.metrics.curves import (
    OperatingPoint,
    auroc,
    average_precision,
    fpr_at_tpr,
    mask_then_logit_counts,
    operating_point,
    ratio_counts,
    score_counts,
)
from oodray.metrics.tally import IN_DISTRIBUTION, OOD, Tally

POOLING = "dataset"
AP_RULE = "step"
FPR95_RULE = "first TPR >= 0.95"
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
        scores: tally of each pixel score.
        inside: tally of confidence inside the masks.
        outside: the same outside them.
        clusters: `(4, c)`: unsure, all, OoD and in-distribution pixels of every cluster.
    """

    images: int = 0
    failed: int = 0
    scores: Mapping[str, Tally] = field(default_factory=dict)
    inside: Tally = field(default_factory=_nothing)
    outside: Tally = field(default_factory=_nothing)
    clusters: NDArray[np.int64] = field(default_factory=_no_clusters)

    @staticmethod
    def sum(parts: Iterable[Totals]) -> Totals:
        """All parts as one."""
        listed = list(parts)
        names = dict.fromkeys(name for part in listed for name in part.scores)
        return Totals(
            images=sum(part.images for part in listed),
            failed=sum(part.failed for part in listed),
            scores={name: Tally.sum(p.scores[name] for p in listed if name in p.scores) for name in names},
            inside=Tally.sum(part.inside for part in listed),
            outside=Tally.sum(part.outside for part in listed),
            clusters=np.concatenate([_no_clusters(), *(part.clusters for part in listed)], axis=1),
        )

    def mask(self) -> OperatingPoint:
        """What the masks achieve, pooled over the dataset."""
        return operating_point(
            tp=self.inside.pixels(OOD),
            fp=self.inside.pixels(IN_DISTRIBUTION),
            fn=self.outside.pixels(OOD),
            tn=self.outside.pixels(IN_DISTRIBUTION),
        )

    def counts(self, score: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """OoD and in-distribution pixels by distinct value of a score, most anomalous first.

        Raises:
            KeyError: if the score was not counted.
        """
        if score == "ratio":
            return ratio_counts(*self.clusters)
        if score == "mask-then-logit":
            return mask_then_logit_counts(self.inside, self.outside)
        return score_counts(self.scores[score])


@dataclass(frozen=True)
class ScoreMetrics:
    """The curve metrics of one score over a dataset, as fractions; NaN where a class has no pixel.

    Average precision is the step sum, FPR95 the false positive rate at the first threshold whose true
    positive rate is at least 0.95; pixels of all images are pooled and equal scores share one threshold.
    """

    score: str
    ap: float
    fpr95: float
    auroc: float
    pixels_id: int
    pixels_ood: int
    pooling: str = POOLING
    ap_rule: str = AP_RULE
    fpr95_rule: str = FPR95_RULE
    tie_rule: str = TIE_RULE


def evaluate(totals: Totals, scores: Sequence[str]) -> list[ScoreMetrics]:
    """The metrics of each score."""
    return [_evaluate_score(totals, score) for score in scores]


def _evaluate_score(totals: Totals, score: str) -> ScoreMetrics:
    ood, ind = totals.counts(score)
    return ScoreMetrics(
        score=score,
        ap=average_precision(ood, ind),
        fpr95=fpr_at_tpr(ood, ind),
        auroc=auroc(ood, ind),
        pixels_id=int(ind.sum()),
        pixels_ood=int(ood.sum()),
    )
