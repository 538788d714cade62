"""Scales keep the order of scores, and enough of their differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from oodray.metrics.scales import Float16, Float32, Positive, Probability, Real, Scale, scale_named

LARGEST = float(np.finfo(np.float32).max)
FLOATS = st.floats(-LARGEST, LARGEST, width=32)

OF_NUMBERS: list[Scale] = [Real(), Real(-8.0, 2.0), Real(1e5, 1e3), Real(0.0, 1e-6), Float32()]
OF_POSITIVE: list[Scale] = [Positive(), Positive(640.0), Positive(1e-3), Positive(1e30)]


def keys_of(scale: Scale, *values: float) -> list[int]:
    return [int(key) for key in scale.keys(np.array(values, np.float32))]


@pytest.mark.parametrize("scale", OF_NUMBERS, ids=lambda scale: scale.name)
@given(values=st.lists(FLOATS, min_size=2, max_size=2))
def test_the_larger_never_has_the_smaller_key(scale: Scale, values: list[float]) -> None:
    low, high = keys_of(scale, *sorted(values))
    assert low <= high


@pytest.mark.parametrize("scale", [*OF_POSITIVE, Probability()], ids=lambda scale: scale.name)
@given(values=st.lists(st.floats(0, LARGEST, width=32), min_size=2, max_size=2))
def test_the_larger_never_has_the_smaller_key_from_0_on(scale: Scale, values: list[float]) -> None:
    values = [min(value, 1.0) for value in values] if scale.name == "probability" else values
    low, high = keys_of(scale, *sorted(values))
    assert low <= high


def spread(scale: Scale) -> NDArray[np.float32]:
    random = np.random.default_rng(0)
    values = 10 ** random.uniform(-30, 37, 50_000)
    if scale.name == "probability":
        return np.concatenate([values[values < 1], 1 - values[values < 0.1]]).astype(np.float32)
    signs = 1 if scale.name.startswith("positive") else random.choice([-1, 1], values.shape)
    return np.concatenate([signs * values, np.abs(random.normal(0, 5, 50_000))]).astype(np.float32)


@pytest.mark.parametrize("scale", [*OF_NUMBERS, *OF_POSITIVE, Probability()], ids=lambda scale: scale.name)
def test_a_score_of_each_key_has_that_key(scale: Scale) -> None:
    keys = np.unique(scale.keys(spread(scale)))
    scores = scale.scores(keys)
    assert np.all(np.diff(scores) > 0)
    np.testing.assert_array_equal(scale.keys(scores.astype(np.float32)), keys)


@pytest.mark.parametrize("scale", [*OF_NUMBERS, *OF_POSITIVE, Probability()], ids=lambda scale: scale.name)
def test_a_key_stands_for_scores_nearby(scale: Scale) -> None:
    """Where scores usually lie: within four units or octaves, to a five-hundredth of either."""
    tolerance: NDArray[np.float64] | float
    if isinstance(scale, Real):
        values = scale.centre + scale.unit * np.linspace(-4, 4, 999)
        tolerance = scale.unit / 500
    elif isinstance(scale, Positive):
        values = scale.unit * 2 ** np.linspace(-4, 4, 999)
        tolerance = values / 500
    else:
        values = np.linspace(0.001, 0.999, 999)
        tolerance = values * (1 - values) / 500
    rounded = scale.scores(scale.keys(values.astype(np.float32)))
    assert np.all(np.abs(rounded - values.astype(np.float32)) <= tolerance)


def test_the_ends_are_kept() -> None:
    assert len(set(keys_of(Real(), -LARGEST, -1e30, -1e10, -1e3, 1e3, 1e10, 1e30, LARGEST))) == 8
    assert len(set(keys_of(Positive(640.0), 0, 1e-37, 1e-30, 1e-10, 1.0, 1e10, 1e30, LARGEST))) == 8
    probabilities = [0, 1e-37, 1e-30, 1e-20, 1e-9, 0.5, 0.999, 0.9999, 1 - 2**-24, 1.0]
    assert len(set(keys_of(Probability(), *probabilities))) == len(probabilities)


@pytest.mark.parametrize(
    ("scale", "scores"),
    [
        (Real(), np.random.default_rng(0).normal(-8, 3, 300_000)),
        (Real(), -np.random.default_rng(1).gamma(4, 3, 300_000)),
        (Probability(), 1 / (1 + np.exp(np.random.default_rng(2).normal(9, 5, 300_000)))),
        (Probability(), 1 / (1 + np.exp(np.random.default_rng(3).normal(1, 1, 300_000)))),
        (Positive(20.0), np.random.default_rng(4).gamma(30, 1, 300_000)),
    ],
)
def test_the_largest_tie_is_below_a_thousandth(scale: Scale, scores: NDArray[np.float64]) -> None:
    _, counts = np.unique(scale.keys(scores.astype(np.float32)), return_counts=True)
    assert counts.max() / len(scores) < 0.001


def test_zeros_are_one() -> None:
    for scale in (Real(), Positive(), Probability(), Float16(), Float32()):
        assert len(set(keys_of(scale, 0.0, -0.0))) == 1


def test_float32_keys_are_ranks_of_the_numbers() -> None:
    values = np.array([-LARGEST, -1.5, -1e-45, 0.0, 1e-45, 1.5, 1.5000001, LARGEST], np.float32)
    keys = Float32().keys(values)
    assert keys.dtype == np.uint32
    assert np.all(np.diff(keys.astype(np.int64)) > 0)
    np.testing.assert_array_equal(Float32().scores(keys), values.astype(np.float64))


@pytest.mark.parametrize("scale", [Real(-8.0, 0.1), Positive(1e-3), Probability(), Float16(), Float32()])
def test_names_are_found_again(scale: Scale) -> None:
    assert scale_named(scale.name) == scale


@pytest.mark.parametrize("name", ["", "log", "real", "real:0:1:2", "positive:x", "float64"])
def test_unknown_names(name: str) -> None:
    if name in ("", "real"):
        assert scale_named(name) in (Float16(), Real())  # numbers that are not named are the default ones
        return
    with pytest.raises(ValueError, match="unknown scale of scores"):
        scale_named(name)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_has_no_key(bad: float) -> None:
    for scale in (Real(), Positive(), Probability(), Float16(), Float32()):
        with pytest.raises(ValueError, match="NaN or infinity"):
            scale.keys(np.array([0.5, bad], np.float32))


def test_what_lies_outside_of_a_scale() -> None:
    with pytest.raises(ValueError, match="negative: -1"):
        Positive().keys(np.array([-1, 2], np.float32))
    with pytest.raises(ValueError, match=r"outside of 0\.\.1"):
        Probability().keys(np.array([0.5, 1.01], np.float32))
    with pytest.raises(ValueError, match="must be float32"):
        Real().keys(np.array([0.5], np.float64))
