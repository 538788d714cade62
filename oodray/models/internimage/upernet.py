"""UPerNet (Xiao et al., ECCV 2018), the head that InternImage was published with, in plain PyTorch and for inference.

The pooled maps of the last stage (PSPNet's pyramid) and the other stages are merged from coarse to fine (FPN); one map
of logits at the stride of the first stage comes out. Keys of the state dict, their order and every operation are those
of mmsegmentation's `UPerHead`, so that weights and numbers are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oodray.models.internimage.architecture import Architecture
from oodray.models.internimage.backbone import InternImage

POOL_SCALES = (1, 2, 3, 6)

DROPOUT = 0.1


class ConvNormReLU(nn.Module):
    """A convolution without bias that keeps the size, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in_channels, H, W)` to `(N, channels, H, W)`."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


class UPerHead(nn.Module):
    """Four maps of a backbone to one map of logits.

    Args:
        in_channels: of the maps, the finest first.
        channels: of all maps inside.
        outputs: channels of the logits.

    >>> head = UPerHead((4, 8, 16, 32), channels=6, outputs=3).eval()
    >>> sides = {4: 16, 8: 8, 16: 4, 32: 2}
    >>> tuple(head([torch.zeros(1, width, side, side) for width, side in sides.items()]).shape)
    (1, 3, 16, 16)
    """

    def __init__(self, in_channels: Sequence[int], channels: int, outputs: int) -> None:
        super().__init__()
        *finer, last = in_channels
        self.conv_seg = nn.Conv2d(channels, outputs, 1)
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), ConvNormReLU(last, channels, 1)) for scale in POOL_SCALES
        )
        self.bottleneck = ConvNormReLU(last + len(POOL_SCALES) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(ConvNormReLU(width, channels, 1) for width in finer)
        self.fpn_convs = nn.ModuleList(ConvNormReLU(channels, channels, 3) for _ in finer)
        self.fpn_bottleneck = ConvNormReLU(len(in_channels) * channels, channels, 3)
        # As trained. It does nothing but where dropout is kept active.
        self.dropout = nn.Dropout2d(DROPOUT)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Logits `(N, outputs, H, W)` at the size of the first of `stages`, which are `(N, in_channels, H, W)`."""
        logits: Tensor = self.conv_seg(self.dropout(self.fused(stages)))
        return logits

    def fused(self, stages: Sequence[Tensor]) -> Tensor:
        """What the classifier `conv_seg` sees, `(N, channels, H, W)`."""
        *finer, last = stages
        merged = [lateral(stage) for lateral, stage in zip(self.lateral_convs, finer, strict=True)]
        merged.append(self._pooled(last))
        for level in range(len(merged) - 1, 0, -1):
            merged[level - 1] = merged[level - 1] + _resized(merged[level], merged[level - 1])
        maps = [conv(map_) for conv, map_ in zip(self.fpn_convs, merged[:-1], strict=True)] + merged[-1:]
        joined = torch.cat([maps[0], *(_resized(map_, maps[0]) for map_ in maps[1:])], dim=1)
        fused: Tensor = self.fpn_bottleneck(joined)
        return fused

    def _pooled(self, last: Tensor) -> Tensor:
        pooled = [_resized(module(last), last) for module in self.psp_modules]
        merged: Tensor = self.bottleneck(torch.cat([last, *pooled], dim=1))
        return merged


class InternImageUPerNet(nn.Module):
    """The whole network: `backbone` and `decode_head`, as its published files name them."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.backbone = InternImage(
            channels=architecture.channels,
            depths=architecture.depths,
            groups=architecture.groups,
            layer_scale=architecture.layer_scale,
            offset_scale=architecture.offset_scale,
            post_norm=architecture.post_norm,
        )
        self.decode_head = UPerHead(
            architecture.stage_channels, channels=architecture.head_channels, outputs=architecture.outputs
        )

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`(N, 3, H, W)`, normalised, to the logits at stride 4 and the maps of the backbone, strides 4 to 32."""
        stages = self.backbone(x)
        return self.decode_head(stages), stages


def _resized(map_: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(map_, like.shape[2:], mode="bilinear", align_corners=False)
