"""Classes and probabilities beside true classes, against torch's softmax in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from oodray.errors import ImageError
from oodray.scores.maps import class_maps
from oodray.scores.queries import Queries
from oodray.scores.strips import strips

SIZE = (23, 31)
CLASSES = 5


def true_classes(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).choice([0, 1, 2, 3, 4, 255], SIZE).astype(np.uint8)


def compare(shares: NDArray[np.float64], found: Tensor | Queries, truth: NDArray[np.uint8]) -> None:
    maps = class_maps(found, truth)
    known = truth != 255
    one_hot = np.eye(CLASSES)[np.where(known, truth, 0)].transpose(2, 0, 1)
    assert maps.count == CLASSES
    np.testing.assert_array_equal(maps.predicted, shares.argmax(0))
    np.testing.assert_allclose(maps.confidence, shares.max(0), atol=2e-6)
    np.testing.assert_allclose(maps.squares[known], np.square(shares - one_hot).sum(0)[known], atol=4e-6)


@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
def test_of_logits_they_are_those_of_the_softmax(scale: float) -> None:
    logits = torch.randn(CLASSES, 7, 9, generator=torch.Generator().manual_seed(3)) * scale
    whole = interpolate(logits.double()[None], SIZE, mode="bilinear", align_corners=False)[0]
    compare(whole.softmax(0).numpy(), logits, true_classes(1))


def test_of_a_mask_classifier_they_are_shares_of_its_semantic_map() -> None:
    random = torch.Generator().manual_seed(5)
    queries = Queries(torch.randn(1, 6, CLASSES + 1, generator=random), torch.randn(1, 6, 5, 8, generator=random))
    semantic = torch.cat([strip.logits for strip in strips(queries, *SIZE)], 1).double().numpy()
    compare(semantic / semantic.sum(0), queries, true_classes(2))


def test_a_class_that_the_network_does_not_have_is_named() -> None:
    with pytest.raises(ImageError, match="names class 4, counted from 0, and the network has 3"):
        class_maps(torch.zeros(3, 2, 2), np.array([[4, 255]], np.uint8))
