"""Scales of scores: from a float32 score to the integer key that tallies count by, and back.

A tally needs few distinct keys, and a ranking needs many: a scale spends its keys where the values of its score lie.
Each is monotone: of two scores the larger never has the smaller key, and equal scores have one key. All but `float32`
have 16 bits. The ends are kept: the step between keys grows with the distance from where the score usually lies, so
that no finite value lies beyond the last key.

    real:CENTRE:UNIT    any numbers: finest around the centre, in steps that follow the distance in units
    positive:UNIT       numbers from 0 on, such as distances: a step is a share of the value, finest around the unit
    probability         numbers within 0..1: by their odds, so that 1e-9 and 1e-8 are as far apart as .5 and .9
    float16             rounded to float16: the keys of runs by oodray before 0.2, and of confidence
    float32             not rounded: 32 bits, for score maps of other methods

The logarithms are piecewise linear, as the bits of a floating-point number are: the key of a score is a few correctly
rounded operations, and so the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from oodray.metrics.tally import key_scores, score_keys

Keys: TypeAlias = NDArray[np.unsignedinteger[Any]]

MIDDLE = 32768
"""The key in the middle of 16 bits."""

_STEPS = MIDDLE - 1  # on each side of it
_REAL_REACH = 4.0  # octaves of distance from the centre at which half of the keys of one side are spent
_POSITIVE_REACH = 8.0  # octaves from the unit at which half of the keys of one side are spent
_MANTISSA = np.float32(2.0**-23)
_BIAS = 127
_LARGEST = float(np.finfo(np.float32).max)


class Scale(Protocol):
    """A monotone map from scores to keys."""

    @property
    def name(self) -> str:
        """How results name the scale; `scale_named` finds it again."""

    def keys(self, scores: NDArray[np.float32]) -> Keys:
        """The key of each score, which must be finite.

        Raises:
            ValueError: a score is not finite, or lies where the scale has no key.
        """

    def scores(self, keys: Keys) -> NDArray[np.float64]:
        """A score that has the key, for each key that a score has."""


@dataclass(frozen=True)
class Real:
    """Any numbers, on both sides of a centre.

    Attributes:
        centre: around which steps are finest.
        unit: the distance from it at which steps begin to grow, such as the spread of the scores.

    >>> scale = Real(centre=-8.0, unit=4.0)
    >>> scale.keys(np.array([-1e30, -8.01, -8.0, -7.99, 1e30], np.float32)).tolist()
    [1291, 32748, 32768, 32788, 64245]
    >>> scale.scores(np.array([32788], np.uint16)).round(2).tolist()
    [-7.99]
    """

    centre: float = 0.0
    unit: float = 4.0

    @property
    def name(self) -> str:
        """See `Scale`."""
        return f"real:{self.centre!r}:{self.unit!r}"

    def keys(self, scores: NDArray[np.float32]) -> Keys:
        """See `Scale`."""
        checked = _finite(scores)
        with np.errstate(over="ignore"):  # infinity has a key beyond all others
            distance = (checked - np.float32(self.centre)) / np.float32(self.unit)
            octaves = _octaves(np.abs(distance) + np.float32(1)) - np.float32(_BIAS)
        return _key(_share(octaves, _REAL_REACH), distance < 0)

    def scores(self, keys: Keys) -> NDArray[np.float64]:
        """See `Scale`."""
        steps = keys.astype(np.float64) - MIDDLE
        distance = _power(_octaves_of(np.abs(steps) / _STEPS, _REAL_REACH)) - 1
        return self.centre + np.sign(steps) * distance * self.unit


@dataclass(frozen=True)
class Positive:
    """Numbers from 0 on: a step is a share of the value.

    Attributes:
        unit: around which steps are finest, such as the median of the scores.

    >>> Positive(unit=16.0).keys(np.array([0.0, 1e-30, 15.9, 16.0, 16.1, 1e30], np.float32)).tolist()
    [1887, 2347, 32717, 32768, 32794, 63004]
    """

    unit: float = 1.0

    @property
    def name(self) -> str:
        """See `Scale`."""
        return f"positive:{self.unit!r}"

    def keys(self, scores: NDArray[np.float32]) -> Keys:
        """See `Scale`."""
        checked = _finite(scores)
        if np.any(checked < 0):
            raise ValueError(f"a score of the scale {self.name} is negative: {checked.min()}")
        octaves = _octaves(checked + np.float32(0)) - self._unit_octaves()
        return _key(_share(np.abs(octaves), _POSITIVE_REACH), octaves < 0)

    def scores(self, keys: Keys) -> NDArray[np.float64]:
        """See `Scale`."""
        steps = keys.astype(np.float64) - MIDDLE
        octaves = np.sign(steps) * _octaves_of(np.abs(steps) / _STEPS, _POSITIVE_REACH)
        # Down to 0, the bits below the smallest normal number.
        return np.where(octaves + self._unit_octaves() > 0, _power(octaves + self._unit_octaves() - _BIAS), 0.0)

    def _unit_octaves(self) -> np.float32:
        return np.float32(_octaves(np.array([self.unit], np.float32))[0])


@dataclass(frozen=True)
class Probability:
    """Numbers within 0..1, by their odds p / (1 - p).

    >>> Probability().keys(np.array([0.0, 1e-9, 1e-8, 0.5, 0.9, 1.0], np.float32)).tolist()
    [2017, 7962, 8840, 45371, 49279, 63676]
    """

    _odds: ClassVar[Positive] = Positive(2.0**-5)

    @property
    def name(self) -> str:
        """See `Scale`."""
        return "probability"

    def keys(self, scores: NDArray[np.float32]) -> Keys:
        """See `Scale`."""
        checked = _finite(scores)
        if np.any(checked < 0) or np.any(checked > 1):
            raise ValueError(f"a probability lies outside of 0..1: {checked.min()} to {checked.max()}")
        with np.errstate(divide="ignore"):
            odds = checked / (1 - checked)
        return self._odds.keys(np.minimum(odds, np.float32(_LARGEST)))

    def scores(self, keys: Keys) -> NDArray[np.float64]:
        """See `Scale`."""
        odds = self._odds.scores(keys)
        return odds / (1 + odds)


@dataclass(frozen=True)
class Float16:
    """Rounded to float16.

    >>> Float16().keys(np.array([-1.5, -0.0, 1.0001], np.float32)).tolist()
    [16896, 32768, 48128]
    """

    @property
    def name(self) -> str:
        """See `Scale`."""
        return "float16"

    def keys(self, scores: NDArray[np.float32]) -> Keys:
        """See `Scale`."""
        with np.errstate(over="ignore"):
            return score_keys(scores.astype(np.float16))

    def scores(self, keys: Keys) -> NDArray[np.float64]:
        """See `Scale`."""
        return key_scores(keys.astype(np.uint16)).astype(np.float64)


@dataclass(frozen=True)
class Float32:
    """Not rounded: the bits of a float32 in ascending order; -0 and +0 share one key.

    >>> keys = Float32().keys(np.array([-1.5, -0.0, 0.0, 1e-40], np.float32))
    >>> keys.tolist(), Float32().scores(keys[:2]).tolist()
    ([1077936128, 2147483648, 2147483648, 2147555010], [-1.5, 0.0])
    """

    @property
    def name(self) -> str:
        """See `Scale`."""
        return "float32"

    def keys(self, scores: NDArray[np.float32]) -> Keys:
        """See `Scale`."""
        bits = np.ascontiguousarray(_finite(scores)).view(np.uint32)
        # All ones where negative: there 2**32 - bits is the key, elsewhere 2**31 + bits.
        negative = (bits.view(np.int32) >> 31).view(np.uint32)
        keys = bits ^ negative
        keys -= negative
        np.invert(negative, out=negative)
        negative &= np.uint32(0x80000000)
        keys += negative
        return keys

    def scores(self, keys: Keys) -> NDArray[np.float64]:
        """See `Scale`."""
        steps = keys.astype(np.int64) - 0x80000000
        magnitudes = np.abs(steps).astype(np.uint32).view(np.float32).astype(np.float64)
        return np.where(steps < 0, -magnitudes, magnitudes)


def scale_named(name: str | None) -> Scale:
    """The scale that results name; None is what the results of oodray before 0.2 have.

    Raises:
        ValueError: there is no such scale.

    >>> scale_named("real:0.0:4.0"), scale_named(None)
    (Real(centre=0.0, unit=4.0), Float16())
    """
    kind, *numbers = (name or "float16").split(":")
    known: dict[str, Any] = {
        "real": Real,
        "positive": Positive,
        "probability": Probability,
        "float16": Float16,
        "float32": Float32,
    }
    try:
        scale: Scale = known[kind](*map(float, numbers))
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"unknown scale of scores {name!r}: the results are of a newer oodray") from None
    return scale


def _finite(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    if scores.dtype != np.float32:
        raise ValueError(f"scores must be float32, not {scores.dtype}: how they are rounded is the caller's decision")
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinity, which have no key; reject the image they belong to")
    return scores


def _octaves(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The bits of numbers from 0 on as octaves: 127 for 1, one more for its double, linear between."""
    return values.view(np.int32).astype(np.float32) * _MANTISSA


def _power(octaves: NDArray[np.float64]) -> NDArray[np.float64]:
    """The number that lies so many octaves from 1: the inverse of `_octaves`, but for the bias."""
    limited = np.clip(octaves, -_BIAS, _BIAS + 1 - 2.0**-20)
    whole = np.floor(limited)
    return np.asarray(np.ldexp(1 + (limited - whole), whole.astype(np.int64)))


def _share(octaves: NDArray[np.float32], reach: float) -> NDArray[np.float32]:
    """Within 0..1, half at the reach. One rounding after the other of what ascends: so does the result."""
    return np.float32(1) - np.float32(reach) / (octaves + np.float32(reach))


def _octaves_of(share: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
    """The inverse of `_share`."""
    return reach * share / np.maximum(1 - share, 2.0**-40)


def _key(share: NDArray[np.float32], below: NDArray[np.bool_]) -> NDArray[np.uint16]:
    steps = np.rint(share * np.float32(_STEPS)).astype(np.int32)
    keys: NDArray[np.uint16] = (MIDDLE + np.where(below, -steps, steps)).astype(np.uint16)
    return keys
