"""How the counts of images rank their pixels by a score: read from a tally, or from the clusters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from oodray.metrics.curve import Counts, Curve
from oodray.metrics.curves import mask_then_logit_counts, ratio_counts, ratio_values
from oodray.metrics.frames import Frame
from oodray.metrics.tally import IN_DISTRIBUTION, KEY_COUNT, OOD, Tally

if TYPE_CHECKING:
    from oodray.metrics.evaluation import Totals


class Ranking(Protocol):
    """How pixels are ranked by one score.

    Attributes:
        by_number: whether a pixel's rank is one number, rather than a place in an order.
    """

    by_number: bool

    def counts(self, totals: Totals) -> tuple[Counts, Counts]:
        """OoD and in-distribution pixels by distinct value of the score, most anomalous first."""

    def values(self, totals: Totals) -> NDArray[np.float64]:
        """The distinct values that `counts` counts; nan where a value is more than one number."""

    def curve(self, totals: Totals) -> Curve:
        """The curve of the pixels."""

    def value(self, totals: Totals, row: int) -> float:
        """The score of one of the rows of that curve."""

    def limits(self, totals: Totals) -> tuple[float, float]:
        """The lowest and the highest score; nan where there is none, or a score is more than one number."""

    def labelled(self, totals: Totals) -> tuple[int, int]:
        """OoD and in-distribution pixels."""

    def frame(self, totals: Totals, *, rounded: bool = False) -> Frame:
        """The pixels of one image by score; by place in the order of all, where that is more than one number.

        Args:
            totals: of the image.
            rounded: whether scores may be rounded to float16, as that is done to them anyway.
        """

    def largest_tie(self, totals: Totals) -> float | None:
        """The largest share of the labelled pixels that have one value; None where values are meant to be few."""


class _ByCounts:
    """What follows from counts by distinct value alone."""

    def counts(self, totals: Totals) -> tuple[Counts, Counts]:
        raise NotImplementedError

    def values(self, totals: Totals) -> NDArray[np.float64]:
        raise NotImplementedError

    def curve(self, totals: Totals) -> Curve:
        """See `Ranking`."""
        return Curve.of(*self.counts(totals))

    def limits(self, totals: Totals) -> tuple[float, float]:
        """See `Ranking`."""
        values = self.values(totals)
        return (float(values[-1]), float(values[0])) if len(values) else (math.nan, math.nan)

    def labelled(self, totals: Totals) -> tuple[int, int]:
        """See `Ranking`."""
        ood, ind = self.counts(totals)
        return int(ood.sum()), int(ind.sum())


class ByTally:
    """A score of pixels, by its own tally."""

    by_number = True

    def __init__(self, score: str) -> None:
        self.score = score

    def counts(self, totals: Totals) -> tuple[Counts, Counts]:
        """See `Ranking`."""
        return totals.scores[self.score].ranked()

    def values(self, totals: Totals) -> NDArray[np.float64]:
        """See `Ranking`."""
        return totals.scores[self.score].labelled().scores()[::-1]

    def curve(self, totals: Totals) -> Curve:
        """See `Ranking`."""
        return totals.scores[self.score].curve()

    def value(self, totals: Totals, row: int) -> float:
        """See `Ranking`."""
        return totals.scores[self.score].value(row)

    def limits(self, totals: Totals) -> tuple[float, float]:
        """See `Ranking`."""
        return totals.scores[self.score].limits() or (math.nan, math.nan)

    def labelled(self, totals: Totals) -> tuple[int, int]:
        """See `Ranking`."""
        return totals.scores[self.score].labelled_pixels()

    def frame(self, totals: Totals, *, rounded: bool = False) -> Frame:
        """See `Ranking`."""
        return totals.scores[self.score].frame(rounded=rounded)

    def largest_tie(self, totals: Totals) -> float | None:
        """See `Ranking`."""
        return totals.scores[self.score].largest_tie()


class ByRatio(_ByCounts):
    """`ratio`: r_k of the cluster that a pixel lies in (eq. 3)."""

    by_number = True

    def counts(self, totals: Totals) -> tuple[Counts, Counts]:
        """See `Ranking`."""
        return ratio_counts(*totals.clusters)

    def values(self, totals: Totals) -> NDArray[np.float64]:
        """See `Ranking`."""
        return ratio_values(*totals.clusters[:2])

    def value(self, totals: Totals, row: int) -> float:
        """See `Ranking`."""
        return float(self.values(totals)[row])

    def frame(self, totals: Totals, *, rounded: bool = False) -> Frame:  # noqa: ARG002
        """See `Ranking`."""
        ood, ind = self.counts(totals)
        return Frame(self.values(totals)[::-1], ood[::-1], ind[::-1])

    def largest_tie(self, totals: Totals) -> float | None:  # noqa: ARG002
        """See `Ranking`."""
        return None


class MaskThenLogit(_ByCounts):
    """`mask-then-logit`: the pixels of the mask first, and both parts by falling max-logit."""

    by_number = False

    def counts(self, totals: Totals) -> tuple[Counts, Counts]:
        """See `Ranking`."""
        return mask_then_logit_counts(totals.inside, totals.outside)

    def values(self, totals: Totals) -> NDArray[np.float64]:
        """See `Ranking`."""
        return np.full(len(self.counts(totals)[0]), math.nan)

    def value(self, totals: Totals, row: int) -> float:  # noqa: ARG002
        """See `Ranking`."""
        return math.nan

    def frame(self, totals: Totals, *, rounded: bool = False) -> Frame:  # noqa: ARG002
        """See `Ranking`."""
        parts = [_by_key(totals.outside, 0), _by_key(totals.inside, KEY_COUNT)]
        return Frame(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("scores", "ood", "ind")))

    def largest_tie(self, totals: Totals) -> float | None:  # noqa: ARG002
        """See `Ranking`."""
        return None


BY_CLUSTERS: dict[str, Ranking] = {"ratio": ByRatio(), "mask-then-logit": MaskThenLogit()}
"""The scores that rank a pixel by its cluster: they have no tally of their own."""


def _by_key(tally: Tally, start: int) -> Frame:
    """Labelled pixels by falling confidence, at places that ascend from `start` on."""
    ood, ind = tally.dense(OOD)[::-1], tally.dense(IN_DISTRIBUTION)[::-1]
    places = np.flatnonzero((ood > 0) | (ind > 0))
    return Frame((start + places).astype(np.float64), ood[places], ind[places])
