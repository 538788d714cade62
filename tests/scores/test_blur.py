from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import conv2d, pad

from oodray.scores.blur import blurred


def as_torchvision_does(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """`GaussianBlur(7, sigma=1)`: a kernel of 7x7 over a map with mirrored borders."""
    line = torch.exp(-0.5 * torch.linspace(-3, 3, 7) ** 2)
    kernel = torch.outer(line / line.sum(), line / line.sum())
    padded = pad(torch.from_numpy(scores)[None, None], [3, 3, 3, 3], mode="reflect")
    return np.asarray(conv2d(padded, kernel[None, None])[0, 0])


@pytest.mark.parametrize("shape", [(4, 4), (9, 30), (64, 5)])
def test_it_is_that_of_torchvision(shape: tuple[int, int]) -> None:
    scores = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(blurred(scores), as_torchvision_does(scores), atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 50)])
def test_small_maps_are_blurred_too(shape: tuple[int, int]) -> None:
    found = blurred(np.full(shape, 2.5, np.float32))
    assert found.shape == shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 2.5)


def test_shares_stay_shares() -> None:
    ones = np.ones((40, 40), np.float32)
    assert blurred(ones).max() <= 1
    assert blurred(ones * 0).min() >= 0
