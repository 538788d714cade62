"""What the networks are compared with: golden networks of the reference, and DCNv3's formula as loops."""

from __future__ import annotations

import hashlib
import math
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodray.config import config_root

# Networks as small as those of the tests are faster without threads, by far on a busy machine.
torch.set_num_threads(1)

GOLDENS = Path(__file__).parent / "models" / "goldens"
BASE_CONFIG = config_root() / "models" / "_base_" / "upernet_internimage.py"

SPREADS = {
    "offset.weight": 2.0,
    "offset.bias": 0.7,
    "mask.weight": 1.5,
    "mask.bias": 0.5,
    "center_feature_scale_proj_bias": 0.5,
}

Floats = NDArray[np.float64]
Config = dict[str, Any]


@cache
def read_golden(name: str) -> Any:
    return torch.load(GOLDENS / f"golden_{name}.pt", weights_only=True)


def golden_dcnv3(index: int) -> tuple[tuple[Tensor, Tensor, Tensor], dict[str, Any], Tensor]:
    """A golden case of the operator: value, offset and mask; the geometry; the output in float64."""
    case = read_golden("dcnv3_op")[index]
    geometry = {
        "groups": case["group"],
        "kernel_size": case["kernel"],
        "stride": case["stride"],
        "padding": case["pad"],
        "dilation": case["dilation"],
        "offset_scale": case["offset_scale"],
    }
    return (case["input"], case["offset"], case["mask"]), geometry, case["output_fp64"]


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Of a whole map; absolute where nothing is to be found."""
    return float((found.double() - expected).norm() / (expected.norm() or 1.0))


def golden_parameters(golden: Config) -> dict[str, Tensor]:
    """The golden's state dict, auxiliary head included, as its `procedure` says."""
    state = {key: fill(key, shape, golden["seed"]) for key, shape in golden["keys"]}
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode() + state[key].numpy().tobytes())
    if digest.hexdigest() != golden["checksum"]:
        pytest.skip("torch.randn gives other numbers on this machine than where the golden network was made")
    return state


def fill(key: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Parameters that leave nothing at zero: one generator per key, the spread by the kind of key."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed + zlib.crc32(key.encode()))
    if key.endswith("running_var"):
        return 0.5 + torch.rand(shape, generator=generator)
    noise = torch.randn(shape, generator=generator)
    spread = next((spread for end, spread in SPREADS.items() if key.endswith(f".{end}")), None)
    if len(shape) >= 2:
        return (spread or 1.0) * noise / math.sqrt(math.prod(shape[1:]))
    if key.endswith((".gamma1", ".gamma2")):
        return 0.6 + 0.1 * noise
    if key.endswith(".weight"):
        return 1 + 0.1 * noise
    return (spread or 0.1) * noise


def fill_network(network: torch.nn.Module, seed: int = 0) -> None:
    state = network.state_dict()
    network.load_state_dict({key: fill(key, tuple(value.shape), seed) for key, value in state.items()})


def write_config(folder: Path, **model: Any) -> Path:
    """An mmsegmentation config: the published one with `model` over it."""
    path = folder / "config.py"
    path.write_text(f"_base_ = {str(BASE_CONFIG)!r}\nmodel = {model!r}\n", encoding="utf-8")
    return path


def dcnv3_by_loops(
    value: Floats,
    offset: Floats,
    mask: Floats,
    *,
    groups: int,
    kernel_size: int = 3,
    stride: int = 1,
    padding: int = 1,
    dilation: int = 1,
    offset_scale: float = 1.0,
) -> Floats:
    """The formula of `oodray.models.internimage.dcnv3`, one sampling point after the other."""
    batch, height, width, channels = value.shape
    _, out_height, out_width, _ = offset.shape
    half = dilation * (kernel_size - 1) // 2
    padded = np.zeros((batch, height + 2, width + 2, channels))
    padded[:, 1:-1, 1:-1] = value

    def pixel(n: int, y: int, x: int) -> Floats:
        inside = -1 <= y <= height and -1 <= x <= width
        result: Floats = padded[n, y + 1, x + 1] if inside else np.zeros(channels)
        return result.reshape(groups, -1)

    offsets = offset.reshape(batch, out_height, out_width, groups, kernel_size, kernel_size, 2)
    masks = mask.reshape(batch, out_height, out_width, groups, kernel_size, kernel_size)
    out = np.zeros((batch, out_height, out_width, groups, channels // groups))
    for n, y, x, g, i, j in np.ndindex(masks.shape):
        dx, dy = offsets[n, y, x, g, i, j]
        px = x * stride - padding + half + offset_scale * (i * dilation - half + dx)
        py = y * stride - padding + half + offset_scale * (j * dilation - half + dy)
        left, top = math.floor(px), math.floor(py)
        right, down = px - left, py - top
        sample = (
            (1 - down) * (1 - right) * pixel(n, top, left)[g]
            + (1 - down) * right * pixel(n, top, left + 1)[g]
            + down * (1 - right) * pixel(n, top + 1, left)[g]
            + down * right * pixel(n, top + 1, left + 1)[g]
        )
        out[n, y, x, g] += masks[n, y, x, g, i, j] * sample
    return out.reshape(batch, out_height, out_width, channels)
