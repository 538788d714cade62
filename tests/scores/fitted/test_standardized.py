"""Standardized max-logits against numpy and scipy, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fitted_images import CLASSES, fitted, image, images
from numpy.typing import NDArray
from scipy import ndimage

from oodray.scores.fitted.standardized import (
    boundaries,
    dilated_smoothing,
    fit_standardized,
    smoothed,
    standardized,
    suppress_boundaries,
)
from oodray.scores.fitted.sums import LogitMaps, Sums


def test_a_pixel_is_standardized_by_its_predicted_class() -> None:
    found = images()
    parameters = fit_standardized(fitted(found)[0])
    m = np.stack([one.maps().m for one in found]).astype(np.float64)
    classes = np.stack([one.maps().classes for one in found])
    new = image(77).maps()
    scores = standardized(torch.from_numpy(new.m), torch.from_numpy(new.classes), parameters).numpy()
    expected = np.zeros(new.m.shape)
    for of_class in range(CLASSES):
        there, known = new.classes == of_class, m[classes == of_class]
        expected[there] = -(new.m[there] - known.mean()) / known.std()
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    assert parameters.pooled == ()


def test_a_class_without_a_pixel_has_the_statistics_of_all() -> None:
    maps = LogitMaps(
        np.array([[1, 2, 3, 4]], np.float32), np.zeros((1, 4), np.float32), np.array([[0, 0, 0, 2]], np.int16)
    )
    few = Sums.of(maps, image(1).positions(), CLASSES)
    parameters = fit_standardized(few)
    assert parameters.pooled == (1, 2, 3, 4)
    np.testing.assert_allclose(parameters.means, [2, 2.5, 2.5, 2.5, 2.5])
    np.testing.assert_allclose(parameters.deviations, [np.std([1, 2, 3]), *[np.std([1, 2, 3, 4])] * 4])


def test_one_value_everywhere_cannot_be_standardized() -> None:
    maps = LogitMaps(np.full((2, 2), 3, np.float32), np.zeros((2, 2), np.float32), np.zeros((2, 2), np.int16))
    with pytest.raises(ValueError, match="no deviation over 4 pixels"):
        fit_standardized(Sums.of(maps, image(1).positions(), CLASSES))


def labels(seed: int, height: int, width: int) -> NDArray[np.int16]:
    """Blobs of classes, with boundaries of every direction, and a pixel of its own class."""
    noise = np.random.default_rng(seed).standard_normal((4, height, width))
    found: NDArray[np.int16] = np.argmax([ndimage.gaussian_filter(plane, 4) for plane in noise], 0).astype(np.int16)
    found[height // 2, width // 2] = 9
    return found


@pytest.mark.parametrize("width", [1, 2, 4])
def test_boundaries_are_pixels_near_another_class(width: int) -> None:
    classes = labels(0, 24, 30)
    rows, columns = np.indices(classes.shape).reshape(2, -1)
    flat = classes.ravel()
    near = np.abs(rows[:, None] - rows) + np.abs(columns[:, None] - columns) <= width
    expected = (near & (flat[:, None] != flat)).any(1).reshape(classes.shape)
    np.testing.assert_array_equal(boundaries(torch.from_numpy(classes), width).numpy(), expected)


def plain_suppression(scores: NDArray[np.float64], classes: NDArray[np.int16]) -> NDArray[np.float64]:
    """As the paper has it, one pixel after the other."""
    height, width = classes.shape
    for reach in (4, 3, 2, 1):
        edge = boundaries(torch.from_numpy(classes), reach).numpy()
        before = scores.copy()
        for row, column in np.argwhere(edge):
            around = [
                (min(max(row + dy, 0), height - 1), min(max(column + dx, 0), width - 1))
                for dy in (-1, 0, 1)
                for dx in (-1, 0, 1)
            ]
            inner = [before[at] for at in around if not edge[at]]
            if inner:
                scores[row, column] = np.mean(inner)
    return scores


def test_boundaries_are_filled_in_from_the_inside() -> None:
    classes, scores = labels(1, 24, 30), np.random.default_rng(2).standard_normal((24, 30))
    found = suppress_boundaries(torch.from_numpy(scores), torch.from_numpy(classes)).numpy()
    np.testing.assert_allclose(found, plain_suppression(scores.copy(), classes), rtol=1e-12, atol=1e-12)
    assert np.abs(found - scores).max() > 0.5


def test_smoothing_is_a_dilated_gaussian() -> None:
    scores = np.random.default_rng(2).standard_normal((40, 25))
    offsets = np.arange(-3, 4)
    taps = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / 2)
    kernel = np.zeros((37, 37))
    kernel[::6, ::6] = taps / taps.sum()
    expected = ndimage.correlate(scores, kernel, mode="nearest")
    np.testing.assert_allclose(dilated_smoothing(torch.from_numpy(scores)).numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (3, 2)])
def test_tiny_images_are_smoothed_as_well(height: int, width: int) -> None:
    scores, classes = torch.full((height, width), 2.5), torch.arange(height * width).view(height, width)
    torch.testing.assert_close(smoothed(scores, classes), scores)
