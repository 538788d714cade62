from __future__ import annotations

from typing import Any

import pytest
import torch
from model_oracles import dcnv3_by_loops, golden_dcnv3, read_golden
from torch import Tensor

from oodray.models.internimage.dcnv3 import dcnv3, output_size

GOLDEN_CASES = range(9)
DEFAULTS: dict[str, Any] = {"kernel_size": 3, "stride": 1, "padding": 1, "dilation": 1, "offset_scale": 1.0}
"""Of the kernels, which take every setting."""

Inputs = tuple[Tensor, Tensor, Tensor]
Geometry = dict[str, Any]

GEOMETRIES: list[Geometry] = [
    {"groups": 1},
    {"groups": 3, "offset_scale": 2.0},
    {"groups": 2, "stride": 2, "offset_scale": 0.5},
    {"groups": 2, "dilation": 2, "padding": 2},
    {"groups": 1, "kernel_size": 5, "padding": 2},
    {"groups": 2, "kernel_size": 1, "padding": 0},
    {"groups": 1, "padding": 0},
    {"groups": 2, "kernel_size": 5, "padding": 3, "stride": 3, "dilation": 2, "offset_scale": 1.3},
]


def random_inputs(
    geometry: Geometry,
    size: tuple[int, int] = (5, 7),
    *,
    batch: int = 2,
    group_channels: int = 2,
    spread: float = 2.0,
    seed: int = 0,
) -> Inputs:
    """Random float64 inputs whose offsets have a standard deviation of `spread` pixels."""
    generator = torch.Generator().manual_seed(seed)
    groups, kernel = geometry["groups"], geometry.get("kernel_size", 3)
    out = [
        output_size(side, kernel, geometry.get("stride", 1), geometry.get("padding", 1), geometry.get("dilation", 1))
        for side in size
    ]

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    mask = normal(batch, *out, groups, kernel**2).softmax(-1).flatten(-2)
    return (
        normal(batch, *size, groups * group_channels),
        spread * normal(batch, *out, groups * kernel**2 * 2),
        mask,
    )


class TestAgainstTheReference:
    def test_no_golden_case_is_left_out(self) -> None:
        assert len(read_golden("dcnv3_op")) == len(GOLDEN_CASES)

    @pytest.mark.parametrize("index", GOLDEN_CASES)
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
    def test_golden_case(self, index: int, dtype: torch.dtype, tolerance: float) -> None:
        inputs, geometry, expected = golden_dcnv3(index)
        out = dcnv3(*(tensor.to(dtype) for tensor in inputs), **geometry)
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), expected, rtol=0, atol=tolerance)


class TestAgainstTheFormula:
    @pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
    @pytest.mark.parametrize("spread", [0.0, 1.5, 20.0])
    def test_random_case(self, geometry: Geometry, spread: float) -> None:
        value, offset, mask = random_inputs(geometry, spread=spread)
        expected = dcnv3_by_loops(value.numpy(), offset.numpy(), mask.numpy(), **geometry)
        torch.testing.assert_close(
            dcnv3(value, offset, mask, **geometry), torch.from_numpy(expected), rtol=0, atol=1e-12
        )

    @pytest.mark.parametrize("size", [(1, 1), (1, 6), (6, 1)])
    def test_narrow_maps(self, size: tuple[int, int]) -> None:
        value, offset, mask = random_inputs({"groups": 2}, size)
        expected = dcnv3_by_loops(value.numpy(), offset.numpy(), mask.numpy(), groups=2)
        torch.testing.assert_close(dcnv3(value, offset, mask, groups=2), torch.from_numpy(expected), rtol=0, atol=1e-12)


class TestSampling:
    """One group, the mask all on the centre point, so that the output is what this point meets."""

    def sample(self, value: Tensor, dx: float, dy: float) -> Tensor:
        offset = torch.zeros(1, *value.shape, 9, 2, dtype=value.dtype)
        mask = torch.zeros(1, *value.shape, 9, dtype=value.dtype)
        offset[..., 4, 0], offset[..., 4, 1], mask[..., 4] = dx, dy, 1
        return dcnv3(value[None, :, :, None], offset.flatten(-2), mask, groups=1)[0, ..., 0]

    @pytest.fixture
    def value(self) -> Tensor:
        return torch.arange(1.0, 13.0, dtype=torch.float64).reshape(3, 4)

    def test_offsets_are_x_before_y(self, value: Tensor) -> None:
        torch.testing.assert_close(self.sample(value, 1, 0)[:, :-1], value[:, 1:])
        torch.testing.assert_close(self.sample(value, 0, 1)[:-1], value[1:])

    def test_a_point_fades_out_within_one_pixel_of_the_edge(self, value: Tensor) -> None:
        torch.testing.assert_close(self.sample(value, -0.25, 0)[:, 0], 0.75 * value[:, 0])
        assert not self.sample(value, -1, 0)[:, 0].any()

    @pytest.mark.parametrize("far", [5.0, 1e3, 1e6, -1e6])
    def test_far_outside_there_is_nothing(self, value: Tensor, far: float) -> None:
        assert not self.sample(value, far, 0).any()
        assert not self.sample(value, 0, far).any()


class TestGradients:
    @pytest.mark.parametrize("geometry", [{"groups": 2}, {"groups": 1, "stride": 2, "offset_scale": 2.0}], ids=str)
    def test_of_value_offset_and_mask(self, geometry: Geometry) -> None:
        inputs = random_inputs(geometry, (2, 3), batch=1, group_channels=1, spread=0.7, seed=3)
        assert torch.autograd.gradcheck(
            lambda *tensors: dcnv3(*tensors, **geometry), tuple(tensor.requires_grad_() for tensor in inputs)
        )


class TestWrongShapes:
    @pytest.fixture
    def inputs(self) -> Inputs:
        return random_inputs({"groups": 2})

    @pytest.mark.parametrize("groups", [3, 0, -1])
    def test_groups_that_do_not_divide_the_channels(self, inputs: Inputs, groups: int) -> None:
        with pytest.raises(ValueError, match=rf"value must be .* {groups} groups"):
            dcnv3(*inputs, groups=groups)

    def test_value_without_a_batch(self, inputs: Inputs) -> None:
        value, offset, mask = inputs
        with pytest.raises(ValueError, match="value must be"):
            dcnv3(value[0], offset, mask, groups=2)

    def test_offset_of_another_size(self, inputs: Inputs) -> None:
        value, offset, mask = inputs
        with pytest.raises(ValueError, match=r"offset must be \(2, 5, 7, 36\), got \(2, 5, 6, 36\)"):
            dcnv3(value, offset[:, :, :-1], mask, groups=2)

    def test_mask_of_another_batch(self, inputs: Inputs) -> None:
        value, offset, mask = inputs
        with pytest.raises(ValueError, match="mask must be"):
            dcnv3(value, offset, mask[:1], groups=2)

    @pytest.mark.parametrize("other", [{"kernel_size": 5}, {"stride": 2}, {"padding": 0}, {"dilation": 2}], ids=str)
    def test_inputs_of_another_geometry(self, inputs: Inputs, other: Geometry) -> None:
        with pytest.raises(ValueError, match="offset must be"):
            dcnv3(*inputs, groups=2, **other)

    def test_a_map_smaller_than_the_kernel(self, inputs: Inputs) -> None:
        value, offset, mask = inputs
        with pytest.raises(ValueError, match="offset must be"):
            dcnv3(value[:, :2], offset, mask, groups=2, padding=0)


@pytest.mark.parametrize("size", [1, 2, 7, 8])
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), [(3, 1, 1, 1), (3, 2, 1, 1), (5, 3, 4, 2)])
def test_output_size_is_that_of_a_convolution(size: int, kernel: int, stride: int, padding: int, dilation: int) -> None:
    convolution = torch.nn.Conv1d(1, 1, kernel, stride, padding, dilation)
    assert output_size(size, kernel, stride, padding, dilation) == convolution(torch.zeros(1, 1, size)).shape[-1]
