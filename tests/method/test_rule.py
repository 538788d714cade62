from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from oodray.method.rule import exceeds, is_ood, ood_mask, upsample_nearest

SIZES = st.integers(1, 40)


def ids(height: int, width: int, seed: int = 0, high: int = 256) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, high, (height, width)).astype(np.uint8)


@given(SIZES, SIZES, SIZES, SIZES)
def test_upsample_takes_the_cell_that_holds_the_pixel_centre(h: int, w: int, height: int, width: int) -> None:
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


def test_upsample_repeats_cells_at_whole_factors_and_reads_views() -> None:
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
    """Two cells of three pixels each, tau = 1.5, T = 30 %: on the left one is unsure, on the right none."""
    confidence = np.array([[1.4, 2, 9, 1.5, 8, 8]], np.float16)
    clusters = upsample_nearest(np.array([[1, 0]], np.uint8), 1, 6)
    pixels = np.bincount(clusters.ravel())
    unsure = np.bincount(clusters.ravel(), weights=confidence.ravel().astype(np.float64) < 1.5).astype(np.int64)
    flagged = np.flatnonzero(exceeds(unsure, pixels, 0.3))
    assert ood_mask(clusters, flagged).tolist() == [[255, 255, 255, 0, 0, 0]]
