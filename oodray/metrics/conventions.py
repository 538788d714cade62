"""The conventions of a metric: how pixels are pooled, which area is the AP, where on the curve the FPR is read.

Evaluators differ in them, and so do their numbers on the same scores; `LIKE` names those of published evaluators
(read from their source), and says of each what else it does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from oodray.errors import ConfigError
from oodray.metrics.curves import ApRule, Counts, FprRule, auroc, average_precision, best_f1, fpr_at_tpr
from oodray.spelling import did_you_mean

Pooling: TypeAlias = Literal["dataset", "image"]
Lacking: TypeAlias = Literal["keep", "drop", "refuse"]


@dataclass(frozen=True)
class Convention:
    """How metrics are taken from counts.

    Attributes:
        pooling: "dataset": the pixels of all images make one curve; "image": the mean over the images' own metrics.
        ap_rule: see `average_precision`.
        fpr_rule: see `fpr_at_tpr`; of the FPR95 and of the FPR at `tpr`.
        tpr: the level of the second FPR.
        lacking: what becomes of images without an OoD or without an in-distribution pixel: "keep" them (a mean over
            images is then nan, as they have no metric), "drop" them, or "refuse" to measure.
        like: the evaluator that these are the conventions of, if it was asked for by name.
        not_reproduced: what that evaluator does beyond them.
    """

    pooling: Pooling = "dataset"
    ap_rule: ApRule = "step"
    fpr_rule: FprRule = ">="
    tpr: float = 0.95
    lacking: Lacking = "keep"
    like: str | None = None
    not_reproduced: tuple[str, ...] = ()

    @property
    def fpr95_rule(self) -> str:
        """The rule in words, as tables name it."""
        return _FPR_WORDS[self.fpr_rule]


DEFAULT = Convention()

_FPR_WORDS: dict[FprRule, str] = {
    ">=": "first TPR >= 0.95",
    ">": "first TPR > 0.95",
    "nearest": "TPR nearest 0.95",
    "linear": "linear between TPRs around 0.95",
}

LIKE = {
    str(convention.like): convention
    for convention in (
        Convention(like="smiyc", not_reproduced=("768 quantile bins of each frame instead of exact scores",)),
        Convention(
            like="fishyscapes", not_reproduced=("float32 scores: ours have keys of 16 bits, imported ones are exact",)
        ),
        Convention(
            like="ade-ood",
            fpr_rule="nearest",
            not_reproduced=(
                "the ROC curve thinned of points on straight lines before the nearest is taken",
                "float32 scores: ours have keys of 16 bits, imported ones are exact",
            ),
        ),
        Convention(
            like="ood-metrics",
            ap_rule="trapezoid",
            fpr_rule="linear",
            not_reproduced=("float64 scores: ours have keys of 16 bits, imported ones are float32",),
        ),
        Convention(
            like="pebal",
            fpr_rule="nearest",
            not_reproduced=("a Gaussian blur of 7x7 pixels, sigma 1, over every score map",),
        ),
        Convention(
            like="bravo",
            not_reproduced=("100,000 sampled pixels an image", "65,536 equal bins over scores within 0..1"),
        ),
    )
}
"""Published evaluators by name: SegmentMeIfYouCan, Fishyscapes, ADE-OoD, the package ood-metrics (FPR of SML and
Mask2Anomaly), PEBAL, and the BRAVO challenge."""


def like_evaluator(name: str) -> Convention:
    """The conventions of a published evaluator.

    Raises:
        ConfigError: the name is none of `LIKE`.
    """
    if name not in LIKE:
        raise ConfigError(f"no evaluator {name!r} is known; {did_you_mean(name, LIKE, what='known evaluators')}")
    return LIKE[name]


def make_convention(asked: Mapping[str, Any]) -> Convention:
    """The default convention with some of its attributes changed; None leaves one as it is.

    Raises:
        ConfigError: a value that an attribute cannot have.

    >>> make_convention({"fpr_rule": ">", "tpr": None}).fpr95_rule
    'first TPR > 0.95'
    """
    given = {name: value for name, value in asked.items() if value is not None}
    for name, choices in _CHOICES.items():
        if name in given and given[name] not in choices:
            raise ConfigError(f"{name} must be one of {', '.join(choices)}, not {given[name]!r}")
    if not 0 < given.get("tpr", DEFAULT.tpr) <= 1:
        raise ConfigError(f"tpr must be above 0 and at most 1, not {given['tpr']}")
    return replace(DEFAULT, **given)


_CHOICES: dict[str, tuple[str, ...]] = {
    "pooling": get_args(Pooling),
    "ap_rule": get_args(ApRule),
    "fpr_rule": get_args(FprRule),
    "lacking": get_args(Lacking),
}


@dataclass(frozen=True)
class Measures:
    """The metrics of one ranking of pixels, as fractions; nan where a class has no pixel.

    Attributes:
        ap: average precision.
        fpr95: false positive rate at a true positive rate of 0.95.
        fpr_at_tpr: the same at the convention's `tpr`.
        auroc: area under the ROC curve.
        best_f1: the largest F1 of any threshold.
        best: which of the distinct scores that threshold is; -1 where there is none.
    """

    ap: float
    fpr95: float
    fpr_at_tpr: float
    auroc: float
    best_f1: float
    best: int


def measure(ood: Counts, ind: Counts, convention: Convention = DEFAULT) -> Measures:
    """The metrics of one curve; counts and errors are those of `average_precision`."""
    fpr95 = fpr_at_tpr(ood, ind, 0.95, convention.fpr_rule)
    f1, best = best_f1(ood, ind)
    return Measures(
        ap=average_precision(ood, ind, convention.ap_rule),
        fpr95=fpr95,
        fpr_at_tpr=fpr95 if convention.tpr == 0.95 else fpr_at_tpr(ood, ind, convention.tpr, convention.fpr_rule),
        auroc=auroc(ood, ind),
        best_f1=f1,
        best=best,
    )


def mean_measures(images: Iterable[Measures]) -> Measures:
    """The mean over images; nan where one of them is, or where there are none. A mean has no threshold.

    >>> one, other = (measure(np.array([1, 0]), np.array([0, n])) for n in (1, 2))
    >>> mean_measures([one, other]).ap
    1.0
    """
    rows = [(m.ap, m.fpr95, m.fpr_at_tpr, m.auroc, m.best_f1) for m in images]
    ap, fpr95, fpr, area, f1 = np.mean(rows, axis=0).tolist() if rows else [math.nan] * 5
    return Measures(ap=ap, fpr95=fpr95, fpr_at_tpr=fpr, auroc=area, best_f1=f1, best=-1)
