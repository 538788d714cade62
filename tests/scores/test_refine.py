"""Filters along edges, beside float64 restatements that look at every window by itself."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from oodray.errors import ConfigError
from oodray.scores.edge_filters import CELL, COLOUR_SIGMA, cell_means, guided_filter, joint_bilateral_upsampling
from oodray.scores.refine import refined

SIZES = [(23, 31), (1, 9), (40, 3)]


def luma(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = image.astype(np.float64) @ np.array([0.299, 0.587, 0.114]) / 255
    return found


def windows(values: NDArray[np.float64], radius: int) -> NDArray[np.float64]:
    """The mean of the window around every pixel, one window after the other."""
    height, width = values.shape
    return np.array(
        [
            [
                values[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1].mean()
                for x in range(width)
            ]
            for y in range(height)
        ]
    )


def drawn(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    random = np.random.default_rng(height)
    image = random.integers(0, 256, (height, width, 3)).astype(np.uint8)
    image[: height // 2] //= 8  # a dark half
    return (100 + random.normal(0, 3, (height, width))).astype(np.float32), image


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("radius", [1, 8])
def test_the_guided_filter_is_its_definition(size: tuple[int, int], radius: int) -> None:
    values, image = drawn(*size)
    p, light = values.astype(np.float64), luma(image)
    mean_light, mean = windows(light, radius), windows(p, radius)
    covariance = windows(light * p, radius) - mean_light * mean
    slope = covariance / (windows(light * light, radius) - mean_light**2 + 1e-3)
    expected = windows(slope, radius) * light + windows(mean - slope * mean_light, radius)
    np.testing.assert_allclose(guided_filter(values, image, radius), expected, rtol=2e-7)


def test_a_step_of_the_image_stays_one_of_the_map() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, 16:] = 255
    step = np.where(np.arange(32) < 16, 0.0, 1.0) * np.ones((32, 1))
    noisy = (step + np.random.default_rng(0).normal(0, 0.3, step.shape)).astype(np.float32)
    refined = guided_filter(noisy, image, 8)
    assert np.abs(refined - step).max() < 0.15
    shifted = guided_filter(noisy + np.float32(7), image, 8)
    np.testing.assert_allclose(shifted, refined + 7, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_bilateral_upsampling_is_its_definition(size: tuple[int, int]) -> None:
    values, image = drawn(*size)
    planes = np.stack([cell_means(values), -(cell_means(values) ** 2)])
    grid, (height, width) = planes.shape[1:], size
    colours = np.stack([by_cells(image[..., channel], grid) for channel in range(3)], -1)
    expected = np.empty((2, height, width))
    for y in range(height):
        for x in range(width):
            at = ((y + 0.5) * grid[0] / height - 0.5, (x + 0.5) * grid[1] / width - 0.5)
            weights = np.zeros(grid)
            for row in range(max(0, round(at[0]) - 2), min(grid[0], round(at[0]) + 3)):
                for column in range(max(0, round(at[1]) - 2), min(grid[1], round(at[1]) + 3)):
                    near = np.exp(-0.5 * ((row - at[0]) ** 2 + (column - at[1]) ** 2))
                    apart = np.square((image[y, x].astype(float) - colours[row, column]) / 255).sum()
                    weights[row, column] = near * (np.exp(-apart / (2 * COLOUR_SIGMA**2)) + 1e-6)
            expected[:, y, x] = (planes * weights).sum((1, 2)) / weights.sum()
    found = joint_bilateral_upsampling(planes.astype(np.float32), image)
    # Weights of colour come from a table, whose steps are 5 % apart at most.
    spread = planes.max((1, 2)) - planes.min((1, 2)) + 1e-3
    assert (np.abs(found - expected).max((1, 2)) < 0.05 * spread).all()
    assert np.array_equal(joint_bilateral_upsampling(planes[0].astype(np.float32), image), found[0])


def by_cells(values: NDArray[np.uint8], grid: tuple[int, int]) -> NDArray[np.float64]:
    height, width = values.shape
    rows, columns = np.arange(height) * grid[0] // height, np.arange(width) * grid[1] // width
    return np.array(
        [[values[np.ix_(rows == row, columns == column)].mean() for column in range(grid[1])] for row in range(grid[0])]
    )


def test_cells_cover_the_map() -> None:
    values = np.arange(3 * CELL * 2 * CELL, dtype=np.float32).reshape(3 * CELL, 2 * CELL)
    expected = values.reshape(3, CELL, 2, CELL).mean((1, 3))
    np.testing.assert_allclose(cell_means(values), expected)


def test_what_an_option_means() -> None:
    values, image = drawn(23, 31)
    assert np.array_equal(refined(values, image, "guided:3"), guided_filter(values, image, 3))
    upsampled = joint_bilateral_upsampling(cell_means(values), image, 1)
    assert np.array_equal(refined(values, image, "bilateral:1"), upsampled)
    assert refined(values, image, None) is values
    for wrong in ("guide", "guided:", "guided:0", "guided:x", "guided:-1", "guided:257", ""):
        with pytest.raises(ConfigError, match="refine must be guided or bilateral"):
            refined(values, image, wrong)


def test_a_map_of_another_size_is_refused() -> None:
    values, image = drawn(23, 31)
    with pytest.raises(ValueError, match="a map"):
        guided_filter(values[1:], image, 2)
