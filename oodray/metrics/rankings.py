"""How the counts of images rank their pixels by a score: read from a tally, or from the clusters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from oodray.metrics.curves import Counts, mask_then_logit_counts, ratio_counts, ratio_values
from oodray.metrics.tally import IN_DISTRIBUTION, KEY_COUNT, OOD, Tally

if TYPE_CHECKING:
    from oodray.metrics.evaluation import Totals

Entries = tuple[NDArray[np.float64], Counts, Counts]
"""Numbers that ascend from the most anomalous on, and the OoD and in-distribution pixels of each; in any order."""


class Ranking(Protocol):
    """How pixels are ranked by one score."""

    def counts(self, totals: Totals) -> tuple[Counts, Counts]:
        """OoD and in-distribution pixels by distinct value of the score, most anomalous first."""

    def values(self, totals: Totals) -> NDArray[np.float64]:
        """The distinct values that `counts` counts; nan where a value is more than one number."""

    def entries(self, totals: Totals) -> Entries:
        """What a bootstrap needs of one image: values that compare across images, each with its pixels."""

    def largest_tie(self, totals: Totals) -> float | None:
        """The largest share of the labelled pixels that have one value; None where values are meant to be few."""


class ByTally:
    """A score of pixels, by its own tally."""

    def __init__(self, score: str) -> None:
        self.score = score

    def counts(self, totals: Totals) -> tuple[Counts, Counts]:
        """See `Ranking`."""
        return totals.scores[self.score].ranked()

    def values(self, totals: Totals) -> NDArray[np.float64]:
        """See `Ranking`."""
        return totals.scores[self.score].labelled().scores()[::-1]

    def entries(self, totals: Totals) -> Entries:
        """See `Ranking`."""
        found = totals.scores[self.score].labelled()
        return -found.keys.astype(np.float64), found.ood, found.ind

    def largest_tie(self, totals: Totals) -> float | None:
        """See `Ranking`."""
        return totals.scores[self.score].largest_tie()


class ByRatio:
    """`ratio`: r_k of the cluster that a pixel lies in (eq. 3)."""

    def counts(self, totals: Totals) -> tuple[Counts, Counts]:
        """See `Ranking`."""
        return ratio_counts(*totals.clusters)

    def values(self, totals: Totals) -> NDArray[np.float64]:
        """See `Ranking`."""
        return ratio_values(*totals.clusters[:2])

    def entries(self, totals: Totals) -> Entries:
        """See `Ranking`."""
        unsure, pixels, ood, ind = totals.clusters
        return -(unsure / pixels), ood, ind

    def largest_tie(self, totals: Totals) -> float | None:  # noqa: ARG002
        """See `Ranking`."""
        return None


class MaskThenLogit:
    """`mask-then-logit`: the pixels of the mask first, and both parts by falling max-logit."""

    def counts(self, totals: Totals) -> tuple[Counts, Counts]:
        """See `Ranking`."""
        return mask_then_logit_counts(totals.inside, totals.outside)

    def values(self, totals: Totals) -> NDArray[np.float64]:
        """See `Ranking`."""
        return np.full(len(self.counts(totals)[0]), math.nan)

    def entries(self, totals: Totals) -> Entries:
        """See `Ranking`."""
        inside, outside = _confidence_entries(totals.inside), _confidence_entries(totals.outside)
        order = np.concatenate([inside[0], outside[0] + KEY_COUNT])
        return order, np.concatenate([inside[1], outside[1]]), np.concatenate([inside[2], outside[2]])

    def largest_tie(self, totals: Totals) -> float | None:  # noqa: ARG002
        """See `Ranking`."""
        return None


BY_CLUSTERS: dict[str, Ranking] = {"ratio": ByRatio(), "mask-then-logit": MaskThenLogit()}
"""The scores that rank a pixel by its cluster: they have no tally of their own."""


def _confidence_entries(tally: Tally) -> Entries:
    labelled = (tally.labels == OOD) | (tally.labels == IN_DISTRIBUTION)
    labels, counts = tally.labels[labelled], tally.counts[labelled]
    return tally.keys[labelled].astype(np.float64), counts * (labels == OOD), counts * (labels == IN_DISTRIBUTION)
