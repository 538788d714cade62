"""Scores of logits alone: with z the logits of a pixel, m = max z and p = softmax(z)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oodray.metrics.scales import Positive, Probability, Real, Scale
from oodray.scores.score import PassesScore, PixelScore

if TYPE_CHECKING:
    from torch import Tensor

    from oodray.scores.strips import Strip

GEN_EXPONENT = 0.1
GEN_LARGEST = 100
"""The published choice for many classes: all but the 100 largest probabilities are left out."""


class MaxLogit(PixelScore):
    """-m (Hendrycks et al., "Scaling out-of-distribution detection for real-world settings")."""

    name = "max-logit"
    help = "minus the largest logit"
    scale: Scale = Real()

    def pixels(self, strip: Strip) -> Tensor:
        """See `PixelScore`."""
        return -strip.confidence


class Msp(PixelScore):
    """1 - max p (Hendrycks and Gimpel), as the other classes' share of all: near 0 the difference has no digits."""

    name = "msp"
    help = "1 - the largest softmax probability"
    scale: Scale = Probability()

    def pixels(self, strip: Strip) -> Tensor:
        """See `PixelScore`."""
        return strip.others / (1 + strip.others)


class Entropy(PixelScore):
    """-sum p log p, with 0 log 0 = 0, in nats."""

    name = "entropy"
    help = "entropy of the softmax probabilities"
    scale: Scale = Positive(2.0**-5)

    def pixels(self, strip: Strip) -> Tensor:
        """See `PixelScore`."""
        return (strip.others.log1p() - strip.mean_shift).clamp_(min=0)


class Energy(PixelScore):
    """-log sum exp z (Liu et al., "Energy-based out-of-distribution detection", temperature 1)."""

    name = "energy"
    help = "minus the log-sum-exp of the logits"
    scale: Scale = Real()

    def pixels(self, strip: Strip) -> Tensor:
        """See `PixelScore`."""
        return -strip.lse


class PredictiveEntropy(Entropy):
    """Entropy of the mean probabilities of several passes: networks of an ensemble, views, dropout."""

    name = "predictive-entropy"
    help = "entropy of the mean probabilities of several passes"
    needs: ClassVar[frozenset[str]] = frozenset({"logits", "passes"})


class MutualInformation(PassesScore):
    """Entropy of the mean probabilities minus the mean of the passes' entropies: what the passes disagree about."""

    name = "mutual-information"
    help = "entropy of the mean probabilities minus the mean entropy of several passes"
    scale: Scale = Positive(2.0**-9)


class Gen(PixelScore):
    """Generalised entropy: sum of p^g (1 - p)^g over the largest probabilities, g = 0.1.

    Liu, Lochman and Zach, "GEN: pushing the limits of softmax-based out-of-distribution detection", eq. 4.
    """

    name = "gen"
    help = "generalised entropy of the largest softmax probabilities"
    scale: Scale = Positive(8.0)

    def pixels(self, strip: Strip) -> Tensor:
        """See `PixelScore`."""
        from oodray.scores.strips import sum_classes

        largest = strip.log_weights
        if len(largest) > GEN_LARGEST:
            largest = largest.topk(GEN_LARGEST, dim=0).values
        log_p = largest - strip.log_total
        # log(1 - p) of the likeliest class by the others' share: near p = 1 the difference has no digits.
        log_rest = (-log_p.exp()).log1p_()
        log_rest.scatter_(0, largest.argmax(0, keepdim=True), (strip.others.log() - strip.others.log1p())[None])
        return sum_classes(log_p.add_(log_rest).mul_(GEN_EXPONENT).exp_()).to(largest.dtype)
