"""What a GPU makes of it: `make bench-gpu`, or `python -m benchmarks.gpu --out FILE`; needs torch and triton alone.

Correctness comes first: the kernel against the reference in float64. Then medians of repeated runs, by the GPU's clock.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from oodray.method.kmeans import kmeans
from oodray.models.internimage.backbone import InternImage
from oodray.models.internimage.dcnv3 import dcnv3
from oodray.models.internimage.dcnv3_cuda import dcnv3_cuda

BACKBONES: dict[str, dict[str, Any]] = {
    "B": {"channels": 112, "depths": (4, 4, 21, 4), "groups": (7, 14, 28, 56), "offset_scale": 1.0},
    "L": {"channels": 160, "depths": (5, 5, 22, 5), "groups": (10, 20, 40, 80), "offset_scale": 2.0},
}
SIZES = ((1024, 2048), (640, 2560))
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOLERANCE = {"float32": 1e-6, "bfloat16": 1e-2, "float16": 1e-3}
WARM_UP = 0.5
OPERATOR = {"kernel_size": 3, "stride": 1, "padding": 1, "dilation": 1}

Row = tuple[str, ...]
Inputs = tuple[Tensor, Tensor, Tensor]


def main() -> None:
    """Check, measure, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("RESULTS-GPU.md"))
    out = parser.parse_args().out
    bandwidth, peak = copy_bandwidth(), matmul_rate()
    sections = [
        _heading(bandwidth, peak),
        _table("DCNv3 against the reference in float64, relative error", ("shape", *DTYPES), check_operator()),
        _table(
            "DCNv3 at the stages of L, 1024x2048",
            ("stage, dtype", "Triton, ms", "grid_sample, ms", "ratio", "GB/s", "share of the copy rate"),
            time_operator(bandwidth),
        ),
        _table(
            "The backbone with random weights, one image at a time",
            ("network, size", "bfloat16, Triton", "float32, Triton", "float32, grid_sample", "ratio", "GiB"),
            time_backbones(),
        ),
        _table(
            "K-Means in torch, n_init = 4",
            ("points", "K", "ms", "inertia on the GPU over the CPU's"),
            time_kmeans(),
        ),
    ]
    out.write_text("\n".join(sections), encoding="utf-8")
    print("\n".join(sections))


def check_operator() -> list[Row]:
    """Relative error of the kernel by shape and dtype, far points and odd sizes among them.

    Raises:
        AssertionError: if one is too large.
    """
    rows = []
    for size, groups, width, spread in (((37, 53), 3, 16, 2.0), ((64, 96), 5, 32, 8.0), ((3, 70), 2, 16, 12.0)):
        errors = {}
        for name, dtype in DTYPES.items():
            inputs = operator_inputs(*size, groups=groups, group_channels=width, dtype=dtype, spread=spread)
            expected = dcnv3(*(tensor.double() for tensor in inputs), groups=groups, offset_scale=2.0)
            found = dcnv3_cuda(*inputs, groups=groups, offset_scale=2.0, **OPERATOR).double()
            errors[name] = float((found - expected).norm() / expected.norm())
            assert errors[name] < TOLERANCE[name], (size, name, errors[name])
        rows.append((f"{size[0]}x{size[1]}, {groups} x {width}", *(f"{errors[name]:.1e}" for name in DTYPES)))
    return rows


def time_operator(bandwidth: float) -> list[Row]:
    """The kernel and the reference at the four stages of L; bytes are counted once for each value."""
    rows = []
    for stage in range(4):
        stride, groups = 4 * 2**stage, 10 * 2**stage
        for name in ("bfloat16", "float32"):
            inputs = operator_inputs(
                1024 // stride, 2048 // stride, groups=groups, group_channels=16, dtype=DTYPES[name], spread=1.0
            )
            ours = seconds(partial(dcnv3_cuda, *inputs, groups=groups, offset_scale=2.0, **OPERATOR))
            with reference_operator():
                theirs = seconds(partial(dcnv3, *inputs, groups=groups, offset_scale=2.0))
            moved = sum(tensor.nbytes for tensor in inputs) + inputs[0].nbytes
            rate = moved / ours
            rows.append(
                (
                    f"{stage + 1}, {name}",
                    f"{1e3 * ours:.3f}",
                    f"{1e3 * theirs:.3f}",
                    f"**{theirs / ours:.1f}x**",
                    f"{rate / 1e9:.0f}",
                    f"{rate / bandwidth:.0%}",
                )
            )
    return rows


def time_backbones() -> list[Row]:
    """Images per second of B and L, random weights with offsets of about a pixel."""
    rows = []
    for letter, settings in BACKBONES.items():
        for height, width in SIZES:
            network = InternImage(**settings, layer_scale=1.0, post_norm=True).cuda().eval()
            randomize_offsets(network)
            image = torch.randn(1, 3, height, width, device="cuda")
            torch.cuda.reset_peak_memory_stats()
            with torch.inference_mode():
                forward = partial(network, image)
                float32 = seconds(forward)
                with torch.autocast("cuda", torch.bfloat16):
                    bfloat16 = seconds(forward)
                memory = torch.cuda.max_memory_allocated() / 2**30
                with reference_operator():
                    slow = seconds(forward)
            rows.append(
                (
                    f"InternImage-{letter}, {width}x{height}",
                    *(f"{1 / time:.1f} images/s" for time in (bfloat16, float32, slow)),
                    f"**{slow / bfloat16:.1f}x**",
                    f"{memory:.1f}",
                )
            )
    return rows


def time_kmeans() -> list[Row]:
    """Our K-Means on the GPU, and what its inertia is of that on the CPU."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(12, 640, generator=generator)
    points = centres[torch.randint(12, (8192,), generator=generator)] + torch.randn(8192, 640, generator=generator)
    on_gpu = points.cuda()
    rows = []
    for k in (3, 5, 10):
        labels = kmeans(on_gpu, k, seed=0, backend="torch"), kmeans(points, k, seed=0, backend="torch")
        gpu, cpu = (inertia(points, torch.as_tensor(found).cpu().long(), k) for found in labels)
        elapsed = seconds(partial(kmeans, on_gpu, k, seed=0, backend="torch"))
        rows.append(("8,192 x 640", str(k), f"{1e3 * elapsed:.1f}", f"{gpu / cpu:.6f}"))
    return rows


def operator_inputs(
    height: int, width: int, *, groups: int, group_channels: int, dtype: torch.dtype, spread: float
) -> Inputs:
    """Value, offset and mask on the GPU; offsets have a standard deviation of `spread` pixels."""
    torch.manual_seed(0)
    value = torch.randn(1, height, width, groups * group_channels, device="cuda")
    offset = spread * torch.randn(1, height, width, groups * 18, device="cuda")
    mask = torch.randn(1, height, width, groups, 9, device="cuda").softmax(-1).flatten(-2)
    return value.to(dtype), offset.to(dtype), mask.to(dtype)


def reference_operator() -> AbstractContextManager[object]:
    """Within it, `dcnv3` is plain PyTorch."""
    return patch("oodray.models.internimage.dcnv3.kernel_name", return_value="reference")


def randomize_offsets(network: InternImage) -> None:
    """Fresh networks sample a fixed grid; here the points move by about a pixel, as in trained ones."""
    for name, parameter in network.named_parameters():
        if "offset.weight" in name:
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)


def inertia(points: Tensor, labels: Tensor, k: int) -> float:
    """Sum of squared distances to the mean of each point's cluster."""
    groups = (points[labels == cluster] for cluster in range(k))
    return sum(float((group - group.mean(0)).square().sum()) for group in groups if len(group))


def copy_bandwidth() -> float:
    """Bytes per second of a large copy, read and written."""
    source = torch.randn(2**28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source))


def matmul_rate() -> float:
    """Floating-point operations per second of a large bfloat16 product."""
    size = 8192
    left, right = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / seconds(lambda: left @ right)


def seconds(call: Callable[[], object], repeats: int = 20) -> float:
    """Median seconds of a call on the GPU, after `WARM_UP` seconds of it: an idle GPU runs at a lower clock."""
    start_of_warm_up = time.perf_counter()
    while time.perf_counter() - start_of_warm_up < WARM_UP:
        call()
        torch.cuda.synchronize()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return sorted(times)[repeats // 2]


def _heading(bandwidth: float, peak: float) -> str:
    return (
        "# Benchmarks on a GPU\n\n"
        f"Written by `make bench-gpu` on {torch.cuda.get_device_name()}, torch {torch.__version__}. Medians by CUDA "
        f"events. A large copy moves {bandwidth / 1e12:.2f} TB/s, an 8192 x 8192 bfloat16 product runs at "
        f"{peak / 1e12:.0f} TFLOP/s. The official CUDA operator was not built here.\n"
    )


def _table(title: str, header: Row, rows: list[Row]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (header, tuple("---" for _ in header), *rows)]
    return "\n".join([f"## {title}\n", *lines, ""])


if __name__ == "__main__":
    main()
