"""The Triton kernel against the formula: under Triton's interpreter on a CPU, compiled where there is a GPU."""

from __future__ import annotations

import pytest
import torch
from model_oracles import dcnv3_by_loops, golden_dcnv3, relative_error
from test_dcnv3 import DEFAULTS, GEOMETRIES, GOLDEN_CASES, Geometry, random_inputs

# conftest.py turns the interpreter on where there is no GPU.
pytest.importorskip("triton", reason="Triton is not installed: pip install 'oodray[triton]'")

from oodray.models.internimage import dcnv3 as dcnv3_module
from oodray.models.internimage.dcnv3_cuda import dcnv3_cuda

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def run(inputs: tuple[torch.Tensor, ...], dtype: torch.dtype, geometry: Geometry) -> torch.Tensor:
    value, offset, mask = (tensor.to(DEVICE, dtype) for tensor in inputs)
    return dcnv3_cuda(value, offset, mask, **DEFAULTS | geometry).cpu()


@pytest.mark.parametrize("index", GOLDEN_CASES)
def test_golden_case(index: int) -> None:
    inputs, geometry, expected = golden_dcnv3(index)
    assert relative_error(run(inputs, torch.float32, geometry), expected) < 1e-6


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 1e-2)])
def test_random_case(geometry: Geometry, dtype: torch.dtype, tolerance: float) -> None:
    # The inputs as the kernel gets them: what rounding them costs is not its affair.
    inputs = tuple(tensor.to(dtype).double() for tensor in random_inputs(geometry, group_channels=3, spread=3.0))
    expected = torch.from_numpy(dcnv3_by_loops(*(tensor.numpy() for tensor in inputs), **geometry))
    out = run(inputs, dtype, geometry)
    assert (out.dtype, out.shape) == (dtype, expected.shape)
    assert relative_error(out, expected) < tolerance


@pytest.mark.parametrize("group_channels", [16, 32])
def test_the_widths_of_published_networks(group_channels: int) -> None:
    inputs = random_inputs({"groups": 3}, (7, 11), group_channels=group_channels)
    expected = torch.from_numpy(dcnv3_by_loops(*(tensor.numpy() for tensor in inputs), groups=3))
    assert relative_error(run(inputs, torch.float32, {"groups": 3}), expected) < 1e-6


@pytest.mark.parametrize("far", [-3e9, 1e6, 1e15])
def test_points_far_outside_count_nothing(far: float) -> None:
    value, offset, mask = random_inputs({"groups": 2})
    assert not run((value, torch.full_like(offset, far), mask), torch.float32, {"groups": 2}).any()


def test_a_nan_stays_one() -> None:
    value, offset, mask = random_inputs({"groups": 2}, batch=1)
    offset[0, 2, 3, 5] = torch.nan
    out = run((value, offset, mask), torch.float32, {"groups": 2})
    assert out.isnan().any(-1).nonzero().tolist() == [[0, 2, 3]]


def test_no_pixel_gives_no_pixel() -> None:
    value, offset, mask = random_inputs({"groups": 2}, batch=0)
    assert run((value, offset, mask), torch.float32, {"groups": 2}).shape == (0, 5, 7, 4)


class TestChoice:
    """`dcnv3` takes the kernel in inference on CUDA, and the reference wherever that cannot serve."""

    @pytest.fixture
    def as_on_cuda(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dcnv3_module, "kernel_name", lambda *_: "triton")

    def test_the_kernel_computes_the_same(self, as_on_cuda: None) -> None:
        geometry = GEOMETRIES[-1]
        inputs = tuple(tensor.float().to(DEVICE) for tensor in random_inputs(geometry))
        expected = torch.from_numpy(dcnv3_by_loops(*(tensor.double().cpu().numpy() for tensor in inputs), **geometry))
        assert relative_error(dcnv3_module.dcnv3(*inputs, **geometry).cpu(), expected) < 1e-6

    def test_gradients_come_from_the_reference(self, as_on_cuda: None) -> None:
        value, offset, mask = (tensor.to(DEVICE) for tensor in random_inputs({"groups": 2}))
        value.requires_grad_()
        dcnv3_module.dcnv3(value, offset, mask, groups=2).sum().backward()  # type: ignore[no-untyped-call]
        assert value.grad is not None
        assert value.grad.any()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
    def test_by_dtype(self, dtype: torch.dtype) -> None:
        expected = "reference" if dtype == torch.float64 else "triton"
        assert dcnv3_module.kernel_name(torch.device("cuda"), dtype) == expected
