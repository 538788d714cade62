"""The conventions of a metric: how pixels are pooled, which area is the AP, where on the curve the FPR is read.

Evaluators differ in them, and so do their numbers on the same scores; `oodray.metrics.evaluators` names those of
published ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from oodray.errors import ConfigError
from oodray.metrics.curve import ApRule, Counts, Curve, FprRule
from oodray.metrics.curves import curve_of

Pooling: TypeAlias = Literal["dataset", "image"]
Lacking: TypeAlias = Literal["keep", "drop", "drop-without-ood", "refuse"]
Bins: TypeAlias = Literal["none", "frame-quantiles", "levels"]


@dataclass(frozen=True)
class Convention:
    """How metrics are taken from counts.

    Attributes:
        pooling: "dataset": the pixels of all images make one curve; "image": the mean over the images' own metrics.
        ap_rule: see `average_precision`.
        fpr_rule: see `fpr_at_tpr`; of the FPR95 and of the FPR at `tpr`.
        tpr: the level of the second FPR.
        lacking: what becomes of images without an OoD or without an in-distribution pixel: "keep" them (a mean over
            images is then nan, as they have no metric), "drop" them, or "refuse" to measure; "drop-without-ood" keeps
            those that are all OoD.
        bins: "frame-quantiles": 768 bins of each image's float16 scores, see `oodray.metrics.frames`; "levels": 65,536
            levels of scores within 0..1.
        image_pixels: as many pixels an image weighs at most; None is any number.
        thinned: whether the FPR is read from the points that scikit-learn's `roc_curve` keeps by default.
        weigh_pixels: whether a mean over images weighs each by its labelled pixels.
        blur: whether the evaluator blurs score maps before: a run or an import must have done so.
        exact: whether the evaluator ranks scores of 32 bits or more.
        like: the evaluator that these are the conventions of, if it was asked for by name.
        beyond: what else that evaluator does, which counts cannot say.
    """

    pooling: Pooling = "dataset"
    ap_rule: ApRule = "step"
    fpr_rule: FprRule = ">="
    tpr: float = 0.95
    lacking: Lacking = "keep"
    bins: Bins = "none"
    image_pixels: int | None = None
    thinned: bool = False
    weigh_pixels: bool = False
    blur: bool = False
    exact: bool = False
    like: str | None = None
    beyond: tuple[str, ...] = ()

    @property
    def fpr95_rule(self) -> str:
        """The rule in words, as tables name it."""
        return _FPR_WORDS[self.fpr_rule]

    @property
    def by_image(self) -> bool:
        """Whether it needs the counts of each image."""
        return self.pooling == "image" or self.lacking != "keep" or self.bins != "none" or self.image_pixels is not None

    def not_reproduced(self, *, blurred: bool, exact: bool) -> tuple[str, ...]:
        """What the evaluator does beyond these conventions.

        Args:
            blurred: whether the score maps were blurred before they were counted.
            exact: whether scores were counted as float32.
        """
        blur = ("a Gaussian blur of 7x7 pixels, sigma 1: pass --blur to run or import-scores",)
        return (
            (blur if self.blur and not blurred else ())
            + (("scores of 32 bits: a run counts keys of 16 bits",) if self.exact and not exact else ())
            + self.beyond
        )


DEFAULT = Convention()

_FPR_WORDS: dict[FprRule, str] = {
    ">=": "first TPR >= 0.95",
    ">": "first TPR > 0.95",
    "nearest": "TPR nearest 0.95",
    "nearest-last": "TPR nearest 0.95, the last of several",
    "linear": "linear between TPRs around 0.95",
}


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
    return measure_curve(curve_of(ood, ind), convention)


def measure_curve(curve: Curve, convention: Convention = DEFAULT) -> Measures:
    """The metrics of a curve."""

    def fpr_at(tpr: float) -> float:
        return curve.fpr_at_tpr(tpr, convention.fpr_rule, thinned=convention.thinned)

    fpr95 = fpr_at(0.95)
    f1, best = curve.best_f1()
    return Measures(
        ap=curve.average_precision(convention.ap_rule),
        fpr95=fpr95,
        fpr_at_tpr=fpr95 if convention.tpr == 0.95 else fpr_at(convention.tpr),
        auroc=curve.auroc(),
        best_f1=f1,
        best=best,
    )


def mean_measures(images: Iterable[Measures], weights: Iterable[float] | None = None) -> Measures:
    """The mean over images, each with a weight; nan where one of them is, or where there are none.

    A mean has no threshold.

    >>> one, other = (measure(np.array([1, 0]), np.array([0, n])) for n in (1, 2))
    >>> mean_measures([one, other]).ap, mean_measures([one, other], [1, 3]).fpr95
    (1.0, 0.0)
    """
    rows = [(m.ap, m.fpr95, m.fpr_at_tpr, m.auroc, m.best_f1) for m in images]
    shares = None if weights is None else list(weights)
    ap, fpr95, fpr, area, f1 = np.average(rows, axis=0, weights=shares).tolist() if rows else [math.nan] * 5
    return Measures(ap=ap, fpr95=fpr95, fpr_at_tpr=fpr, auroc=area, best_f1=f1, best=-1)
