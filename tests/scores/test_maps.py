from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from oodray.errors import ImageError
from oodray.scores import strips
from oodray.scores.maps import pixel_maps
from oodray.scores.registry import DEFAULT_SCORES, are_pixel_scores
from oodray.scores.registry import pixel_scores as scores_named

PIXEL_SCORES = (*are_pixel_scores(DEFAULT_SCORES), "gen")


def pixel_scores(logits: Tensor, height: int, width: int, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    found = pixel_maps(logits, height, width, scores_named(names))
    return {"confidence": found.confidence, **found.scores}


def random_logits(*shape: int, seed: int = 0, spread: float = 4.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * spread


def resized(logits: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Bilinear, pixel by pixel, straight from the definition: half-pixel centres, borders repeated."""

    def taps(old: int, new: int, position: int) -> tuple[int, int, float]:
        centre = max((position + 0.5) * old / new - 0.5, 0.0)
        low = min(int(centre), old - 1)
        return low, min(low + 1, old - 1), centre - low

    result = np.empty((len(logits), height, width))
    for y in range(height):
        top, bottom, down = taps(logits.shape[1], height, y)
        for x in range(width):
            left, right, along = taps(logits.shape[2], width, x)
            upper = (1 - along) * logits[:, top, left] + along * logits[:, top, right]
            lower = (1 - along) * logits[:, bottom, left] + along * logits[:, bottom, right]
            result[:, y, x] = (1 - down) * upper + down * lower
    return result


def expected_scores(logits: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The formulas in float64, with the probabilities sorted so that the winner is the last one."""
    peak = logits.max(0)
    weights = np.sort(np.exp(logits - peak), axis=0)
    probabilities = weights / weights.sum(0)
    logs = np.log(probabilities, where=probabilities > 0, out=np.zeros_like(probabilities))
    return {
        "confidence": peak,
        "max-logit": -peak,
        "msp": probabilities[:-1].sum(0),
        "entropy": -(probabilities * logs).sum(0),
        "energy": -peak - np.log(weights.sum(0)),
        "gen": ((probabilities[:-1] * (1 - probabilities[:-1])) ** 0.1).sum(0)
        + (probabilities[-1] * probabilities[:-1].sum(0)) ** 0.1,
    }


def assert_same_bits(actual: dict[str, NDArray[Any]], expected: dict[str, NDArray[Any]]) -> None:
    assert actual.keys() == expected.keys()
    for name, values in actual.items():
        np.testing.assert_array_equal(values.view(np.uint8), expected[name].view(np.uint8), err_msg=name)


def test_formulas_at_image_size() -> None:
    logits = random_logits(19, 40, 50)
    maps = pixel_scores(logits, 40, 50, PIXEL_SCORES)
    assert list(maps) == ["confidence", *PIXEL_SCORES]
    for name, expected in expected_scores(logits.numpy()).items():
        assert maps[name].dtype == (np.float16 if name == "confidence" else np.float32)
        np.testing.assert_allclose(maps[name], expected, rtol=2**-11 if name == "confidence" else 1e-6, err_msg=name)


@pytest.mark.parametrize("size", [(24, 32), (23, 31), (7, 40), (3, 4), (1, 1), (6, 8)])
def test_formulas_after_one_bilinear_step(size: tuple[int, int]) -> None:
    logits = random_logits(5, 6, 8)
    maps = pixel_scores(logits, *size, PIXEL_SCORES)
    for name, expected in expected_scores(resized(logits.numpy(), *size)).items():
        assert maps[name].shape == size
        np.testing.assert_allclose(maps[name], expected, rtol=2**-10, atol=1e-7, err_msg=name)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((3, 20, 30), (81, 119)), ((3, 20, 30), (11, 17)), ((2, 1, 1), (5, 6)), ((2, 1, 9), (4, 30))],
)
def test_resizing_is_that_of_torch(shape: tuple[int, int, int], size: tuple[int, int]) -> None:
    logits = random_logits(*shape)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        whole = torch.cat([strip.logits for strip in strips.strips(logits.to(dtype), *size)], dim=1)
        expected = F.interpolate(logits.to(dtype)[None], size=size, mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(whole, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rows", [1, 7, 64])
@pytest.mark.parametrize(
    ("shape", "size"), [((19, 33, 41), (130, 163)), ((19, 130, 163), (130, 163)), ((150, 90, 20), (70, 33))]
)
def test_the_height_of_a_strip_shows_in_no_bit(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int], size: tuple[int, int], rows: int
) -> None:
    logits = random_logits(*shape).float()
    monkeypatch.setattr(strips, "CPU_STRIP_BYTES", 2**40)
    assert len(list(strips.strips(logits, *size))) == 1
    whole = pixel_scores(logits, *size, PIXEL_SCORES)
    monkeypatch.setattr(strips, "CPU_STRIP_BYTES", rows * shape[0] * size[1] * 4)
    assert next(strips.strips(logits, *size)).logits.shape[1] == rows
    assert_same_bits(pixel_scores(logits, *size, PIXEL_SCORES), whole)


def test_strips_fit_the_memory_allowed() -> None:
    found = strips.strips(torch.zeros(150, 128, 171), 512, 683)
    sizes = [strip.logits.nelement() * strip.logits.element_size() for strip in found]
    assert len(sizes) > 1
    assert max(sizes) <= strips.CPU_STRIP_BYTES <= strips.STRIP_BYTES == 64 * 2**20


def test_a_row_larger_than_a_strip_is_a_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "CPU_STRIP_BYTES", 1)
    assert [tuple(strip.logits.shape) for strip in strips.strips(torch.zeros(2, 3, 4), 3, 4)] == [(2, 1, 4)] * 3


def test_max_logit_is_minus_the_confidence() -> None:
    maps = pixel_scores(random_logits(4, 30, 30).float(), 61, 59, ["max-logit"])
    np.testing.assert_array_equal(-maps["max-logit"].astype(np.float16), maps["confidence"])


def test_a_score_does_not_depend_on_the_others_asked_for() -> None:
    logits = random_logits(6, 9, 9).float()
    together = pixel_scores(logits, 20, 20, PIXEL_SCORES)
    for name in PIXEL_SCORES:
        alone = pixel_scores(logits, 20, 20, [name])
        assert_same_bits(alone, {key: together[key] for key in ("confidence", name)})
    assert list(pixel_scores(logits, 20, 20, [])) == ["confidence"]


def test_msp_keeps_digits_where_one_minus_the_maximum_has_none() -> None:
    logits = torch.tensor([[[12.0, 14.0]], [[0.0, 0.0]], [[0.0, -1.0]]])
    msp = pixel_scores(logits, 1, 2, ["msp"])["msp"][0]
    expected = [2 * math.exp(-12), math.exp(-14) + math.exp(-15)]
    np.testing.assert_allclose(msp.astype(float), expected, rtol=0.02, atol=3e-8)
    assert 1 - np.float16(1 - expected[0]) == 0


def test_msp_and_entropy_of_ties() -> None:
    maps = pixel_scores(torch.zeros(8, 1, 1), 1, 1, PIXEL_SCORES)
    assert maps["msp"] == 7 / 8
    assert maps["entropy"].item() == pytest.approx(math.log(8), rel=1e-7)
    assert maps["energy"].item() == pytest.approx(-math.log(8), rel=1e-7)
    assert maps["gen"].item() == pytest.approx(8 * (1 / 8 * 7 / 8) ** 0.1, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_certainty_gives_zero_not_nan(dtype: torch.dtype) -> None:
    logits = torch.tensor([[[60000.0, 3.0]], [[-60000.0, -math.inf]]], dtype=dtype)
    maps = pixel_scores(logits, 1, 2, PIXEL_SCORES)
    assert maps["msp"].tolist() == maps["entropy"].tolist() == [[0, 0]]
    assert maps["energy"].tolist() == [[-60000, -3]]


def test_one_class() -> None:
    maps = pixel_scores(random_logits(1, 3, 4), 6, 8, PIXEL_SCORES)
    assert not maps["msp"].any()
    assert not maps["entropy"].any()
    np.testing.assert_array_equal(maps["energy"], maps["max-logit"])


def test_zeros_are_positive() -> None:
    logits = torch.tensor([[[0.0, -0.0, 1e-9, -1e-9]]])
    for name, values in pixel_scores(logits, 1, 4, PIXEL_SCORES).items():
        assert not np.signbit(values[values == 0]).any(), name
        assert name in ("max-logit", "energy") or not values.any(), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_resized_in_float32(dtype: torch.dtype) -> None:
    logits = random_logits(5, 6, 7).to(dtype)
    assert_same_bits(pixel_scores(logits, 20, 20, PIXEL_SCORES), pixel_scores(logits.float(), 20, 20, PIXEL_SCORES))


def test_float64_is_rounded_once() -> None:
    """Just above the middle of two float16: by way of float32 it would land on the middle, and go down."""
    value = 1 + 2**-11 + 2**-40
    assert np.float16(np.float32(value)) == 1
    logits = torch.tensor([[[value]]], dtype=torch.float64)
    assert pixel_scores(logits, 1, 1, [])["confidence"] == 1 + 2**-10


def test_input_is_left_alone_whatever_its_strides() -> None:
    logits = random_logits(8, 6, 5).float()
    kept = logits.clone()
    expected = pixel_scores(logits, 16, 10, PIXEL_SCORES)
    assert torch.equal(logits, kept)
    strided = logits.permute(2, 1, 0).contiguous().permute(2, 1, 0).requires_grad_()
    assert_same_bits(pixel_scores(strided, 16, 10, PIXEL_SCORES), expected)
    same_size = pixel_scores(logits, 6, 5, PIXEL_SCORES)
    assert torch.equal(logits, kept)
    assert_same_bits(pixel_scores(strided, 6, 5, PIXEL_SCORES), same_size)


@settings(max_examples=50)
@given(st.lists(st.floats(-60000, 60000, width=32), min_size=1, max_size=12))
def test_any_finite_logits_have_finite_scores_in_range(values: list[float]) -> None:
    maps = pixel_scores(torch.tensor(values)[:, None, None], 1, 1, PIXEL_SCORES)
    for score in scores_named(PIXEL_SCORES):
        score.scale.keys(maps[score.name])
    classes = len(values)
    assert 0 <= float(maps["msp"].item()) <= (classes - 1) / classes + 1e-3
    assert 0 <= float(maps["entropy"].item()) <= math.log(classes) + 2e-3
    assert float(maps["energy"].item()) <= float(maps["max-logit"].item())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (math.nan, "NaN at 1 and infinite at 0 of 6"),
        (math.inf, "NaN at 0 and infinite at 1 of 6"),
        (65520.0, "NaN at 0 and infinite at 1 of 6.*65504.*float32"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_confidence_that_is_no_number_is_an_image_error(bad: float, message: str, dtype: torch.dtype) -> None:
    logits = random_logits(3, 2, 3).to(dtype)
    logits[1, 1, 2] = bad
    with pytest.raises(ImageError, match=f"confidence is {message}"):
        pixel_scores(logits, 2, 3, PIXEL_SCORES)


def test_a_pixel_without_any_class_is_an_image_error() -> None:
    with pytest.raises(ImageError, match="infinite at 4 of 4"):
        pixel_scores(torch.full((3, 2, 2), -math.inf), 2, 2, PIXEL_SCORES)


def test_one_broken_cell_breaks_a_resized_image() -> None:
    logits = random_logits(3, 4, 4).float()
    logits[2, 1, 1] = math.nan
    with pytest.raises(ImageError, match=r"NaN at [1-9]"):
        pixel_scores(logits, 16, 16, [])


def test_the_largest_float16_is_still_a_confidence() -> None:
    maps = pixel_scores(torch.tensor([[[65504.0]], [[-65504.0]]]), 1, 1, ["max-logit"])
    assert maps["confidence"] == 65504
    assert maps["max-logit"] == -65504


@pytest.mark.parametrize(
    ("logits", "height", "width", "names"),
    [
        (torch.zeros(2, 3), 2, 3, []),
        (torch.zeros(1, 2, 3, 4), 3, 4, []),
        (torch.zeros(0, 3, 4), 3, 4, []),
        (torch.zeros(2, 0, 4), 3, 4, []),
        (torch.zeros(2, 3, 4, dtype=torch.int32), 3, 4, []),
        (torch.zeros(2, 3, 4), 0, 4, []),
        (torch.zeros(2, 3, 4), 3, -4, []),
    ],
)
def test_arguments_out_of_range(logits: Tensor, height: int, width: int, names: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"logits|image|scores"):
        pixel_scores(logits, height, width, names)
