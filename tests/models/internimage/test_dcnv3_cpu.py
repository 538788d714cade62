"""The numba kernel against the formula."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from model_oracles import dcnv3_by_loops, golden_dcnv3, relative_error
from test_dcnv3 import DEFAULTS, GEOMETRIES, GOLDEN_CASES, Geometry, random_inputs
from torch import Tensor

from oodray.models.internimage import dcnv3 as dcnv3_module
from oodray.models.internimage.dcnv3_cpu import dcnv3_cpu


def run(inputs: tuple[Tensor, ...], dtype: torch.dtype, geometry: Geometry) -> Tensor:
    value, offset, mask = (tensor.to(dtype) for tensor in inputs)
    return dcnv3_cpu(value, offset, mask, **DEFAULTS | geometry)


def by_loops(inputs: tuple[Tensor, ...], geometry: Geometry) -> Tensor:
    return torch.from_numpy(dcnv3_by_loops(*(tensor.double().numpy() for tensor in inputs), **geometry))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("index", GOLDEN_CASES)
def test_golden_case(index: int) -> None:
    inputs, geometry, expected = golden_dcnv3(index)
    assert relative_error(run(inputs, torch.float32, geometry), expected) < 1e-6


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
def test_random_case(geometry: Geometry, dtype: torch.dtype, tolerance: float) -> None:
    # The inputs as the kernel gets them: what rounding them costs is not its affair.
    inputs = tuple(tensor.to(dtype) for tensor in random_inputs(geometry, group_channels=3, spread=3.0))
    out = run(inputs, dtype, geometry)
    expected = by_loops(inputs, geometry)
    assert (out.dtype, out.shape) == (dtype, expected.shape)
    assert relative_error(out, expected) < tolerance


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (6, 1), (2, 2)])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_narrow_maps(size: tuple[int, int], spread: float) -> None:
    inputs = random_inputs({"groups": 2}, size, spread=spread)
    assert relative_error(run(inputs, torch.float32, {"groups": 2}), by_loops(inputs, {"groups": 2})) < 1e-6


@pytest.mark.parametrize("group_channels", [16, 32])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.usefixtures("threads")
def test_the_widths_of_published_networks_on_some_threads(group_channels: int, count: int) -> None:
    inputs = random_inputs({"groups": 3}, (7, 11), group_channels=group_channels)
    torch.set_num_threads(1)
    alone = run(inputs, torch.float32, {"groups": 3})
    torch.set_num_threads(count)
    out = run(inputs, torch.float32, {"groups": 3})
    assert relative_error(out, by_loops(inputs, {"groups": 3})) < 1e-6
    assert torch.equal(out, alone)


def test_a_wide_map_loses_no_digits() -> None:
    inputs = tuple(tensor.float() for tensor in random_inputs({"groups": 1}, (3, 5000), batch=1))
    assert relative_error(run(inputs, torch.float32, {"groups": 1}), by_loops(inputs, {"groups": 1})) < 3e-7


def test_bfloat16_rounds_to_the_nearest() -> None:
    value, offset, mask = (tensor.bfloat16() for tensor in random_inputs({"groups": 2}, group_channels=16))
    exact = run((value, offset, mask), torch.float32, {"groups": 2})
    assert torch.equal(run((value, offset, mask), torch.bfloat16, {"groups": 2}), exact.bfloat16())


def test_dtypes_may_differ() -> None:
    value, offset, mask = random_inputs({"groups": 2})
    inputs = value.bfloat16(), offset.bfloat16(), mask.float()
    out = dcnv3_module.dcnv3(*inputs, groups=2)
    assert out.dtype == torch.bfloat16
    assert relative_error(out, by_loops(inputs, {"groups": 2})) < 4e-3


def test_inputs_that_are_not_contiguous() -> None:
    value, offset, mask = (tensor.float() for tensor in random_inputs({"groups": 2}))
    strided = value.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert torch.equal(
        run((strided, offset, mask), torch.float32, {"groups": 2}),
        run((value, offset, mask), torch.float32, {"groups": 2}),
    )


@pytest.mark.parametrize("far", [-3e9, 1e6, 1e15, float("inf")])
def test_points_far_outside_count_nothing(far: float) -> None:
    value, offset, mask = random_inputs({"groups": 2})
    assert not run((value, torch.full_like(offset, far), mask), torch.float32, {"groups": 2}).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_nan_stays_one(dtype: torch.dtype) -> None:
    value, offset, mask = random_inputs({"groups": 2}, batch=1)
    offset[0, 2, 3, 5] = torch.nan
    out = run((value, offset, mask), dtype, {"groups": 2})
    assert out.isnan().any(-1).nonzero().tolist() == [[0, 2, 3]]


def test_no_pixel_gives_no_pixel() -> None:
    assert run(random_inputs({"groups": 2}, batch=0), torch.float32, {"groups": 2}).shape == (0, 5, 7, 4)


class TestChoice:
    """`dcnv3` takes the kernel in inference, and the reference wherever that cannot serve."""

    @pytest.fixture
    def inputs(self) -> tuple[Tensor, ...]:
        return tuple(tensor.float() for tensor in random_inputs({"groups": 2}))

    @pytest.fixture
    def without_numba(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setitem(sys.modules, "numba", None)
        dcnv3_module._can_import.cache_clear()
        yield
        dcnv3_module._can_import.cache_clear()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
    def test_by_dtype(self, dtype: torch.dtype) -> None:
        expected = "numba" if dtype in (torch.float32, torch.bfloat16) else "reference"
        assert dcnv3_module.kernel_name(torch.device("cpu"), dtype) == expected

    def test_gradients_come_from_the_reference(self, inputs: tuple[Tensor, ...]) -> None:
        value, offset, mask = inputs
        value.requires_grad_()
        dcnv3_module.dcnv3(value, offset, mask, groups=2).sum().backward()  # type: ignore[no-untyped-call]
        assert value.grad is not None
        with torch.no_grad():
            found = dcnv3_module.dcnv3(value, offset, mask, groups=2)
        assert torch.equal(found, run(inputs, torch.float32, {"groups": 2}))

    @pytest.mark.usefixtures("without_numba")
    def test_without_numba_it_says_so_once(self, inputs: tuple[Tensor, ...], caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                out = dcnv3_module.dcnv3(*inputs, groups=2)
        assert relative_error(out, by_loops(inputs, {"groups": 2})) < 1e-5
        assert [record.message.partition(" (")[0] for record in caplog.records] == ["numba cannot be imported"]


@pytest.mark.soak
def test_the_second_process_does_not_compile(tmp_path: Path) -> None:
    script = """
import torch
from oodray.models.internimage.dcnv3_cpu import _loops, dcnv3_cpu
dcnv3_cpu(torch.ones(1, 4, 4, 2), torch.zeros(1, 4, 4, 18), torch.ones(1, 4, 4, 9), groups=1, kernel_size=3, stride=1,
          padding=1, dilation=1, offset_scale=1.0)
print(sum(_loops(2, 9, 9).stats.cache_hits.values()))
"""
    hits = [
        subprocess.run(
            [sys.executable, "-c", script],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
        ).stdout.strip()
        for _ in range(2)
    ]
    assert hits == ["0", "1"]
