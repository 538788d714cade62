"""Points of curves and bins of histograms, as charts draw them, from exact counts.

A curve of exact counts has a point for each distinct score, up to 65,536. A chart needs a few hundred of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.metrics.curve import Counts
from oodray.metrics.score_counts import ScoreCounts

Floats = NDArray[np.float64]

POINTS = 200
"""Points of a curve that are spread evenly over each of its axes."""

BINS = 48
"""Bins of a histogram."""

_TAIL = 0.001  # share of the pixels at each end that an outermost bin may take in
_LEAST_RATE = 1e-5  # left end of a logarithmic axis


@dataclass(frozen=True, eq=False)
class CurvePoints:
    """Some points that lie on the curves of a score, thresholds descending; all arrays are `(p,)`.

    Attributes:
        recall: share of the OoD pixels at or above the threshold: the true positive rate.
        precision: share of OoD pixels among them.
        fpr: share of the in-distribution pixels at or above the threshold: the false positive rate.
    """

    recall: Floats
    precision: Floats
    fpr: Floats


@dataclass(frozen=True, eq=False)
class Histogram:
    """Pixels by score.

    Attributes:
        edges: `(b + 1,)`, ascending. The outermost bins take in what lies beyond them.
        ood: `(b,)`, OoD pixels.
        ind: `(b,)`, in-distribution pixels.
        all: `(b,)`, all pixels, ignored and unlabelled ones too.
    """

    edges: Floats
    ood: Counts
    ind: Counts
    all: Counts


def curve_points(ood: Counts, ind: Counts) -> CurvePoints | None:
    """Points of the precision-recall and ROC curves; None where a class has no pixel.

    They are evenly spread over recall, over the FPR, and over the logarithm of the FPR.

    Args:
        ood: `(n,)`, OoD pixels of each distinct score, most anomalous first.
        ind: `(n,)`, in-distribution pixels of the same scores.

    >>> points = curve_points(np.array([2, 1, 1]), np.array([0, 1, 3]))
    >>> points.recall.tolist(), points.precision.tolist(), points.fpr.tolist()
    ([0.5, 0.75, 1.0], [1.0, 0.75, 0.5], [0.0, 0.25, 1.0])
    """
    occupied = (ood > 0) | (ind > 0)
    true, false = np.cumsum(ood[occupied]), np.cumsum(ind[occupied])
    if not (true.size and true[-1] and false[-1]):
        return None
    recall, fpr = true / true[-1], false / false[-1]
    even = np.linspace(0, 1, POINTS)
    wanted = [
        np.searchsorted(recall, even),
        np.searchsorted(fpr, even),
        np.searchsorted(fpr, np.geomspace(_LEAST_RATE, 1, POINTS)),
    ]
    kept = np.unique(np.concatenate([*wanted, [0, len(recall) - 1]]).clip(0, len(recall) - 1))
    return CurvePoints(recall[kept], (true / (true + false))[kept], fpr[kept])


def score_histogram(counts: ScoreCounts) -> Histogram | None:
    """The histogram of a score; None where it has no pixel.

    >>> from oodray.metrics.tally import Tally, score_keys
    >>> keys = score_keys(np.array([0, 1, 1], np.float16))
    >>> found = score_histogram(ScoreCounts.of_tally(Tally.of(keys, np.array([0, 1, 255], np.uint8))))
    >>> int(found.all.sum()), int(found.ood.sum()), found.edges[[0, -1]].tolist()
    (3, 1, [0.0, 1.0])
    """
    return histogram(counts.scores(), counts.ood, counts.ind, counts.ood + counts.ind + counts.ignored)


def ratio_histogram(clusters: NDArray[np.int64]) -> Histogram | None:
    """The histogram of `ratio`, from 0 to 1; None where there is no cluster.

    Args:
        clusters: `(4, c)`: unsure, all, OoD and in-distribution pixels of every cluster.
    """
    unsure, pixels, ood, ind = clusters
    return histogram(unsure / np.maximum(pixels, 1), ood, ind, pixels, limits=(0.0, 1.0))


def histogram(
    values: Floats, ood: Counts, ind: Counts, every: Counts, limits: tuple[float, float] | None = None
) -> Histogram | None:
    """Counts of pixels in bins of equal width; None where there are none.

    Args:
        values: `(n,)`, a score each.
        ood: `(n,)`, OoD pixels of each score.
        ind: `(n,)`, in-distribution pixels.
        every: `(n,)`, all pixels.
        limits: the outermost edges; without them all but a thousandth of the pixels at each end lie between them.
    """
    if not every.any():
        return None
    low, high = limits or _limits(values, every)
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    inside = values.clip(edges[0], edges[-1])
    columns = (_binned(inside, counts, edges) for counts in (ood, ind, every))
    return Histogram(edges, *columns)


def _limits(values: Floats, counts: Counts) -> tuple[float, float]:
    order = np.argsort(values, kind="stable")
    up_to = np.cumsum(counts[order])
    ends = np.searchsorted(up_to, [_TAIL * up_to[-1], math.floor((1 - _TAIL) * up_to[-1])])
    low, high = values[order][ends.clip(0, len(values) - 1)].tolist()
    return low, high


def _binned(values: Floats, counts: NDArray[Any], edges: Floats) -> Counts:
    # The last bin holds its upper edge.
    at = np.searchsorted(edges, values, side="right").clip(1, len(edges) - 1) - 1
    total = np.zeros(len(edges) - 1, np.int64)
    np.add.at(total, at, counts)
    return total
