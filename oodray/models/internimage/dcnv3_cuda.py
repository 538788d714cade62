"""DCNv3 on CUDA, in Triton: the function of `oodray.models.internimage.dcnv3`, for inference.

A row is one group of one output pixel. Rows of neighbouring groups and pixels lie beside one another in offsets, masks
and output, so that a program reads and writes long runs of memory; of the map it samples, it reads whole groups of
channels. Sums are in float32 whatever the inputs are.

The kernel is bound by memory: each value, offset and mask is read once if the caches hold, each output written once.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

# The fastest of nine settings on an H100, over the four stages of InternImage-L.
_ROWS = 64
_WARPS = 4


def dcnv3_cuda(
    value: Tensor,
    offset: Tensor,
    mask: Tensor,
    *,
    groups: int,
    kernel_size: int,
    stride: int,
    padding: int,
    dilation: int,
    offset_scale: float,
) -> Tensor:
    """As `dcnv3.dcnv3`, of checked shapes; value, offset and mask are on one device, of a dtype of `kernel_name`."""
    batch, height, width, channels = value.shape
    _, out_height, out_width, _ = offset.shape
    out = value.new_empty((batch, out_height, out_width, channels))
    rows = batch * out_height * out_width * groups
    if rows == 0:
        return out
    group_channels = channels // groups
    _dcnv3_kernel[(triton.cdiv(rows, _ROWS),)](
        value.contiguous(),
        offset.contiguous(),
        mask.contiguous(),
        out,
        rows,
        height,
        width,
        out_height,
        out_width,
        float(offset_scale),
        GROUPS=groups,
        GROUP_CHANNELS=group_channels,
        BLOCK_CHANNELS=triton.next_power_of_2(group_channels),
        KERNEL_SIZE=kernel_size,
        STRIDE=stride,
        PADDING=padding,
        DILATION=dilation,
        ROWS=_ROWS,
        num_warps=_WARPS,
    )
    return out


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _dcnv3_kernel(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    value,
    offset,
    mask,
    out,
    rows,
    height,
    width,
    out_height,
    out_width,
    offset_scale,
    GROUPS: tl.constexpr,  # noqa: N803
    GROUP_CHANNELS: tl.constexpr,  # noqa: N803
    BLOCK_CHANNELS: tl.constexpr,  # noqa: N803
    KERNEL_SIZE: tl.constexpr,  # noqa: N803
    STRIDE: tl.constexpr,  # noqa: N803
    PADDING: tl.constexpr,  # noqa: N803
    DILATION: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = row < rows
    group = row % GROUPS
    pixel = row // GROUPS
    out_x = pixel % out_width
    out_y = (pixel // out_width) % out_height
    image = pixel // (out_width * out_height)
    channel = tl.arange(0, BLOCK_CHANNELS)
    has_channel = exists[:, None] & (channel < GROUP_CHANNELS)[None, :]
    # Element numbers are 64 bits wide: a batch of large maps has more than 2**31 elements.
    base = image.to(tl.int64) * height * width * (GROUPS * GROUP_CHANNELS) + group * GROUP_CHANNELS
    point = row.to(tl.int64) * (KERNEL_SIZE * KERNEL_SIZE)
    half = DILATION * (KERNEL_SIZE - 1) // 2
    centre_x = out_x * STRIDE - PADDING + half
    centre_y = out_y * STRIDE - PADDING + half
    total = tl.zeros((ROWS, BLOCK_CHANNELS), tl.float32)
    for i in tl.static_range(KERNEL_SIZE):
        for j in tl.static_range(KERNEL_SIZE):
            at = point + i * KERNEL_SIZE + j
            dx = tl.load(offset + 2 * at, mask=exists, other=0.0).to(tl.float32)
            dy = tl.load(offset + 2 * at + 1, mask=exists, other=0.0).to(tl.float32)
            weight = tl.load(mask + at, mask=exists, other=0.0).to(tl.float32)
            shift_x = offset_scale * (i * DILATION - half + dx)
            shift_y = offset_scale * (j * DILATION - half + dy)
            lost = (shift_x != shift_x) | (shift_y != shift_y)  # noqa: PLR0124  # a NaN goes into the sum, not into an address
            total += tl.where(lost, float("nan"), 0.0)[:, None]
            # Floor the shift, not the position: beside a large pixel number a float32 keeps few bits of the fraction.
            # A shift that leaves any map is held where it cannot come back, so that the integers do not overflow.
            floor_x = tl.where(lost, 0.0, tl.minimum(tl.maximum(tl.floor(shift_x), -1e6), 1e6))
            floor_y = tl.where(lost, 0.0, tl.minimum(tl.maximum(tl.floor(shift_y), -1e6), 1e6))
            x = centre_x + floor_x.to(tl.int32)
            y = centre_y + floor_y.to(tl.int32)
            right = shift_x - floor_x
            lower = shift_y - floor_y
            for corner_y in tl.static_range(2):
                for corner_x in tl.static_range(2):
                    share_y = lower if corner_y else 1.0 - lower
                    share_x = right if corner_x else 1.0 - right
                    corner_row = y + corner_y
                    corner_column = x + corner_x
                    inside = (corner_row >= 0) & (corner_row < height) & (corner_column >= 0) & (corner_column < width)
                    start = base + (corner_row * width + corner_column).to(tl.int64) * (GROUPS * GROUP_CHANNELS)
                    samples = tl.load(
                        value + start[:, None] + channel[None, :], mask=has_channel & inside[:, None], other=0.0
                    )
                    share = tl.where(inside, weight * share_y * share_x, 0.0)
                    total += share[:, None] * samples.to(tl.float32)
    target = row.to(tl.int64)[:, None] * GROUP_CHANNELS + channel[None, :]
    tl.store(out + target, total.to(out.dtype.element_ty), mask=has_channel)
