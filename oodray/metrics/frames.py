"""Counts of one image as some evaluators see them: in bins of its own quantiles, in levels, or with less weight.

They add up over images as all counts do, and a curve is taken from the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.metrics.curve import Weights
from oodray.metrics.long_lists import range_edges

QUANTILES_OF_A_CLASS = 384
"""Quantiles that SegmentMeIfYouCan and ISSU take of the OoD and of the in-distribution pixels of each frame."""

LEVELS = 65536
"""Levels of a score within 0..1 in a submission to BRAVO."""

SCORE_LIMIT = float(np.finfo(np.float16).max)


@dataclass(frozen=True, eq=False)
class Frame:
    """Labelled pixels of one image by score.

    Attributes:
        scores: `(n,)` float64, higher = more anomalous; ascending, each once.
        ood: `(n,)`, its OoD pixels.
        ind: `(n,)`, its in-distribution pixels.
    """

    scores: NDArray[np.float64]
    ood: Weights
    ind: Weights


def in_quantile_bins(frame: Frame, *, rounding: bool = True) -> Frame:
    """A frame as SegmentMeIfYouCan bins it: its scores are the lower edges of bins.

    Scores are rounded to float16, as its files hold them, unless they are but places in an order. The edges are the
    384 quantiles, with equal steps, of the OoD pixels' scores, as many of the others', and one beyond either end; a
    bin holds its lower edge.

    >>> frame = Frame(np.array([0.25, 0.5, 0.75, 1.0]), np.array([0, 0, 1, 3]), np.array([5, 1, 1, 0]))
    >>> binned = in_quantile_bins(frame)
    >>> binned.scores[-3:].round(4).tolist(), binned.ood[-3:].tolist(), binned.ind.sum().item()
    ([0.5, 0.75, 1.0], [0, 1, 3], 7)
    """
    if rounding:
        frame = _with_equal_scores_merged(replace(frame, scores=as_float16(frame.scores)))
    edges = np.unique(np.concatenate([_quantiles(frame.scores, frame.ood), _quantiles(frame.scores, frame.ind)]))
    if not len(edges):
        return Frame(edges, frame.ood[:0], frame.ind[:0])
    bins = np.searchsorted(edges, frame.scores, side="right") - 1
    labelled = (frame.ood > 0) | (frame.ind > 0)
    ood, ind = (_added(counts[labelled], bins[labelled], len(edges)) for counts in (frame.ood, frame.ind))
    return Frame(edges, ood, ind)


def in_levels(frame: Frame) -> Frame:
    """A frame with scores in 65,536 equal levels of 0..1, as a PNG of 16 bits holds them.

    >>> in_levels(Frame(np.array([0.0, 1e-9, 1.0]), np.array([1, 2, 3]), np.array([4, 5, 6]))).scores.tolist()
    [0.0, 1.0]
    """
    levels = np.rint(np.clip(frame.scores, 0, 1) * (LEVELS - 1)) / (LEVELS - 1)
    return _with_equal_scores_merged(replace(frame, scores=levels))


def weighing_at_most(frame: Frame, pixels: int) -> Frame:
    """A frame whose pixels weigh less each where it has more than so many: what a random sample has on average.

    >>> weighing_at_most(Frame(np.array([0.0, 1.0]), np.array([0, 4]), np.array([12, 0])), 8).ood.tolist()
    [0.0, 2.0]
    """
    total = int(frame.ood.sum() + frame.ind.sum())
    weight = min(1.0, pixels / total) if total else 1.0
    return Frame(frame.scores, (frame.ood * weight).astype(np.float64), (frame.ind * weight).astype(np.float64))


def pooled(frames: Sequence[Frame]) -> Frame:
    """All frames as one.

    Where they are long, a range of scores is sorted at a time, and of scores next to each other that no OoD pixel has
    the lowest stands for all: nothing that is read from a curve tells them apart.
    """
    edges = range_edges([frame.scores for frame in frames])
    if not edges:
        return _sorted_together(frames)
    places = [[0, *np.searchsorted(frame.scores, edges).tolist(), len(frame.scores)] for frame in frames]
    parts = [
        _without_runs(
            _sorted_together(
                [_between(frame, *place[index : index + 2]) for frame, place in zip(frames, places, strict=True)]
            )
        )
        for index in range(len(edges) + 1)
    ]
    joined: list[Any] = [np.concatenate([getattr(part, name) for part in parts]) for name in ("scores", "ood", "ind")]
    return Frame(*joined)


def _between(frame: Frame, first: int, end: int) -> Frame:
    return Frame(frame.scores[first:end], frame.ood[first:end], frame.ind[first:end])


def _without_runs(frame: Frame) -> Frame:
    """A frame in which one score stands for each run of scores that no OoD pixel has."""
    has_ood = frame.ood > 0
    starts = np.flatnonzero(has_ood | np.concatenate([[True], has_ood[:-1]]))
    if not len(frame.scores) or len(starts) == len(frame.scores):
        return frame
    return Frame(frame.scores[starts], np.add.reduceat(frame.ood, starts), np.add.reduceat(frame.ind, starts))


def _sorted_together(frames: Sequence[Frame]) -> Frame:
    columns: list[Any] = [
        np.concatenate([getattr(frame, name) for frame in frames]) if frames else np.empty(0)
        for name in ("scores", "ood", "ind")
    ]
    scores, ood, ind = columns
    order = np.argsort(scores, kind="stable")
    return _with_equal_scores_merged(Frame(scores[order], ood[order], ind[order]))


def pooled_as_smiyc(frames: Sequence[Frame]) -> Frame:
    """Binned frames as one, as SegmentMeIfYouCan's curve has them.

    It is `pooled`, but for one point: where the highest bins of several frames are equally high, the last of them alone
    is a point of the curve before all of them are. Here it is a score of its own, as high as the next one.
    """
    whole = pooled(frames)
    highest = [frame for frame in frames if len(frame.scores) and frame.scores[-1] == whole.scores[-1]]
    if len(highest) < 2:
        return whole
    columns = []
    for name in ("ood", "ind"):
        counts, alone = getattr(whole, name), getattr(highest[-1], name)[-1:]
        columns.append(np.concatenate([counts[:-1], counts[-1:] - alone, alone]))
    return Frame(np.append(whole.scores, whole.scores[-1]), *columns)


def as_float16(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Scores as files of float16 hold them; what is too large becomes the largest of them."""
    rounded: NDArray[np.float64] = np.clip(scores, -SCORE_LIMIT, SCORE_LIMIT).astype(np.float16).astype(np.float64)
    return rounded


def _quantiles(scores: NDArray[np.float64], counts: NDArray[Any]) -> NDArray[np.float64]:
    """Quantiles of pixels with these float16 scores, as `numpy.quantile` of an array of float16 has them."""
    total = int(counts.sum())
    if not total:
        return np.empty(0)
    places = np.linspace(0, 1, min(QUANTILES_OF_A_CLASS, total)) * (total - 1)
    before = np.floor(places).astype(np.int64)
    up_to = np.cumsum(counts)
    low, high = (
        scores[np.searchsorted(up_to, np.minimum(place, total - 1), side="right")] for place in (before, before + 1)
    )
    share = places - before
    with np.errstate(over="ignore"):
        step = (high - low).astype(np.float16).astype(np.float64)  # the difference of two float16 is one
    return np.where(share < 0.5, low + step * share, high - step * (1 - share))


def _added(counts: NDArray[Any], place: NDArray[np.intp], size: int) -> NDArray[Any]:
    total = np.zeros(size, counts.dtype)
    np.add.at(total, place, counts)
    return total


def _with_equal_scores_merged(frame: Frame) -> Frame:
    """A frame whose scores ascend, and may repeat, with each of them once."""
    if not len(frame.scores):
        return frame
    starts = np.flatnonzero(np.concatenate([[True], frame.scores[1:] != frame.scores[:-1]]))
    return Frame(frame.scores[starts], np.add.reduceat(frame.ood, starts), np.add.reduceat(frame.ind, starts))
