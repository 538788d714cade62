"""One ranking of pixels as a curve, from which AP, the FPR at a TPR, AUROC and F1 are read.

Recall, and with it every one of these numbers, changes only at scores that an OoD pixel has. So a curve keeps those
alone: they are few, and all that is read from it costs little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from oodray.metrics.long_lists import blocks

Counts: TypeAlias = NDArray[np.int64]
ApRule: TypeAlias = Literal["step", "trapezoid"]
FprRule: TypeAlias = Literal[">=", ">", "nearest", "nearest-last", "linear"]
Weights: TypeAlias = Counts | NDArray[np.float64]
"""Pixels by score, or what they weigh where some count less than one."""

_CLOSE = 1e-9
"""A share of a number of pixels that is more than what rounding makes, and less than a pixel."""


@dataclass(frozen=True, eq=False)
class Curve:
    """The scores at which recall grows, most anomalous first, `g` of them.

    Attributes:
        found: `(g,)`, OoD pixels with such a score or a higher one.
        alarms: `(g,)`, in-distribution pixels likewise.
        alarms_before: `(g,)`, in-distribution pixels with a higher score alone.
        rows: `(g,)`, which score each is, by a number that whoever counted them can tell it from.
        ind: in-distribution pixels of all scores.
        kept: `(g,)`, whether scikit-learn's `roc_curve` keeps the point where it drops intermediate ones.
    """

    found: NDArray[Any]
    alarms: NDArray[Any]
    alarms_before: NDArray[Any]
    rows: NDArray[np.intp] | range
    ind: Any
    kept: NDArray[np.bool_]

    @classmethod
    def of(cls, ood: Weights, ind: Weights) -> Curve:
        """The curve of the pixels of each distinct score, most anomalous first; two arrays of one length."""
        rows = np.flatnonzero(ood > 0)
        alarms = np.cumsum(ind)
        of_ood, of_ind = ood[rows], ind[rows]
        inclusive = alarms[rows]
        return cls(
            found=np.cumsum(of_ood),
            alarms=inclusive,
            alarms_before=inclusive - of_ind,
            rows=rows,
            ind=alarms[-1] if len(alarms) else 0,
            kept=_kept(ood, ind, rows),
        )

    @property
    def measurable(self) -> bool:
        """Whether there is an OoD and an in-distribution pixel."""
        return bool(len(self.found) and self.ind > 0)

    def gains(self, part: slice) -> NDArray[Any]:
        """OoD pixels with such a score alone, of a part of the scores."""
        found = self.found[part]
        gains = found.copy()
        gains[1:] -= found[:-1]
        if part.start:
            gains[0] -= self.found[part.start - 1]
        return gains

    def average_precision(self, rule: ApRule = "step") -> float:
        """See `oodray.metrics.curves.average_precision`."""
        if rule not in self._areas:
            self._areas[rule] = self._average_precision(rule)
        return self._areas[rule]

    @cached_property
    def _areas(self) -> dict[ApRule, float]:
        """Conventions share curves, and ask them the same: the answers are kept, as those of the next ones."""
        return {}

    def _average_precision(self, rule: ApRule) -> float:
        if not self.measurable:
            return math.nan
        area = 0.0
        for part in blocks(len(self.found)):
            found, gains = self.found[part], self.gains(part)
            precision = found / (found + self.alarms[part])
            if rule == "trapezoid":
                # Where recall stands still precision falls: a gain starts from the lower end of that fall. No pixel
                # before it is the point at recall 0.
                before = found - gains
                reached = before + self.alarms_before[part]
                start = np.where(reached > 0, before / np.where(reached > 0, reached, 1), 1.0)
                precision = (start + precision) / 2
            # One after the other, as a loop adds: a sweep, compiled, has the same last bit.
            areas = gains * precision
            areas[0] += area
            area = np.add.accumulate(areas)[-1]
        return float(area / self.found[-1])

    def fpr_at_tpr(self, tpr: float = 0.95, rule: FprRule = ">=", *, thinned: bool = False) -> float:
        """See `oodray.metrics.curves.fpr_at_tpr`; `thinned` leaves out the points that scikit-learn drops."""
        if not self.measurable:
            return math.nan
        if rule in ("nearest", "nearest-last"):
            return self._nearest(tpr, last=rule == "nearest-last", thinned=thinned)
        found, alarms, before = self.found, self.alarms, self.alarms_before
        if thinned:
            found, alarms, before = found[self.kept], alarms[self.kept], before[self.kept]
        level = self._level(tpr)
        above = int(np.searchsorted(found, _floor(level), side="right"))
        if rule == ">=":
            called = alarms[np.searchsorted(found, _ceil(level))]
        elif above == len(found):
            called = self.ind
        elif rule == ">":
            called = alarms[above]
        else:
            low = found[above - 1].item() if above else 0
            share = (level - low) / (found[above].item() - low)
            called = before[above].item() + share * (alarms[above].item() - before[above].item())
        return float(called / int(self.ind) if self.found.dtype.kind in "iu" else called / self.ind)

    def _nearest(self, tpr: float, *, last: bool, thinned: bool) -> float:
        """The FPR at the threshold whose TPR is nearest, the first or the last of several.

        The last is looked for among all thresholds up to the first that finds all OoD pixels.
        """
        places = self._around(tpr, thinned=thinned)
        shares, alarms = self.found[places] / self.found[-1], self.alarms[places]
        if last:
            following = np.minimum(places + 1, len(self.found) - 1)
            alarms = np.where(following > places, self.alarms_before[following], self.alarms[-1])
        if not last or self.alarms_before[0] > 0:  # a threshold at which nothing is found
            shares = np.concatenate([[0.0], shares])
            alarms = np.concatenate([self.alarms_before[:1] if last else [0], alarms])
        distances = np.abs(shares - tpr)
        nearest = len(distances) - 1 - np.argmin(distances[::-1]) if last else np.argmin(distances)
        return float(alarms[nearest] / self.ind)

    def _around(self, tpr: float, *, thinned: bool) -> NDArray[np.intp]:
        """Points around a TPR, among them the nearest on either side."""
        level = tpr * self.found[-1]
        low, high = np.searchsorted(self.found, [level * (1 - _CLOSE), level * (1 + _CLOSE)]).tolist()
        reach = 1
        while True:
            first, end = max(0, low - reach), min(len(self.found), high + reach)
            usable = self.kept[first:end] if thinned else np.ones(end - first, np.bool_)
            below, above = usable[: low - first], usable[high - first :]
            if (first == 0 or below.any()) and (end == len(self.found) or above.any()):
                return np.asarray(first + np.flatnonzero(usable))
            reach *= 2

    def _level(self, tpr: float) -> Fraction | float:
        """OoD pixels that make this TPR: of whole pixels exactly, `tpr` being the decimal that it prints as."""
        total = self.found[-1]
        return Fraction(str(tpr)) * int(total) if self.found.dtype.kind in "iu" else tpr * float(total)

    def auroc(self) -> float:
        """See `oodray.metrics.curves.auroc`."""
        return self._auroc

    @cached_property
    def _auroc(self) -> float:
        if not self.measurable:
            return math.nan
        lost = np.empty(len(self.found))
        for part in blocks(len(lost)):
            # Shares first: a product of two counts may not fit 64 bits.
            passed = (self.alarms_before[part] + self.alarms[part]) / (2 * self.ind)
            lost[part] = (self.gains(part) / self.found[-1]) * passed
        return float(1 - np.sum(lost))

    def best_f1(self) -> tuple[float, int]:
        """See `oodray.metrics.curves.best_f1`."""
        return self._best_f1

    @cached_property
    def _best_f1(self) -> tuple[float, int]:
        if not self.measurable:
            return math.nan, -1
        highest, best = -1.0, -1
        for part in blocks(len(self.found)):
            f1 = 2 * self.found[part] / (self.found[part] + self.alarms[part] + self.found[-1])
            place = int(np.argmax(f1))
            if f1[place] > highest:
                highest, best = float(f1[place]), part.start + place
        return highest, int(self.rows[best])

    def tpr_at_fpr(self, fpr: float = 0.05) -> float:
        """TPR at the first threshold, from the most anomalous down, whose FPR is at least `fpr`, as ISSU reads it.

        >>> Curve.of(np.array([3, 0, 1, 0]), np.array([0, 4, 0, 96])).tpr_at_fpr(), _EXAMPLE.tpr_at_fpr(0.04)
        (1.0, 0.75)
        """
        if not self.measurable:
            return math.nan
        level = float(fpr) * float(self.ind)
        reached = int(np.searchsorted(self.alarms, level))
        if reached == len(self.found):
            return 1.0
        if self.alarms_before[reached] >= level:
            reached -= 1
        return float(self.found[reached] / self.found[-1]) if reached >= 0 else 0.0

    def detection_error(self) -> float:
        """The smallest mean of the shares of missed OoD and of falsely called pixels, of any threshold (ODIN's).

        >>> _EXAMPLE.detection_error()
        0.02
        """
        if not self.measurable:
            return math.nan
        least = 0.5
        for part in blocks(len(self.found)):
            errors = (1 - self.found[part] / self.found[-1] + self.alarms[part] / self.ind) / 2
            least = min(least, float(errors.min()))
        return least


def _kept(ood: Weights, ind: Weights, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Of some scores, those whose step on the ROC curve differs from the next one's; the first and last one, too."""
    is_occupied = (ood > 0) | (ind > 0)
    if is_occupied.all():  # as of a tally: its scores are those that a pixel has
        following = np.minimum(rows + 1, len(ood) - 1)
        ends = (rows == 0) | (rows == len(ood) - 1)
        return np.asarray(ends | (ood[following] != ood[rows]) | (ind[following] != ind[rows]))
    occupied = np.flatnonzero(is_occupied)
    place = np.searchsorted(occupied, rows)
    following = occupied[np.minimum(place + 1, len(occupied) - 1)] if len(rows) else rows
    ends = (place == 0) | (place == len(occupied) - 1)
    return np.asarray(ends | (ood[following] != ood[rows]) | (ind[following] != ind[rows]))


def _ceil(level: Fraction | float) -> int | float:
    return math.ceil(level) if isinstance(level, Fraction) else level


def _floor(level: Fraction | float) -> int | float:
    return math.floor(level) if isinstance(level, Fraction) else level


_EXAMPLE = Curve.of(np.array([3, 0, 1, 0]), np.array([0, 4, 0, 96]))
