"""The grid over K, tau and T, from counts alone.

r_k (eq. 3) depends on the confidences of a cluster only through how many lie below tau, so counts per (cluster,
confidence key, label) answer every setting: no pixel and no network is needed again. For one K and tau, falling T
flags the clusters in the order of r_k, so that the masks of all T are one cumulative sum. At which T a cluster is in
the mask is decided by `oodray.method.rule.exceeded` and given to the functions here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oodray.metrics.cells import Cells
from oodray.metrics.curve import Counts
from oodray.metrics.curves import average_precision, fpr_at_tpr, ratio_counts

MAX_SETTINGS = 100_000_000

Columns = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class ClusterGrid:
    """Clusters of one K, of any images, at every tau.

    Attributes:
        unsure: `(taus, c)` int32, pixels of each cluster below each tau.
        pixels: `(c,)`, all of its pixels.
        ood: `(c,)`, its OoD pixels.
        ind: `(c,)`, its in-distribution pixels.
    """

    unsure: NDArray[np.int32]
    pixels: Counts
    ood: Counts
    ind: Counts

    @staticmethod
    def join(parts: Sequence[ClusterGrid]) -> ClusterGrid:
        """The clusters of all parts."""
        return ClusterGrid(
            np.concatenate([part.unsure for part in parts], axis=1),
            *(np.concatenate([getattr(part, name) for part in parts]) for name in ("pixels", "ood", "ind")),
        )


def sweep(grid: ClusterGrid, flagged: NDArray[np.int32], ood_ratios: int) -> Columns:
    """The metrics of every setting of one K, tau by tau and in each T by T.

    Args:
        grid: the clusters.
        flagged: `(taus, c)`, for how many of the values of T, ascending, each cluster is in the mask.
        ood_ratios: how many values of T there are.

    Returns:
        `ratio_ap, ratio_fpr95, precision, recall, f1, iou`, each `(taus * ood_ratios,)`; nan for a share of nothing.
    """
    rows: list[Columns] = []
    for unsure, entries in zip(grid.unsure, flagged, strict=True):
        counts = ratio_counts(unsure, grid.pixels, grid.ood, grid.ind)
        hits, alarms = (_in_masks(of, entries, ood_ratios) for of in (grid.ood, grid.ind))
        rows.append(
            {
                "ratio_ap": np.full(ood_ratios, average_precision(*counts)),
                "ratio_fpr95": np.full(ood_ratios, fpr_at_tpr(*counts)),
                **_mask_columns(hits, alarms, int(grid.ood.sum())),
            }
        )
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def sweep_mask_then_logit(grid: ClusterGrid, cells: Cells, flagged: NDArray[np.int32], ood_ratios: int) -> Columns:
    """AP and FPR95 of `mask-then-logit` at every setting of one K, in the order of `sweep`.

    Clusters enter the mask in the order of their ratio, so each T adds to the counts of the one above it, and a T
    that adds nothing costs nothing.

    Args:
        grid: the clusters.
        cells: their labelled pixels by confidence, owned by the clusters of the grid.
        flagged: see `sweep`.
        ood_ratios: see `sweep`.
    """
    found = np.full((2, len(grid.unsure), ood_ratios), math.nan)
    if grid.ood.any() and grid.ind.any():
        from oodray.metrics.mask_ranking import RankedCells  # and with it numba, which plain sweeps do without

        ranked = RankedCells.of(cells)
        for tau, entries in enumerate(flagged):
            ranked.fill(found[:, tau], entries)
    return {"mask_then_logit_ap": found[0].ravel(), "mask_then_logit_fpr95": found[1].ravel()}


def _in_masks(pixels: Counts, entries: NDArray[np.int32], ood_ratios: int) -> Counts:
    """Of the clusters' pixels, those in the mask of each T; cluster c is in the first `entries[c]` of them."""
    leaving = np.zeros(ood_ratios + 1, np.int64)
    np.add.at(leaving, entries, pixels)
    return np.cumsum(leaving[::-1])[::-1][1:]


def _mask_columns(hits: Counts, alarms: Counts, ood: int) -> Columns:
    """Precision, recall, F1 and IoU of masks with these OoD and in-distribution pixels."""
    return {
        "precision": _share(hits, hits + alarms),
        "recall": _share(hits, np.full_like(hits, ood)),
        "f1": _share(2 * hits, hits + alarms + ood),
        "iou": _share(hits, alarms + ood),
    }


def _share(part: Counts, whole: Counts) -> NDArray[np.float64]:
    shares = np.full(len(part), math.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def best_settings(columns: Columns, shape: tuple[int, int, int], count: int) -> list[int]:
    """Indices of the settings with the largest F1, none of them beaten by a neighbour of the same K.

    A fine grid's very best settings are one setting and its neighbours; peaks say more.

    Args:
        columns: of all settings, K by K, tau by tau, T by T.
        shape: how many K, tau and T.
        count: how many at most.
    """
    f1 = np.nan_to_num(columns["f1"].reshape(shape), nan=-1.0)
    padded = np.pad(f1, ((0, 0), (1, 1), (1, 1)), constant_values=-1.0)
    index = np.arange(f1.size).reshape(shape)
    order = np.pad(index, ((0, 0), (1, 1), (1, 1)), constant_values=f1.size)
    peak = f1 > 0
    for row in range(3):
        for column in range(3):
            window = (slice(None), slice(row, row + shape[1]), slice(column, column + shape[2]))
            # Of equal neighbours the first is the peak.
            peak &= (f1 > padded[window]) | ((f1 == padded[window]) & (index <= order[window]))
    peaks = np.flatnonzero(peak)
    return [int(chosen) for chosen in peaks[np.argsort(-f1.ravel()[peaks], kind="stable")][:count]]
