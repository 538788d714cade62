"""Numbers and messages in words, as several reports need them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from oodray.metrics.conventions import Convention

if TYPE_CHECKING:
    from oodray.analysis.evaluation import Evaluation


def rate_text(rate: float) -> str:
    """A positive number in two digits, or all of those before the point.

    >>> rate_text(123.4), rate_text(4), rate_text(0.0512)
    ('123', '4.0', '0.051')
    """
    if rate < 1:
        return f"{rate:.2g}"
    return f"{rate:.1f}" if rate < 10 else f"{rate:.0f}"


def duration_text(seconds: float) -> str:
    """Seconds as minutes and seconds, with hours where there are some.

    >>> duration_text(117), duration_text(3661.7)
    ('1:57', '1:01:02')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def without_maps_text(left_out: Sequence[str]) -> str:
    """What a caption says of scores whose maps a run keeps nowhere; nothing where there are none.

    >>> without_maps_text([])
    ''
    """
    if not left_out:
        return ""
    return (
        f" Without {', '.join(left_out)}: the run keeps no maps of them; `oodray run --keep-maps "
        f"{','.join(left_out)}` does."
    )


def without_threshold_text(scores: Sequence[str]) -> str:
    """What a caption says of scores for which labels give no threshold; nothing where there are none.

    >>> without_threshold_text(["knn"]).partition(":")[0]
    ' Without knn'
    """
    if not scores:
        return ""
    return (
        f" Without {', '.join(scores)}: the threshold of the best F1 needs OoD and in-distribution pixels; --threshold "
        "X gives one."
    )


def why_empty(evaluation: Evaluation, convention: Convention) -> str:
    """Why a metric has no value under a convention, and which option gives one; nothing where all have one."""
    if not any(math.isnan(metrics.ap) for metrics in evaluation.of(convention)):
        return ""
    every = evaluation.scores[0]
    if not every.pixels_ood or not every.pixels_id:
        lacking = [
            name for name, pixels in (("OoD", every.pixels_ood), ("in-distribution", every.pixels_id)) if not pixels
        ]
        reason = "no image has a label" if len(lacking) == 2 else f"no labelled pixel is {lacking[0]}"
    elif convention.pooling == "image" and convention.lacking == "keep":
        reason = (
            f"{evaluation.lacking} of {evaluation.images} images lack an OoD or an in-distribution pixel, and so have "
            "no metric of their own; --lacking drop leaves them out of the mean"
        )
    else:
        reason = "no image that is left has both OoD and in-distribution pixels; --pooling dataset needs none that has"
    return f"No value (-): {reason}."


def threshold_text(threshold: float | None) -> str:
    """A threshold in four digits; the mask has none.

    >>> threshold_text(0.123456), threshold_text(None)
    ('0.1235', '-')
    """
    return "-" if threshold is None else f"{threshold:.4g}"


def one_line(text: str) -> str:
    r"""The text without line breaks and control characters.

    >>> one_line("out of memory:\n  tried 2 GiB")
    'out of memory: tried 2 GiB'
    """
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def conventions_text(convention: Convention, *, blurred: bool = False, exact: bool = False) -> str:
    """What numbers under a convention mean; `blurred` and `exact` are those of `Convention.not_reproduced`.

    >>> conventions_text(Convention(pooling="image")).partition(".")[0]
    "Means over the images' own metrics; ignored pixels do not count"
    """
    pooled = {
        "dataset": "The pixels of all images are pooled; ignored pixels do not count.",
        "image": "Means over the images' own metrics; ignored pixels do not count.",
    }[convention.pooling]
    area = {
        "step": "AP is the step sum over recall.",
        "trapezoid": "AP is the trapezoid under the precision-recall curve.",
    }[convention.ap_rule]
    rate = {
        ">=": "at the first threshold that finds 95% of the OoD pixels.",
        ">": "at the first threshold that finds more than 95% of the OoD pixels.",
        "nearest": "at the threshold whose share of found OoD pixels is nearest to 95%.",
        "nearest-last": "at the last threshold whose share of found OoD pixels is nearest to 95%.",
        "linear": "where a straight line between two thresholds finds 95% of the OoD pixels.",
    }[convention.fpr_rule]
    lacking = {
        "drop": " Images without OoD or without in-distribution pixels are left out.",
        "drop-without-ood": " Images without OoD pixels are left out.",
    }.get(convention.lacking, "")
    seen = {
        "frame-quantiles": " Scores are float16, in 768 bins of each image's own quantiles.",
        "levels": " Scores within 0..1 are in 65,536 levels.",
    }.get(convention.bins, "")
    if convention.image_pixels is not None:
        seen += f" An image weighs as much as {convention.image_pixels:,} pixels at most."
    if convention.weigh_pixels:
        seen += " An image weighs by its labelled pixels."
    text = f"{pooled}{lacking}{seen} {area} FPR95 is the false positive rate {rate} Equal scores share one threshold."
    if convention.like is not None:
        missing = "; ".join(convention.not_reproduced(blurred=blurred, exact=exact)) or "nothing"
        text = f"As {convention.like} measures. {text} Not reproduced: {missing}."
    return text


def percent(share: float) -> str:
    """A share in percent; `-` where it is of nothing.

    >>> percent(0.12345), percent(math.nan)
    ('12.35', '-')
    """
    return "-" if math.isnan(share) else f"{100 * share:.2f}"
