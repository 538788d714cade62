"""Scores of mask classifiers, see `oodray.scores.queries`: p_q classes, s_q masks, L the semantic map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oodray.metrics.scales import Real, Scale
from oodray.scores.score import QueryMapScore, QueryScore

if TYPE_CHECKING:
    from torch import Tensor

    from oodray.scores.strips import Strip


class Rba(QueryScore):
    """-sum over c of tanh L_c (Nayal et al., "RbA: segmenting unknown regions rejected by all")."""

    name = "rba"
    help = "rejected by all: minus the sum of tanh L over the classes of a mask classifier"
    scale: Scale = Real(centre=-0.75, unit=2.0**-4)

    def pixels(self, strip: Strip) -> Tensor:
        """See `PixelScore`."""
        from oodray.scores.strips import sum_classes

        return -sum_classes(strip.logits.tanh()).to(strip.logits.dtype)


class Eam(QueryMapScore):
    """1 - sum over q of s_q max_c p_q(c), "nothing" left out (Grcic et al., "On advantages of mask-level recognition").

    EAM, "ensemble over anomaly scores of masks".
    """

    name = "eam"
    help = "1 - the sum over a mask classifier's queries of mask times likeliest class"
    scale: Scale = Real(centre=0.0, unit=2.0**-4)

    def of_queries(self, classes: Tensor, masks: Tensor) -> Tensor:
        """See `QueryMapScore`."""
        certainty = classes[:, :-1].amax(-1, keepdim=True)
        return 1 - (certainty.T @ masks.flatten(1)).view(masks.shape[1:])


class Mask2Anomaly(QueryScore):
    """1 - max_c L_c; with `--flip` the mean of both views.

    Rai et al., "Unmasking anomalies in road-scene segmentation". The inference rule alone: the authors' networks were
    trained with outliers, which any network can be.
    """

    name = "mask2anomaly"
    help = "1 - the largest L of a mask classifier; with --flip, the mean of both views"
    scale: Scale = Real(centre=0.0, unit=2.0**-4)

    def pixels(self, strip: Strip) -> Tensor:
        """See `PixelScore`."""
        return 1 - strip.confidence


QUERY_SCORES: tuple[type[QueryScore], ...] = (Rba, Eam, Mask2Anomaly)
"""The scores of queries that need no fit."""
