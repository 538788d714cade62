"""Exact counts of pixels by (float16 score, label), which add up.

A float16 has only 65,536 bit patterns, so counting pixels per pattern loses nothing: whatever depends on the
scores of a set of pixels, but not on where they lie, follows from their tally. Tallies of images, machines
and datasets merge by addition, in any order.

A score is stored as its *key*, an integer in the order of the scores: 0x8000 for zero, one more for each
float16 above it, one less for each below.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

IN_DISTRIBUTION, OOD, IGNORE = 0, 1, 255
KEY_COUNT = 65536
MIN_BITS, MAX_BITS = 6, 16
"""Bits of a key: at least sign and exponent of a float16, at most all of it."""

_LABELS = np.array([IN_DISTRIBUTION, OOD, IGNORE], np.uint8)
_UNKNOWN = len(_LABELS)
# The rank of every label among the known ones; the cell (label, key) has the number rank * KEY_COUNT + key.
_RANKS = np.full(256, _UNKNOWN, np.uint8)
_RANKS[_LABELS] = np.arange(len(_LABELS))
_CELL_COUNT = len(_LABELS) * KEY_COUNT

_ZERO_KEY = 0x8000
_SIGN = np.uint16(0x8000)
_INFINITY = 0x7C00  # bits of +inf: finite magnitudes have smaller bits, NaNs larger ones
_LARGEST = float(np.finfo(np.float16).max)
_KEY_RANGE = (_ZERO_KEY - _INFINITY + 1, _ZERO_KEY + _INFINITY - 1)

_Integer = TypeVar("_Integer", bound=np.integer[Any])


def score_keys(scores: NDArray[np.float16]) -> NDArray[np.uint16]:
    """Keys of scores: integers in the same order, of the same shape; -0 and +0 share one key.

    Raises:
        TypeError: the scores are not float16 (rounding them is the caller's decision).
        ValueError: a score is NaN or infinite.

    >>> score_keys(np.array([-1.5, -0.0, 0.0, 65504.0], np.float16)).tolist()
    [16896, 32768, 32768, 64511]
    """
    _require_dtype("scores", scores, np.float16)
    bits = scores.view(np.uint16)
    magnitudes = bits & ~_SIGN
    if np.any(magnitudes >= _INFINITY):
        raise ValueError("scores hold NaN or infinity, which have no key; reject the image they belong to")
    return np.where(bits & _SIGN, _SIGN - magnitudes, _SIGN + magnitudes)


def key_scores(keys: NDArray[np.uint16]) -> NDArray[np.float16]:
    """Scores of keys, the inverse of `score_keys`; zero is +0.

    Raises:
        TypeError: the keys are not uint16.
        ValueError: a key is not the key of a finite score.
    """
    _require_dtype("keys", keys, np.uint16)
    steps = keys.astype(np.int32) - _ZERO_KEY
    magnitudes = np.abs(steps)
    if np.any(magnitudes >= _INFINITY):
        raise ValueError(f"keys must lie within {_ZERO_KEY - _INFINITY + 1}..{_ZERO_KEY + _INFINITY - 1}")
    return np.where(steps < 0, magnitudes | int(_SIGN), magnitudes).astype(np.uint16).view(np.float16)


def first_key_at_least(threshold: float) -> int:
    """Key of the first float16 >= a real threshold: exactly the scores with a smaller key are < threshold.

    Above the largest float16 it is the first number that is no key of a score, still below `KEY_COUNT`.

    Raises:
        ValueError: the threshold is NaN.

    >>> first_key_at_least(1.0), first_key_at_least(1.0001), first_key_at_least(math.inf)
    (48128, 48129, 64512)
    """
    if math.isnan(threshold):
        raise ValueError("the threshold is NaN; give a number")
    if threshold > _LARGEST:
        return _ZERO_KEY + _INFINITY
    neighbour = np.array(max(threshold, -_LARGEST), np.float16)
    key = int(score_keys(neighbour))
    return key if float(neighbour) >= threshold else key + 1


def coarse_keys(keys: NDArray[np.uint16], bits: int) -> NDArray[np.uint16]:
    """Keys of which the first `bits` alone are kept: that of the lower edge of the bin that each lies in.

    >>> coarse_keys(score_keys(np.array([1.0, 1.01, 1.02], np.float16)), 12).tolist()
    [48128, 48128, 48144]
    """
    return keys & np.uint16(KEY_COUNT - _bin_width(bits))


def snap_threshold(threshold: float, bits: int) -> float:
    """The threshold that keys of `bits` bits serve exactly: the given one, or the nearest edge of a bin.

    >>> snap_threshold(1.5, 12), snap_threshold(1.51, 12), snap_threshold(1.51, 16)
    (1.5, 1.515625, 1.51)
    """
    width = _bin_width(bits)
    key = first_key_at_least(threshold)
    if key % width == 0:
        return threshold
    low = key // width * width
    edges = key_scores(np.array([low, low + width]).clip(*_KEY_RANGE).astype(np.uint16)).astype(np.float64)
    return float(edges[np.argmin(np.abs(edges - threshold))])


def _bin_width(bits: int) -> int:
    if not MIN_BITS <= bits <= MAX_BITS:
        raise ValueError(f"keys have {MIN_BITS} to {MAX_BITS} bits, not {bits}")
    return int(1 << (MAX_BITS - bits))


@dataclass(frozen=True, eq=False)
class Tally:
    """Pixels counted by (key, label): one row per cell that has a pixel, ascending by (label, key).

    Immutable. The constructor copies rows as a tally stores them, `from_arrays` takes them in any order, `of`
    counts pixels.

    Args:
        keys: uint16 (n,), see `score_keys`.
        labels: uint8 (n,), each `IN_DISTRIBUTION`, `OOD` or `IGNORE`.
        counts: int64 (n,), each at least 1.

    Raises:
        TypeError: an array does not hold integers.
        ValueError: lengths differ, a label is unknown, a number is out of range, rows repeat or are unsorted.

    >>> tally = Tally.of(np.array([7, 9, 7], np.uint16), np.array([OOD, OOD, OOD], np.uint8))
    >>> tally += Tally.from_arrays([9], [IN_DISTRIBUTION], [10**15])
    >>> tally.keys.tolist(), tally.labels.tolist(), tally.counts.tolist()
    ([9, 7, 9], [0, 1, 1], [1000000000000000, 2, 1])
    >>> tally.pixels(), tally.pixels(OOD), tally.below(9)
    (1000000000000003, 3, 2)
    """

    keys: NDArray[np.uint16]
    labels: NDArray[np.uint8]
    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        keys, labels, counts = _checked_rows(self.keys, self.labels, self.counts)
        if np.any(np.diff(_cells(keys, labels)) <= 0):
            raise ValueError("rows must ascend by (label, key), each once; Tally.from_arrays merges others")
        if np.any(counts == 0):
            raise ValueError("counts must be at least 1; Tally.from_arrays drops empty cells")
        vars(self).update(keys=keys, labels=labels, counts=counts)

    @classmethod
    def of(cls, keys: NDArray[np.uint16], labels: NDArray[np.uint8]) -> Tally:
        """Count pixels, their keys and labels in arrays of one shape; raises as `cluster_tallies` does."""
        _require_pixels(keys, labels=labels)
        return _count(keys, labels)[0]

    @classmethod
    def from_arrays(cls, keys: ArrayLike, labels: ArrayLike, counts: ArrayLike) -> Tally:
        """Rows in any order, repeated ones added and counts of 0 dropped; raises as the constructor does."""
        checked_keys, checked_labels, checked_counts = _checked_rows(keys, labels, counts)
        total = np.zeros(_CELL_COUNT, np.int64)
        np.add.at(total, _cells(checked_keys, checked_labels), checked_counts)
        return _from_dense(total)

    @classmethod
    def of_dense(cls, totals: NDArray[np.int64]) -> Tally:
        """Pixels of every key, `(3, KEY_COUNT)`: in-distribution, OoD and ignored ones."""
        return _from_dense(totals)

    @classmethod
    def sum(cls, tallies: Iterable[Tally]) -> Tally:
        """All tallies as one, taken one at a time; the tally of nothing where there are none."""
        total = RunningTally()
        for tally in tallies:
            total.add(tally)
        return total.tally()

    def __add__(self, other: object) -> Tally:
        return Tally.sum((self, other)) if isinstance(other, Tally) else NotImplemented

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tally):
            return NotImplemented
        return (
            np.array_equal(self.keys, other.keys)
            and np.array_equal(self.labels, other.labels)
            and np.array_equal(self.counts, other.counts)
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[Tally], tuple[NDArray[Any], ...]]:
        # An unpickled array is writeable; through the constructor, an unpickled tally is not.
        return Tally, (self.keys, self.labels, self.counts)

    def pixels(self, label: int | None = None) -> int:
        """Number of pixels of one label, or of all of them."""
        return int(self.counts.sum() if label is None else self.counts[self.labels == label].sum())

    def below(self, key: int) -> int:
        """Number of pixels with a smaller key, whatever their label (ignored ones too)."""
        return int(self.counts[self.keys < key].sum())

    def share_below(self, key: int) -> float:
        """Share of the pixels with a smaller key: r_k of a cluster, with the key of tau (eq. 3). There must be a pixel.

        >>> Tally.from_arrays([3, 9], [OOD, IGNORE], [1, 3]).share_below(9)
        0.25
        """
        return self.below(key) / self.pixels()

    def quantile(self, share: float) -> float:
        """The largest score with at most `share` of the pixels, of all labels, strictly below it.

        >>> Tally.of(score_keys(np.arange(100, dtype=np.float16)), np.zeros(100, np.uint8)).quantile(0.05)
        5.0
        """
        if not self.counts.size or not 0 <= share < 1:
            raise ValueError(f"a quantile needs a pixel and a share within 0..1, not {self.pixels()} and {share}")
        by_key = sum(self.dense(label) for label in (IN_DISTRIBUTION, OOD, IGNORE))
        up_to_key = np.cumsum(by_key)
        key = np.searchsorted(up_to_key, share * self.pixels(), side="right")
        return float(key_scores(np.array(key, np.uint16)))

    def dense(self, label: int) -> NDArray[np.int64]:
        """Pixels of one label by key: int64 (KEY_COUNT,)."""
        total = np.zeros(KEY_COUNT, np.int64)
        chosen = self.labels == label
        total[self.keys[chosen]] = self.counts[chosen]
        return total


class RunningTally:
    """A sum of tallies that are added one after the other: 1.5 MiB, however many they are."""

    def __init__(self) -> None:
        self._total = np.zeros(_CELL_COUNT, np.int64)

    def add(self, tally: Tally) -> None:
        """Add a tally."""
        self._total[_cells(tally.keys, tally.labels)] += tally.counts

    def tally(self) -> Tally:
        """The sum of what was added so far."""
        return _from_dense(self._total)


def cluster_tallies(
    clusters: NDArray[np.uint8], keys: NDArray[np.uint16], labels: NDArray[np.uint8]
) -> dict[int, Tally]:
    """One tally per cluster that has a pixel, by ascending cluster id; the three arrays share one shape.

    Takes 32 bytes for each key from the least to the greatest, 2 MiB at most, for each of these clusters.

    Raises:
        TypeError: clusters or labels are not uint8, or keys not uint16.
        ValueError: shapes differ or a label is unknown.
    """
    _require_pixels(keys, labels=labels, clusters=clusters)
    return _count(keys, labels, clusters)


def _count(
    keys: NDArray[np.uint16], labels: NDArray[np.uint8], clusters: NDArray[np.uint8] | None = None
) -> dict[int, Tally]:
    """A tally of the pixels of each cluster; of all pixels, as cluster 0, where there are no clusters."""
    present = np.zeros(1, np.intp) if clusters is None else np.flatnonzero(np.bincount(clusters.ravel(), minlength=256))
    # Few of all keys lie between the least and the greatest of an image, and only those are looked through.
    low, high = (int(keys.min()), int(keys.max())) if keys.size else (0, 0)
    shape = len(present), len(_LABELS) + 1, high - low + 1  # a rank more, for unknown labels
    cells = (_RANKS.astype(np.intp) * shape[2] - low)[labels]
    cells += keys
    if clusters is not None:
        starts = np.zeros(256, np.intp)
        starts[present] = np.arange(shape[0]) * math.prod(shape[1:])
        cells += starts[clusters]
    totals = np.bincount(cells.ravel(), minlength=math.prod(shape)).reshape(shape)
    if np.any(totals[:, _UNKNOWN]):
        _refuse_unknown(labels)
    return {int(cluster): _from_dense(total, low) for cluster, total in zip(present, totals[:, :_UNKNOWN], strict=True)}


def label_ranks(labels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """The place of each label among `IN_DISTRIBUTION`, `OOD` and `IGNORE`, in the array's shape.

    Raises:
        ValueError: a label is unknown.

    >>> label_ranks(np.array([0, 255, 1], np.uint8)).tolist()
    [0, 2, 1]
    """
    if ((labels > OOD) & (labels < IGNORE)).any():
        _refuse_unknown(labels)
    return np.minimum(labels, _RANKS[IGNORE]).astype(np.intp)  # faster than looking up


def _cells(keys: NDArray[np.uint16], labels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Cell numbers, ascending by (label, key), in the arrays' shape."""
    return label_ranks(labels) * KEY_COUNT + keys


def _refuse_unknown(labels: NDArray[np.uint8]) -> NoReturn:
    unknown = ", ".join(map(str, np.setdiff1d(labels, _LABELS)))
    raise ValueError(f"unknown labels {unknown}; decode them to {_LABELS.tolist()} first")


def _from_dense(totals: NDArray[np.int64], low: int = 0) -> Tally:
    """The tally of pixels by rank of their label, and for each by key from `low` on; the same number of keys."""
    cells = np.flatnonzero(totals > 0)  # of booleans: three times as fast
    ranks, offsets = np.divmod(cells, totals.size // len(_LABELS))
    return _tally((offsets + low).astype(np.uint16), _LABELS[ranks], totals.ravel()[cells])


def _tally(keys: NDArray[np.uint16], labels: NDArray[np.uint8], counts: NDArray[np.int64]) -> Tally:
    """A tally of rows that are known to be in form, and are given away."""
    tally = object.__new__(Tally)
    for column in (keys, labels, counts):
        column.flags.writeable = False
    vars(tally).update(keys=keys, labels=labels, counts=counts)
    return tally


def _checked_rows(
    keys: ArrayLike, labels: ArrayLike, counts: ArrayLike
) -> tuple[NDArray[np.uint16], NDArray[np.uint8], NDArray[np.int64]]:
    """A tally's three columns as read-only copies in their types."""
    columns = (
        _column("keys", keys, np.uint16),
        _column("labels", labels, np.uint8),
        _column("counts", counts, np.int64),
    )
    if len({column.size for column in columns}) > 1:
        raise ValueError(f"keys, labels, counts differ in length: {[column.size for column in columns]}")
    return columns


def _column(name: str, values: ArrayLike, dtype: type[_Integer]) -> NDArray[_Integer]:
    given = np.asarray(values)
    if given.ndim != 1:
        raise ValueError(f"{name} must be a list, not an array of shape {given.shape}")
    if given.size:  # an empty list arrives as float64
        if given.dtype.kind not in "iu":
            raise TypeError(f"{name} must be integers, not {given.dtype}")
        if int(given.min()) < 0 or int(given.max()) > np.iinfo(dtype).max:
            raise ValueError(f"{name} must fit {np.dtype(dtype)} and not be negative")
    column = np.array(given, dtype)
    column.flags.writeable = False
    return column


def _require_pixels(keys: NDArray[np.uint16], **maps: NDArray[np.uint8]) -> None:
    """Refuse what numpy would silently cast or broadcast."""
    _require_dtype("keys", keys, np.uint16)
    for name, array in maps.items():
        _require_dtype(name, array, np.uint8)
        if array.shape != keys.shape:
            raise ValueError(f"{name} of shape {array.shape} do not match keys of shape {keys.shape}")


def _require_dtype(name: str, array: NDArray[Any], dtype: type[np.generic]) -> None:
    if array.dtype != dtype:
        raise TypeError(f"{name} must be {np.dtype(dtype)}, not {array.dtype}")
