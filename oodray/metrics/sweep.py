"""The grid over K, tau and T, from counts alone.

r_k (eq. 3) depends on the confidences of a cluster only through how many lie below tau, so counts per (cluster,
confidence key, label) answer every setting: no pixel and no network is needed again. For one K and tau, falling T
flags the clusters in the order of r_k, so that the masks of all T are one cumulative sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oodray.errors import ConfigError
from oodray.metrics.curves import Counts, average_precision, fpr_at_tpr, ratio_counts

MAX_SETTINGS = 100_000_000
MAX_DECIMALS = 8
"""Of a T: two different fractions, of at most 2**26 pixels and of 10**8, are two different float64 numbers."""

Columns = dict[str, NDArray[np.float64]]


def check_ood_ratios(ood_ratios: Iterable[float]) -> None:
    """Refuse values that cannot be a T, or have more decimals than comparisons in float64 are exact for.

    Raises:
        ConfigError: naming the first of them.
    """
    for ood_ratio in ood_ratios:
        if not 0 <= ood_ratio <= 1:
            raise ConfigError(f"T is a share from 0 to 1, not {ood_ratio}")
        if round(ood_ratio, MAX_DECIMALS) != ood_ratio:
            raise ConfigError(f"T = {ood_ratio} has more than {MAX_DECIMALS} decimals")


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


@dataclass(frozen=True, eq=False)
class ConfidenceCells:
    """Labelled pixels of the clusters of one K by confidence.

    Attributes:
        cluster: `(n,)`, the cluster of each cell, by its index in the grid.
        keys: `(n,)` uint16.
        labels: `(n,)` uint8, `OOD` or `IN_DISTRIBUTION`.
        counts: `(n,)` int64.
    """

    cluster: NDArray[np.intp]
    keys: NDArray[np.uint16]
    labels: NDArray[np.uint8]
    counts: Counts


def count_below(
    owner: NDArray[np.intp], keys: NDArray[np.uint16], counts: Counts, tau_keys: Sequence[int], owners: int
) -> NDArray[np.int32]:
    """Pixels of each of `owners` tallies below each tau: `(taus, owners)`.

    Args:
        owner: `(n,)`, the tally of each cell.
        keys: `(n,)` of the cells.
        counts: `(n,)`, at most 2**31 pixels a tally.
        tau_keys: the key of each tau, see `first_key_at_least`, ascending.
        owners: number of tallies.
    """
    # A cell is below every tau from this one on.
    first = np.searchsorted(np.asarray(tau_keys), keys, side="right")
    taus = len(tau_keys)
    cells = np.bincount(first * owners + owner, weights=counts, minlength=(taus + 1) * owners)
    return np.cumsum(cells.reshape(taus + 1, owners)[:taus], axis=0).astype(np.int32)


def sweep(grid: ClusterGrid, ood_ratios: Sequence[float]) -> Columns:
    """The metrics of every setting of one K, tau by tau and in each T by T.

    Args:
        grid: the clusters.
        ood_ratios: the values of T, ascending, see `check_ood_ratios`.

    Returns:
        `ratio_ap, ratio_fpr95, precision, recall, f1, iou`, each `(taus * len(ood_ratios),)`; nan for a share
        of nothing.
    """
    thresholds = -np.asarray(ood_ratios)
    rows: list[Columns] = []
    for unsure in grid.unsure.astype(np.int64):
        counts = ratio_counts(unsure, grid.pixels, grid.ood, grid.ind)
        falling, order = _falling(unsure, grid.pixels)
        flagged = np.searchsorted(falling, thresholds)
        hits, alarms = (np.concatenate([[0], np.cumsum(of[order])])[flagged] for of in (grid.ood, grid.ind))
        rows.append(
            {
                "ratio_ap": np.full(len(thresholds), average_precision(*counts)),
                "ratio_fpr95": np.full(len(thresholds), fpr_at_tpr(*counts)),
                **_mask_columns(hits, alarms, int(grid.ood.sum())),
            }
        )
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def sweep_mask_then_logit(grid: ClusterGrid, cells: ConfidenceCells, ood_ratios: Sequence[float]) -> Columns:
    """AP and FPR95 of `mask-then-logit` at every setting of one K, in the order of `sweep`.

    Clusters enter the mask in the order of their ratio, so each T adds to the counts of the one above it, and a T
    that adds nothing costs nothing.
    """
    found = np.full((2, len(grid.unsure), len(ood_ratios)), math.nan)
    if grid.ood.any() and grid.ind.any():
        from oodray.metrics.mask_ranking import RankedCells

        ranked = RankedCells.of(cells, len(grid.pixels))
        for tau, unsure in enumerate(grid.unsure):
            # For how many of the values of T, ascending, each cluster is in the mask.
            entries = np.searchsorted(np.asarray(ood_ratios), unsure / grid.pixels)
            ranked.fill(found[:, tau], entries)
    return {"mask_then_logit_ap": found[0].ravel(), "mask_then_logit_fpr95": found[1].ravel()}


def _falling(unsure: Counts, pixels: Counts) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Minus the ratios, ascending, and the order of the clusters."""
    ratios = -(unsure / pixels)
    order = np.argsort(ratios, kind="stable")
    return ratios[order], order


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
