"""`mask-then-logit` while a mask grows cluster by cluster: the inner loop of a sweep, compiled by numba.

A sweep asks for its AP and FPR95 at 100,000 settings and more, each a sum over some 20,000 confidences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.compiled import compiled
from oodray.metrics.cells import Cells
from oodray.metrics.tally import IN_DISTRIBUTION, KEY_COUNT, OOD


@dataclass(frozen=True, eq=False)
class RankedCells:
    """Labelled pixels by rank of their confidence, among those that an OoD pixel has, and one rank after them all.

    What lies between two such confidences counts with the second: AP and FPR95 are read only where recall grows.

    Attributes:
        places: `(n,)`, the rank of each cell, cluster by cluster; in-distribution pixels come after all OoD ones.
        counts: `(n,)`, its pixels.
        starts: `(clusters + 1,)`, where the cells of each cluster start.
        totals: `(2, ranks)`, OoD and in-distribution pixels of all clusters.
    """

    places: NDArray[np.int64]
    counts: NDArray[np.int64]
    starts: NDArray[np.int64]
    totals: NDArray[np.int64]

    @classmethod
    def of(cls, cells: Cells) -> RankedCells:
        """Cells of clusters, labelled `OOD` or `IN_DISTRIBUTION`, in any order."""
        of_ood = np.zeros(KEY_COUNT, np.bool_)
        of_ood[cells.keys[cells.labels == OOD]] = True
        rank_of_key = np.concatenate([[0], np.cumsum(of_ood)[:-1]])
        ranks = int(of_ood.sum()) + 1
        order = np.argsort(cells.owner, kind="stable")
        places = ((cells.labels == IN_DISTRIBUTION) * ranks + rank_of_key[cells.keys])[order]
        counts = cells.counts[order]
        totals = np.zeros(2 * ranks, np.int64)
        np.add.at(totals, places, counts)
        starts = np.searchsorted(cells.owner[order], np.arange(cells.owners + 1))
        return cls(places, counts, starts, totals.reshape(2, ranks))

    def fill(self, found: NDArray[np.float64], entries: NDArray[np.int32]) -> None:
        """AP and FPR95 of each T, ascending, into `(2, T)`; cluster c is in the mask for the first `entries[c]`."""
        order = np.argsort(-entries, kind="stable")
        _fill(found, self.places, self.counts, self.starts, self.totals, order, entries)


@compiled
def _fill(  # noqa: PLR0917 - numba knows no keyword-only arguments
    found: Any, places: Any, counts: Any, starts: Any, totals: Any, order: Any, entries: Any
) -> None:  # pragma: no cover
    inside = np.zeros_like(totals)
    flat = inside.reshape(-1)
    end = found.shape[1]
    for position in range(len(order) + 1):
        start = entries[order[position]] if position < len(order) else 0
        if start < end:
            # For these values of T, the clusters that came in so far are the mask.
            ap, fpr95 = _step_metrics(inside, totals)
            found[0, start:end] = ap
            found[1, start:end] = fpr95
            end = start
        if end == 0:
            return
        cluster = order[position]
        for cell in range(starts[cluster], starts[cluster + 1]):
            flat[places[cell]] += counts[cell]


@compiled
def _step_metrics(inside: Any, totals: Any) -> tuple[float, float]:  # pragma: no cover
    """AP and FPR95 of first the pixels inside the mask, then those outside, in each part the least confident first.

    Operation by operation as `average_precision` and `fpr_at_tpr`, so that the last bit is theirs, too.
    """
    ranks = totals.shape[1]
    ood, ind = totals[0].sum(), totals[1].sum()
    needed = -(-19 * ood // 20)
    area, fpr95 = 0.0, -1.0
    true_positives, false_positives = 0, 0
    for part in range(2):
        for rank in range(ranks):
            new_ood, new_ind = inside[0, rank], inside[1, rank]
            if part == 1:
                new_ood, new_ind = totals[0, rank] - new_ood, totals[1, rank] - new_ind
            true_positives += new_ood
            false_positives += new_ind
            if new_ood > 0:
                area += new_ood * (true_positives / (true_positives + false_positives))
                if fpr95 < 0 and true_positives >= needed:
                    fpr95 = false_positives / ind
    return area / ood, fpr95
