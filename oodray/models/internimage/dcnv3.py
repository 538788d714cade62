"""DCNv3, the operator of InternImage (Wang et al., CVPR 2023), as one pure function.

For a pixel `(y, x)` of the output, a group `g` and the `P = kernel_size**2` points `p = (i, j)`::

    px = x*stride - padding + half + offset_scale * (i*dilation - half + dx)
    py = y*stride - padding + half + offset_scale * (j*dilation - half + dy)
    out[y, x, g] = sum_p mask[y, x, g, p] * bilinear(value[:, :, g], py, px)

with `half = dilation*(kernel_size - 1)//2`, pixel centres at integers and zero outside the map. Three things
are easily mistaken: points are numbered column by column (`p = i*kernel_size + j`, `i` along x), the last
axis of the offset is `(dx, dy)`, and `offset_scale` stretches the regular grid too, not the offsets alone.

The reference is PyTorch's `grid_sample`, on any device and with gradients; in inference a kernel takes its place, by
Triton on CUDA and by numba on a CPU.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor


def dcnv3(
    value: Tensor,
    offset: Tensor,
    mask: Tensor,
    *,
    groups: int,
    kernel_size: int = 3,
    stride: int = 1,
    padding: int = 1,
    dilation: int = 1,
    offset_scale: float = 1.0,
) -> Tensor:
    """Sample `value` at learned points, weigh the samples with `mask` and add them up.

    Args:
        value: `(N, H, W, C)`, the projected input; group `g` owns channels `g*C/groups` onwards.
        offset: `(N, Ho, Wo, groups*P*2)`, in pixels of `value`, `(dx, dy)` last, unbounded.
        mask: `(N, Ho, Wo, groups*P)`, already through a softmax over `P`.
        groups: number of groups; divides `C`.
        kernel_size: side of the square kernel, `P = kernel_size**2`.
        stride: step between output pixels, in pixels of `value`.
        padding: rows and columns by which the first output pixel may hang over the edge.
        dilation: distance between neighbouring points of the regular grid.
        offset_scale: factor on grid and offsets.

    Returns:
        `(N, Ho, Wo, C)` in the dtype of `value`.

    Raises:
        ValueError: if the shapes do not belong together.

    >>> value = torch.arange(9.0).reshape(1, 3, 3, 1)
    >>> offset, mask = torch.zeros(1, 3, 3, 18), torch.full((1, 3, 3, 9), 1 / 9)
    >>> dcnv3(value, offset, mask, groups=1)[0, 1, 1].item()  # the mean of the 3x3 map
    4.0
    """
    if value.ndim != 4 or groups < 1 or value.shape[-1] % groups:
        raise ValueError(f"value must be (N, H, W, C) in {groups} groups, got {tuple(value.shape)}")
    batch, height, width, channels = value.shape
    points = kernel_size * kernel_size
    out_height = output_size(height, kernel_size, stride, padding, dilation)
    out_width = output_size(width, kernel_size, stride, padding, dilation)
    _check_shape("offset", offset, (batch, out_height, out_width, groups * points * 2))
    _check_shape("mask", mask, (batch, out_height, out_width, groups * points))

    kernel = None if _needs_gradient(value, offset, mask) else _kernel(value, offset, mask)
    if kernel is not None:
        return kernel(
            value,
            offset,
            mask,
            groups=groups,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            offset_scale=offset_scale,
        )
    maps = value.reshape(batch, height, width, groups, channels // groups)
    maps = maps.permute(0, 3, 4, 1, 2).reshape(batch * groups, channels // groups, height, width)
    grid = _sampling_grid(
        offset.reshape(batch, out_height, out_width, groups, points, 2),
        size=(height, width),
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        offset_scale=offset_scale,
    )
    samples = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    weights = mask.reshape(batch, out_height * out_width, groups, points).transpose(1, 2).flatten(0, 1)
    out = (samples * weights[:, None]).sum(-1).reshape(batch, channels, out_height, out_width)
    return out.permute(0, 2, 3, 1).contiguous()


def kernel_name(device: torch.device, dtype: torch.dtype) -> str:
    """What computes `dcnv3` in inference: `"triton"` on CUDA, `"numba"` on a CPU, where these are installed and have
    the dtype, else `"reference"`.

    >>> kernel_name(torch.device("cpu"), torch.float64)
    'reference'
    """
    if device.type == "cuda" and dtype in _TRITON_DTYPES and _can_import("triton"):
        return "triton"
    if device.type == "cpu" and dtype in _NUMBA_DTYPES and _can_import("numba"):
        return "numba"
    return "reference"


_TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_NUMBA_DTYPES = (torch.float32, torch.bfloat16)


def _kernel(value: Tensor, offset: Tensor, mask: Tensor) -> Callable[..., Tensor] | None:
    name = kernel_name(value.device, value.dtype)
    if name == "triton":
        from oodray.models.internimage.dcnv3_cuda import dcnv3_cuda

        return dcnv3_cuda
    # Under autocast a softmax is float32 among bfloat16; a kernel on a CPU numbers the elements of a map in 32 bits.
    others = all(tensor.dtype in _NUMBA_DTYPES for tensor in (offset, mask))
    if name == "numba" and others and value.shape[1:].numel() < 2**31:
        from oodray.models.internimage.dcnv3_cpu import dcnv3_cpu

        return dcnv3_cpu
    return None


@cache
def _can_import(package: str) -> bool:
    try:
        import_module(package)
    except ImportError as error:
        logging.getLogger(__name__).warning(
            "%s cannot be imported (%s): DCNv3 runs in plain PyTorch, more than ten times slower", package, error
        )
        return False
    return True


def _needs_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def output_size(size: int, kernel_size: int, stride: int, padding: int, dilation: int) -> int:
    """Number of output pixels along an axis of `size` pixels, as for any convolution.

    >>> output_size(11, kernel_size=3, stride=2, padding=1, dilation=1)
    6
    """
    return (size + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1


def _sampling_grid(
    offset: Tensor,
    *,
    size: tuple[int, int],
    kernel_size: int,
    stride: int,
    padding: int,
    dilation: int,
    offset_scale: float,
) -> Tensor:
    """Points for `grid_sample`, `(N*groups, Ho*Wo, P, 2)`, of offsets `(N, Ho, Wo, groups, P, 2)`."""
    _, out_height, out_width, *_ = offset.shape
    half = dilation * (kernel_size - 1) // 2

    def centres(count: int) -> Tensor:
        indices = torch.arange(count, dtype=offset.dtype, device=offset.device)
        return indices * stride - padding + half

    steps = torch.arange(kernel_size, dtype=offset.dtype, device=offset.device) * dilation - half
    base = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1).reshape(-1, 2)
    pixel_y, pixel_x = torch.meshgrid(centres(out_height), centres(out_width), indexing="ij")
    origin = torch.stack((pixel_x, pixel_y), dim=-1)[:, :, None, None]

    points = (origin + offset_scale * (base + offset)).flatten(1, 2)
    extent = torch.tensor((size[1], size[0]), dtype=offset.dtype, device=offset.device)
    return ((2 * points + 1) / extent - 1).transpose(1, 2).flatten(0, 1)


def _check_shape(name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != expected:
        raise ValueError(f"{name} must be {expected}, got {tuple(tensor.shape)}")
