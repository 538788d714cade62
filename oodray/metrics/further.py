"""Further numbers of a score, on request: of its curve, of single images, and of whole images as OoD or not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oodray.metrics.conventions import measure
from oodray.metrics.curve import Curve
from oodray.metrics.evaluation import Totals

QUARTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Further:
    """Further numbers of one score over a dataset, as fractions; nan where they do not exist.

    Attributes:
        tpr_at_fpr05: TPR at the first threshold whose FPR is at least 0.05, as ISSU reads it.
        aupr_in: average precision of in-distribution pixels, the least anomalous first.
        autc: mean of the areas under FPR and FNR over thresholds, of scores brought to 0..1; lower is better.
        detection_error: the smallest mean of FNR and FPR of any threshold.
        ap_quartiles: of the AP of single images that have both classes.
        fpr95_quartiles: of their FPR95.
        image_auroc: of images that hold OoD pixels against those that hold none, by their `image_score`.
        image_ap: the same as average precision.
    """

    tpr_at_fpr05: float
    aupr_in: float
    autc: float
    detection_error: float
    ap_quartiles: tuple[float, float, float]
    fpr95_quartiles: tuple[float, float, float]
    image_auroc: float = math.nan
    image_ap: float = math.nan


class FurtherNumbers:
    """The further numbers of one score, from all counts together and from one image after the other.

    Args:
        score: its name.
        totals: the counts of all images together.
    """

    def __init__(self, score: str, totals: Totals) -> None:
        self.score = score
        ranking = totals.ranking(score)
        self._ood, self._ind = ranking.counts(totals)
        self._values = ranking.values(totals)
        self._of_images: list[tuple[float, float]] = []

    def add(self, image: Totals) -> None:
        """Take an image."""
        if all(image.labelled(self.score)):
            measures = measure(*image.counts(self.score))
            self._of_images.append((measures.ap, measures.fpr95))

    def numbers(self, image_level: tuple[float, float] = (math.nan, math.nan)) -> Further:
        """The numbers; `image_level` are AUROC and AP of whole images."""
        curve = Curve.of(self._ood, self._ind)
        images = np.array(self._of_images).reshape(-1, 2)
        return Further(
            tpr_at_fpr05=curve.tpr_at_fpr(0.05),
            aupr_in=Curve.of(self._ind[::-1], self._ood[::-1]).average_precision(),
            autc=_area_under_thresholds(self._values, self._ood, self._ind),
            detection_error=curve.detection_error(),
            ap_quartiles=_quartiles(images[:, 0]),
            fpr95_quartiles=_quartiles(images[:, 1]),
            image_auroc=image_level[0],
            image_ap=image_level[1],
        )


def image_level(scores: Sequence[float], hold_ood: Iterable[bool]) -> tuple[float, float]:
    """AUROC and AP of whole images, OoD where they hold an OoD pixel, ranked by a score; nan where all are alike.

    >>> image_level([0.9, 0.5, 0.1], [True, False, False])
    (1.0, 1.0)
    """
    _, place = np.unique(-np.asarray(scores, np.float64), return_inverse=True)
    ood = np.fromiter(hold_ood, bool)
    count = int(place.max()) + 1 if len(place) else 0
    curve = Curve.of(np.bincount(place[ood], minlength=count), np.bincount(place[~ood], minlength=count))
    return curve.auroc(), curve.average_precision()


def _area_under_thresholds(values: NDArray[np.float64], ood: NDArray[np.int64], ind: NDArray[np.int64]) -> float:
    """Of Humblot-Renaux et al., Beyond AUROC & co., CVPR Workshops 2023, in the closed form of pytorch-ood."""
    occupied = (ood > 0) | (ind > 0)
    values, ood, ind = values[occupied], ood[occupied], ind[occupied]
    if not (ood.any() and ind.any()) or values.min() == values.max():
        return math.nan
    shares = (values - values.min()) / (values.max() - values.min())
    return float((np.average(shares, weights=ind) + 1 - np.average(shares, weights=ood)) / 2)


def _quartiles(values: NDArray[np.float64]) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, QUARTILES).tolist() if len(values) else [math.nan] * 3
    return low, middle, high
