"""Published evaluators by name, as conventions: what `--like` takes. Each was read in its source, named beside it."""

from __future__ import annotations

from oodray.errors import ConfigError
from oodray.metrics.conventions import Convention
from oodray.spelling import did_you_mean

LIKE = {
    str(convention.like): convention
    for convention in (
        # SegmentMeIfYouCan/road-anomaly-benchmark@1c7804e
        Convention(like="smiyc", bins="frame-quantiles"),
        # hermannsblum/bdl-benchmark@03773d6
        Convention(like="fishyscapes", exact=True),
        # lmb-freiburg/ade-ood@c687b3a
        Convention(like="ade-ood", fpr_rule="nearest", thinned=True, exact=True),
        # the package ood-metrics 1.1
        Convention(like="ood-metrics", ap_rule="trapezoid", fpr_rule="linear", exact=True),
        # tianyu0207/PEBAL@0293bee
        Convention(like="pebal", fpr_rule="nearest-last", blur=True, exact=True),
        # valeoai/bravo_challenge@d54005d
        Convention(
            like="bravo",
            bins="levels",
            image_pixels=100_000,
            beyond=(
                "its draw of 100,000 pixels an image, around whose mean it scatters: here pixels weigh less instead",
                "scores outside of 0..1, which it does not take",
            ),
        ),
        # shyam671/Mask2Anomaly@5c84283
        Convention(like="mask2anomaly", fpr_rule="linear", lacking="drop-without-ood", exact=True),
        # NazirNayal8/RbA@cf263d5
        Convention(like="rba", fpr_rule=">", thinned=True, exact=True),
        # ENSTA-U2IS-AI/torch-uncertainty@8769bc8
        Convention(
            like="torch-uncertainty",
            pooling="image",
            fpr_rule="nearest-last",
            lacking="drop",
            weigh_pixels=True,
            exact=True,
            beyond=("batches of several images, which it measures as one: here a batch is an image",),
        ),
        # kkirchheim/pytorch-ood@d047673, mode "segmentation"
        Convention(
            like="pytorch-ood",
            pooling="image",
            ap_rule="trapezoid",
            lacking="drop",
            exact=True,
            beyond=(
                "it refuses a dataset with an image that lacks a class: here such images are left out",
                "the sigmoid that torchmetrics takes of an image with scores outside of 0..1, which can make ties",
            ),
        ),
        # vojirt/benchmark_issu@11ccf55
        Convention(like="issu", bins="frame-quantiles"),
    )
}
"""SegmentMeIfYouCan, Fishyscapes, ADE-OoD, the package ood-metrics (FPR of SML), PEBAL, the BRAVO challenge,
Mask2Anomaly, RbA, torch-uncertainty, pytorch-ood and ISSU."""


def like_evaluator(name: str) -> Convention:
    """The conventions of a published evaluator.

    Raises:
        ConfigError: the name is none of `LIKE`.
    """
    if name not in LIKE:
        raise ConfigError(f"no evaluator {name!r} is known; {did_you_mean(name, LIKE, what='known evaluators')}")
    return LIKE[name]
