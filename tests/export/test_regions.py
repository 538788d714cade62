from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path
from numpy.typing import NDArray

from oodray.export.regions import Region, Ring, outlines, regions_of, run_lengths

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def whole(region: Region, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    left, top, width, height = region.box
    mask = np.zeros(shape, np.bool_)
    mask[top : top + height, left : left + width] = region.inside
    return mask


def filled(ring: Ring, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The pixels whose centre lies in a polygon."""
    rows, columns = np.indices(shape)
    centres = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
    return Path([*ring, ring[0]]).contains_points(centres).reshape(shape)


@given(MASKS)
def test_filled_outlines_are_the_regions(mask: NDArray[np.bool_]) -> None:
    found = regions_of(255 * mask.astype(np.uint8), mask.astype(np.float64))
    together = np.zeros(mask.shape, int)
    for region in found:
        outer, holes = outlines(region)
        inside = filled(outer, mask.shape)
        for hole in holes:
            inside &= ~filled(hole, mask.shape)
        np.testing.assert_array_equal(inside, whole(region, mask.shape))
        together += inside
    np.testing.assert_array_equal(together, mask)


@given(MASKS)
def test_run_lengths_unroll_to_the_region(mask: NDArray[np.bool_]) -> None:
    for region in regions_of(255 * mask.astype(np.uint8), np.ones(mask.shape)):
        lengths = run_lengths(region, *mask.shape)
        flat = np.repeat(np.arange(len(lengths)) % 2, lengths)
        np.testing.assert_array_equal(flat.reshape(mask.shape, order="F"), whole(region, mask.shape))
        assert sum(lengths[1::2]) == region.pixels


def test_regions_touching_at_a_corner_are_two() -> None:
    found = regions_of(np.array([[255, 0], [0, 255]], np.uint8), np.array([[0.25, 0], [0, 0.75]]))
    assert sorted((region.box, region.score) for region in found) == [((0, 0, 1, 1), 0.25), ((1, 1, 1, 1), 0.75)]


def test_an_outline_has_corners_alone() -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[2:7, 1:8] = 255
    mask[4, 4] = 0
    [region] = regions_of(mask, np.ones((9, 9)))
    outer, holes = outlines(region)
    assert sorted(outer) == [(1, 2), (1, 7), (8, 2), (8, 7)]
    assert [sorted(hole) for hole in holes] == [[(4, 4), (4, 5), (5, 4), (5, 5)]]
