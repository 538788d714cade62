from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from oodray.errors import ConfigError
from oodray.method.rule import MAX_DECIMALS, check_ood_ratios, exceeded, exceeds, is_ood, ood_mask, upsample_nearest
from oodray.metrics.curves import MAX_CLUSTER_PIXELS
from oodray.ranges import decimal_range

SIZES = st.integers(1, 40)


def ids(height: int, width: int, seed: int = 0, high: int = 256) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, high, (height, width)).astype(np.uint8)


@given(SIZES, SIZES, SIZES, SIZES)
def test_upsample_takes_the_id_where_the_pixel_centre_lies(h: int, w: int, height: int, width: int) -> None:
    clusters = ids(h, w)
    result = upsample_nearest(clusters, height, width)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    expected = [
        [
            clusters[int(Fraction(2 * y + 1, 2) * h / height), int(Fraction(2 * x + 1, 2) * w / width)]
            for x in range(width)
        ]
        for y in range(height)
    ]
    assert result.tolist() == expected


def test_upsample_of_the_same_size_is_a_copy() -> None:
    clusters = ids(5, 7)
    result = upsample_nearest(clusters, 5, 7)
    np.testing.assert_array_equal(result, clusters)
    assert not np.shares_memory(result, clusters)


def test_upsample_repeats_ids_at_whole_factors_and_reads_views() -> None:
    clusters = ids(12, 8)[::2, ::-1]
    np.testing.assert_array_equal(upsample_nearest(clusters, 24, 40), clusters.repeat(4, 0).repeat(5, 1))


def test_upsample_keeps_borders_exact_at_sizes_beyond_float32() -> None:
    result = upsample_nearest(np.array([[0, 1]], np.uint8), 1, 2**24 + 3)
    assert int((result == 0).sum()) == 2**23 + 1


@pytest.mark.parametrize(
    ("clusters", "height", "width"),
    [
        (ids(2, 2), 0, 2),
        (ids(2, 2), 2, -1),
        (np.zeros((0, 2), np.uint8), 2, 2),
        (np.zeros((2, 2, 1), np.uint8), 2, 2),
        (np.zeros((2, 2), np.int64), 2, 2),
    ],
)
def test_upsample_refuses(clusters: NDArray[Any], height: int, width: int) -> None:
    with pytest.raises(ValueError, match="clusters"):
        upsample_nearest(clusters, height, width)


def test_a_ratio_of_exactly_the_threshold_is_not_exceeded() -> None:
    assert Fraction(0.3) < Fraction(3, 10), "else this test shows nothing"
    for tenths in range(11):
        for scale in (1, 7, 10**5):
            assert not is_ood(tenths * scale, 10 * scale, tenths / 10)
            assert is_ood(tenths * scale + 1, 10 * scale + 1, tenths / 10) == (tenths < 10)


def test_thirds_are_compared_exactly() -> None:
    assert is_ood(1, 3, 0.333333333333)
    assert not is_ood(1, 3, 0.333333333334)
    assert not is_ood(1, 3, 1 / 3 + 1e-16)


@given(st.data())
def test_exceeds_compares_fractions(data: st.DataObject) -> None:
    pixels = data.draw(st.lists(st.integers(1, 2**40), min_size=1, max_size=5))
    unsure = [data.draw(st.integers(0, count)) for count in pixels]
    ood_ratio = data.draw(st.floats(0, 1) | st.sampled_from([0.3, 0.4, 0.1, 1e-300, 0.12345678901234567]))
    expected = [Fraction(u, p) > Fraction(str(ood_ratio)) for u, p in zip(unsure, pixels, strict=True)]
    assert exceeds(np.array(unsure), np.array(pixels), ood_ratio).tolist() == expected
    assert [is_ood(u, p, ood_ratio) for u, p in zip(unsure, pixels, strict=True)] == expected


def test_limits_of_the_threshold() -> None:
    assert is_ood(1, 2**26, 0.0)
    assert not is_ood(0, 5, 0.0)
    assert not is_ood(5, 5, 1.0)
    assert not is_ood(0, 0, 0.0), "no pixel, no ratio"


def test_numpy_numbers_are_as_good() -> None:
    assert not is_ood(np.int64(3), np.int64(10), np.float64(0.3))  # type: ignore[arg-type]
    assert is_ood(np.uint8(250), np.uint8(255), 0.9)  # type: ignore[arg-type]


@pytest.mark.parametrize("ood_ratio", [-0.1, 1.1, float("nan"), 30.0])
def test_a_threshold_out_of_range_is_refused(ood_ratio: float) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        is_ood(1, 2, ood_ratio)


@pytest.mark.parametrize(("unsure", "pixels"), [(3, 2), (-1, 2)])
def test_impossible_counts_are_refused(unsure: int, pixels: int) -> None:
    with pytest.raises(ValueError, match="unsure"):
        is_ood(unsure, pixels, 0.5)


def judged_one_by_one(unsure: list[int], pixels: list[int], ood_ratios: list[float]) -> list[int]:
    """What `exceeded` must say, by `exceeds`."""
    by_ratio = [exceeds(np.array(unsure), np.array(pixels), ood_ratio) for ood_ratio in ood_ratios]
    for weaker, stronger in pairwise(by_ratio):
        assert not np.any(stronger & ~weaker), "who exceeds a T exceeds those below it"
    return [int(count) for count in np.sum(by_ratio, axis=0)]


@given(st.data())
def test_a_sweep_judges_as_exceeds_does(data: st.DataObject) -> None:
    """Of random ratios, and of those that lie as near to a T as clusters of that size can."""
    digits = data.draw(st.integers(0, MAX_DECIMALS))
    chosen = data.draw(st.lists(st.integers(0, 10**digits), min_size=1, max_size=6, unique=True))
    ood_ratios = [share / 10**digits for share in sorted(chosen)]
    sizes = st.integers(1, MAX_CLUSTER_PIXELS) | st.integers(MAX_CLUSTER_PIXELS - 1000, MAX_CLUSTER_PIXELS)
    pixels = data.draw(st.lists(sizes, min_size=1, max_size=5))
    at = [int(Fraction(str(data.draw(st.sampled_from(ood_ratios)))) * count) for count in pixels]
    unsure = [min(count, at_t + data.draw(st.sampled_from([0, 0, 1]))) for at_t, count in zip(at, pixels, strict=True)]
    assert exceeded(np.array(unsure), np.array(pixels), ood_ratios).tolist() == judged_one_by_one(
        unsure, pixels, ood_ratios
    )


def test_the_nearest_misses_of_a_sweep_are_judged_as_fractions() -> None:
    """For each T the fractions of at most 2**26 pixels that are nearest to it, from below, at it and from above."""
    ood_ratios = [0.0, 0.00000001, 0.1, 0.3, 0.33333333, 0.49999999, 0.7, 0.9, 0.99999999, 1.0]
    unsure, pixels = [0, 1, MAX_CLUSTER_PIXELS - 1], [MAX_CLUSTER_PIXELS] * 3
    for ood_ratio in ood_ratios[1:-1]:
        exact = Fraction(str(ood_ratio))
        for near in (exact, Fraction(ood_ratio), exact + Fraction(1, 2**52), exact - Fraction(1, 2**52)):
            fraction = near.limit_denominator(MAX_CLUSTER_PIXELS)
            unsure.append(fraction.numerator)
            pixels.append(fraction.denominator)
    assert exceeded(np.array(unsure), np.array(pixels), ood_ratios).tolist() == judged_one_by_one(
        unsure, pixels, ood_ratios
    )


def test_every_small_ratio_at_every_hundredth() -> None:
    ood_ratios = decimal_range("0:1:0.01")
    unsure, pixels = zip(*((part, whole) for whole in range(1, 101) for part in range(whole + 1)), strict=True)
    found = exceeded(np.array(unsure, np.int32), np.array(pixels), ood_ratios)
    assert found.tolist() == judged_one_by_one(list(unsure), list(pixels), ood_ratios)


def test_no_cluster_exceeds_nothing() -> None:
    assert exceeded(np.array([], np.int64), np.array([], np.int64), [0.3]).tolist() == []


@pytest.mark.parametrize(("unsure", "pixels"), [(0, 0), (3, 2), (-1, 2), (0, MAX_CLUSTER_PIXELS + 1)])
def test_a_sweep_refuses_impossible_counts(unsure: int, pixels: int) -> None:
    with pytest.raises(ValueError, match="a cluster must have 1 to 67108864 pixels"):
        exceeded(np.array([unsure]), np.array([pixels]), [0.5])


def test_what_a_sweep_takes_for_t() -> None:
    check_ood_ratios([0, 0.5, 0.12345678, 1])
    for wrong, message in ((1.5, "T is a share from 0 to 1, not 1.5"), (0.123456789, "more than 8 decimals")):
        with pytest.raises(ConfigError, match=message):
            check_ood_ratios([0.5, wrong])


def test_mask_of_flagged_clusters() -> None:
    clusters = ids(20, 30, high=6)
    for flagged in ([], {5}, [0, 3], np.array([1, 2, 200]), range(6), np.array([], np.int64)):
        mask = ood_mask(clusters, flagged)
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, np.where(np.isin(clusters, list(flagged)), 255, 0))


@pytest.mark.parametrize("flagged", [[-1], [256], [0.5], np.array([True, False]), ["1"]])
def test_mask_refuses_what_is_no_cluster_id(flagged: Any) -> None:
    with pytest.raises(ValueError, match="cluster ids"):
        ood_mask(ids(2, 2), flagged)


def test_the_rule_on_a_small_image() -> None:
    """Two clusters of three pixels each, tau = 1.5, T = 30 %: on the left one is unsure, on the right none."""
    confidence = np.array([[1.4, 2, 9, 1.5, 8, 8]], np.float16)
    clusters = upsample_nearest(np.array([[1, 0]], np.uint8), 1, 6)
    pixels = np.bincount(clusters.ravel())
    unsure = np.bincount(clusters.ravel(), weights=confidence.ravel().astype(np.float64) < 1.5).astype(np.int64)
    flagged = np.flatnonzero(exceeds(unsure, pixels, 0.3))
    assert ood_mask(clusters, flagged).tolist() == [[255, 255, 255, 0, 0, 0]]
