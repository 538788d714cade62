from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmcv.transforms import Resize
from numpy.typing import NDArray

# Before mmseg, which cannot be imported without a compiled mmcv until this has been.
import oodray.models.mmseg  # noqa: F401

# isort: split
from mmseg.datasets.transforms import ResizeToMultiple

from oodray.models.input_rule import InputRule

SIZES = [(720, 1280), (1024, 2048), (375, 1242), (512, 512), (64, 2000), (2000, 64), (333, 1000), (31, 47)]


def image_of(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("short", [512, 640])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_is_what_mmsegmentations_test_pipeline_does(height: int, width: int, short: int) -> None:
    image = image_of(height, width)
    results = {"img": image.copy(), "seg_fields": []}
    pipeline = (Resize(scale=(4 * short, short), keep_ratio=True), ResizeToMultiple(size_divisor=32))
    for transform in pipeline:
        results = transform(results)
    rule = InputRule(short, 4 * short)
    found = rule.apply(image)
    assert found.dtype == np.uint8
    assert found.shape[:2] == rule.input_size(height, width)
    np.testing.assert_array_equal(found, results["img"])


@given(st.integers(1, 8000), st.integers(1, 8000))
def test_sides_are_multiples_and_within_bounds(height: int, width: int) -> None:
    rule = InputRule(512, 2048)
    rows, columns = rule.input_size(height, width)
    assert rows % 32 == columns % 32 == 0
    assert 32 <= min(rows, columns) <= 512
    assert max(rows, columns) <= 2048
    # The sides keep their order, and one of the limits is met.
    assert (rows <= columns) == (height <= width) or rows == columns
    assert min(rows, columns) == 512 or max(rows, columns) == 2048


def test_an_image_of_the_right_size_is_left_alone() -> None:
    image = image_of(512, 1024)
    np.testing.assert_array_equal(InputRule(512, 2048).apply(image), image)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5000), (5000, 1)])
def test_the_thinnest_images_have_a_size(height: int, width: int) -> None:
    rule = InputRule(512, 2048)
    found = rule.apply(image_of(height, width))
    assert found.shape == (*rule.input_size(height, width), 3)
