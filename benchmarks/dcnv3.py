"""DCNv3 on a CPU: the numba kernel against PyTorch's `grid_sample`, at the four stages of InternImage-L."""

from __future__ import annotations

from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.timing import Comparison, compare
from oodray.models.internimage.dcnv3 import dcnv3

HEIGHT, WIDTH, GROUP_CHANNELS, POINTS = 512, 1024, 16, 9

Inputs = tuple[Tensor, Tensor, Tensor]


@torch.inference_mode()
def run() -> list[Comparison]:
    """Each stage in float32, and the first in bfloat16; the difference is the relative error to float64."""
    return [_compare(stage, torch.float32) for stage in range(4)] + [_compare(0, torch.bfloat16)]


def _compare(stage: int, dtype: torch.dtype) -> Comparison:
    groups = 10 * 2**stage
    inputs = _inputs(HEIGHT // (4 * 2**stage), WIDTH // (4 * 2**stage), groups, dtype)
    operator = partial(dcnv3, groups=groups, offset_scale=2.0)
    exact = operator(*(tensor.double() for tensor in inputs))

    def reference() -> Tensor:
        with patch("oodray.models.internimage.dcnv3.kernel_name", return_value="reference"):
            return operator(*(tensor.float() for tensor in inputs))

    return compare(
        f"DCNv3, stage {stage + 1} of L at {HEIGHT}x{WIDTH}, {str(dtype).removeprefix('torch.')}",
        ours=("numba", lambda: operator(*inputs)),
        theirs=("grid_sample, float32", reference),
        difference=lambda found, _: float((found.double() - exact).norm() / exact.norm()),
    )


def _inputs(height: int, width: int, groups: int, dtype: torch.dtype) -> Inputs:
    """Offsets have a standard deviation of a pixel before the network's factor of 2."""
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(1, height, width, groups * GROUP_CHANNELS, generator=generator)
    offset = torch.randn(1, height, width, groups * POINTS * 2, generator=generator)
    mask = torch.randn(1, height, width, groups, POINTS, generator=generator).softmax(-1).flatten(-2)
    return value.to(dtype), offset.to(dtype), mask.to(dtype)
