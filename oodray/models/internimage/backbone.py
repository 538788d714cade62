"""InternImage (Wang et al., CVPR 2023) in plain PyTorch: the backbone of the paper.

One class holds every published variant (T, S, B, L, XL, H); argument names are those of the official configs
and the keys of the state dict those of the official files. Activations are NHWC between the stem and the
outputs, which are views of them as NCHW: in the memory format channels-last.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oodray.models.internimage.dcnv3 import dcnv3

LAYER_NORM_EPS = 1e-6
CORE_OPS = ("DCNv3", "DCNv3_pytorch")


class ToChannelsLast(nn.Module):
    """NCHW to NHWC."""

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, H, W)` to `(N, H, W, C)`."""
        return x.permute(0, 2, 3, 1)


class ToChannelsFirst(nn.Module):
    """NHWC to NCHW."""

    def forward(self, x: Tensor) -> Tensor:
        """`(N, H, W, C)` to `(N, C, H, W)`."""
        return x.permute(0, 3, 1, 2)


def layer_norm(channels: int, *, from_first: bool = False, to_first: bool = False) -> nn.Sequential:
    """A LayerNorm over channels with the permutes it needs; they shift its index in the official keys."""
    norm: list[nn.Module] = [nn.LayerNorm(channels, eps=LAYER_NORM_EPS)]
    if from_first:
        norm.insert(0, ToChannelsLast())
    if to_first:
        norm.append(ToChannelsFirst())
    return nn.Sequential(*norm)


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch per sample while training (Huang et al., ECCV 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """`x`, in training with whole samples set to zero and the others scaled up."""
        if not self.training or self.rate == 0.0:
            return x
        share = 1.0 - self.rate
        stays = torch.rand(x.shape[0], *([1] * (x.ndim - 1)), device=x.device) < share
        return x * stays.to(x.dtype) / share


class Stem(nn.Module):
    """Two strided convolutions: from the image to a quarter of its size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels // 2, 3, stride=2, padding=1)
        self.norm1 = layer_norm(channels // 2, from_first=True, to_first=True)
        self.conv2 = nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1)
        self.norm2 = layer_norm(channels, from_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, 3, H, W)` to `(N, H/4, W/4, C)`, rounded up."""
        x = F.gelu(self.norm1(self.conv1(x)))
        y: Tensor = self.norm2(self.conv2(x))
        return y


class Downsample(nn.Module):
    """Between stages: half the size, twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
        self.norm = layer_norm(2 * channels, from_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, H, W, C)` to `(N, H/2, W/2, 2C)`, rounded up."""
        y: Tensor = self.norm(self.conv(x.permute(0, 3, 1, 2)))
        return y


class MLP(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, int(channels * ratio))
        self.fc2 = nn.Linear(int(channels * ratio), channels)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, H, W, C)` to the same shape."""
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class DCNv3(nn.Module):
    """The deformable convolution module: projections, offsets and masks around `dcnv3`."""

    def __init__(
        self,
        channels: int,
        groups: int,
        *,
        offset_scale: float,
        dw_kernel_size: int | None,
        center_feature_scale: bool,
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"{channels} channels cannot be split into {groups} groups")
        self.groups, self.kernel_size, self.offset_scale = groups, kernel_size, offset_scale
        points = kernel_size * kernel_size
        dw_kernel = dw_kernel_size or kernel_size
        self.dw_conv = nn.Sequential(
            nn.Conv2d(channels, channels, dw_kernel, padding=(dw_kernel - 1) // 2, groups=channels),
            layer_norm(channels, from_first=True),
            nn.GELU(),
        )
        self.offset = nn.Linear(channels, groups * points * 2)
        self.mask = nn.Linear(channels, groups * points)
        self.input_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self.center_feature_scale = center_feature_scale
        if center_feature_scale:
            self.center_feature_scale_proj_weight = nn.Parameter(torch.zeros(groups, channels))
            self.center_feature_scale_proj_bias = nn.Parameter(torch.zeros(groups))

    def reset_parameters(self) -> None:
        """Start as a uniform 3x3 sampling, as the official code does."""
        for layer in (self.offset, self.mask):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.input_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, H, W, C)` to the same shape."""
        value = self.input_proj(x)
        query = self.dw_conv(x.permute(0, 3, 1, 2))
        mask = self.mask(query).unflatten(-1, (self.groups, -1)).softmax(-1).flatten(-2)
        sampled = dcnv3(
            value,
            self.offset(query),
            mask,
            groups=self.groups,
            kernel_size=self.kernel_size,
            padding=(self.kernel_size - 1) // 2,
            offset_scale=self.offset_scale,
        )
        if self.center_feature_scale:
            sampled = self._blend_with_centre(sampled, value, query)
        y: Tensor = self.output_proj(sampled)
        return y

    def _blend_with_centre(self, sampled: Tensor, value: Tensor, query: Tensor) -> Tensor:
        scale = F.linear(query, self.center_feature_scale_proj_weight, self.center_feature_scale_proj_bias)
        scale = scale.sigmoid().repeat_interleave(value.shape[-1] // self.groups, dim=-1)
        return sampled * (1 - scale) + value * scale


class Layer(nn.Module):
    """DCNv3 and MLP as residual branches, normalised before, after, or before and after."""

    def __init__(
        self,
        channels: int,
        dcn: DCNv3,
        *,
        mlp_ratio: float,
        drop_path: float,
        layer_scale: float | None,
        post_norm: bool,
        res_post_norm: bool,
    ) -> None:
        super().__init__()
        self.post_norm = post_norm
        self.dcn, self.mlp = dcn, MLP(channels, mlp_ratio)
        self.norm1, self.norm2 = layer_norm(channels), layer_norm(channels)
        self.res_post_norm1 = layer_norm(channels) if res_post_norm else None
        self.res_post_norm2 = layer_norm(channels) if res_post_norm else None
        self.gamma1 = None if layer_scale is None else nn.Parameter(torch.full((channels,), layer_scale))
        self.gamma2 = None if layer_scale is None else nn.Parameter(torch.full((channels,), layer_scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, H, W, C)` to the same shape."""
        x = self._residual(x, self.dcn, self.norm1, self.res_post_norm1, self.gamma1)
        return self._residual(x, self.mlp, self.norm2, self.res_post_norm2, self.gamma2)

    def _residual(
        self, x: Tensor, branch: nn.Module, norm: nn.Module, res_norm: nn.Module | None, gamma: Tensor | None
    ) -> Tensor:
        y: Tensor = norm(branch(x)) if self.post_norm else branch(norm(x))
        if res_norm is not None:
            y = res_norm(y)
        if gamma is not None:
            y = gamma * y
        dropped: Tensor = self.drop_path(y)
        return x + dropped


class Stage(nn.Module):
    """The layers of one resolution, their norms, and the downsampling to the next."""

    def __init__(
        self,
        layers: Sequence[Layer],
        channels: int,
        *,
        final_norm: bool,
        post_norm_ids: Sequence[int],
        downsample: bool,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(layers)
        self.norm = layer_norm(channels) if final_norm else None
        self.post_norm_ids = tuple(post_norm_ids)
        self.post_norms = nn.ModuleList(layer_norm(channels) for _ in self.post_norm_ids)
        self.downsample = Downsample(channels) if downsample else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The stage's output, and the input of the next stage."""
        for index, layer in enumerate(self.blocks):
            x = layer(x)
            if index in self.post_norm_ids:
                x = self.post_norms[self.post_norm_ids.index(index)](x)
        output = x if self.norm is None else self.norm(x)
        return output, output if self.downsample is None else self.downsample(output)


class InternImage(nn.Module):
    """The backbone: image `(N, 3, H, W)` to the stages named in `out_indices`, NCHW, strides 4, 8, 16, 32.

    Nothing is copied for it: the outputs are channels-last in memory.

    Any size is accepted; each strided convolution rounds up.

    Args:
        channels: width of the first stage; every stage doubles it.
        depths: layers per stage.
        groups: DCNv3 groups per stage.
        mlp_ratio: hidden width of the MLPs over their input's.
        drop_path_rate: stochastic depth of the last layer, rising linearly from 0.
        norm_layer: `"LN"`, the only one that a published model uses.
        layer_scale: start value of the learned factors on the branches, or None for none.
        offset_scale: see `dcnv3`.
        post_norm: normalise after the branches instead of before.
        dw_kernel_size: kernel of the depthwise convolution before offsets and masks; 3 when None.
        res_post_norm: normalise before and after the branches (H).
        level2_post_norm: extra norms inside the third stage (H).
        level2_post_norm_block_ids: the layers of the third stage that they follow.
        center_feature_scale: blend the sampled features with the centre's (H).
        out_indices: stages to return.
        core_op: `"DCNv3"` or `"DCNv3_pytorch"`; both mean `oodray.models.internimage.dcnv3.dcnv3`.

    Raises:
        ValueError: for a value that no published model has and that would otherwise be ignored.

    >>> net = InternImage(channels=16, depths=(1, 1, 1, 1), groups=(1, 2, 4, 8)).eval()
    >>> [tuple(stage.shape[1:]) for stage in net(torch.zeros(1, 3, 97, 131))]
    [(16, 25, 33), (32, 13, 17), (64, 7, 9), (128, 4, 5)]
    """

    def __init__(
        self,
        *,
        channels: int = 64,
        depths: Sequence[int] = (4, 4, 18, 4),
        groups: Sequence[int] = (4, 8, 16, 32),
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.2,
        norm_layer: str = "LN",
        layer_scale: float | None = None,
        offset_scale: float = 1.0,
        post_norm: bool = False,
        dw_kernel_size: int | None = None,
        res_post_norm: bool = False,
        level2_post_norm: bool = False,
        level2_post_norm_block_ids: Sequence[int] | None = None,
        center_feature_scale: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        core_op: str = "DCNv3",
    ) -> None:
        super().__init__()
        extra_norms = tuple(level2_post_norm_block_ids or ())
        _check_names(norm_layer, core_op)
        _check_stages(depths, groups, out_indices)
        if res_post_norm and (post_norm or layer_scale is not None):
            raise ValueError("res_post_norm cannot be combined with post_norm or layer_scale")
        _check_extra_norms(level2_post_norm, extra_norms, depths)
        self.out_indices = tuple(out_indices)
        self.patch_embed = Stem(channels)
        drop_rates = iter(_drop_path_rates(drop_path_rate, sum(depths)))
        new_dcn = partial(
            DCNv3,
            offset_scale=offset_scale,
            dw_kernel_size=dw_kernel_size,
            center_feature_scale=center_feature_scale,
        )
        new_layer = partial(
            Layer,
            mlp_ratio=mlp_ratio,
            layer_scale=layer_scale,
            post_norm=post_norm,
            res_post_norm=res_post_norm,
        )
        self.levels = nn.ModuleList()
        for index, (depth, group) in enumerate(zip(depths, groups, strict=True)):
            width = channels * 2**index
            stage = Stage(
                [new_layer(width, new_dcn(width, group), drop_path=next(drop_rates)) for _ in range(depth)],
                width,
                final_norm=not post_norm or center_feature_scale,
                post_norm_ids=extra_norms if index == 2 else (),
                downsample=index < len(depths) - 1,
            )
            self.levels.append(stage)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> list[Tensor]:
        """See the class."""
        x = self.patch_embed(x)
        outputs = []
        for index, level in enumerate(self.levels):
            output, x = level(x)
            if index in self.out_indices:
                outputs.append(output.permute(0, 3, 1, 2))
        return outputs


def _drop_path_rates(last: float, layers: int) -> list[float]:
    return [last * layer / max(layers - 1, 1) for layer in range(layers)]


def _initialise(module: nn.Module) -> None:
    """As the official code: small normal linears; DCNv3, visited after its children, as uniform sampling."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, DCNv3):
        module.reset_parameters()


def _check_names(norm_layer: str, core_op: str) -> None:
    if norm_layer != "LN":
        raise ValueError(f"norm_layer={norm_layer!r} is not supported: every published InternImage uses 'LN'")
    if core_op not in CORE_OPS:
        raise ValueError(f"core_op={core_op!r} is not supported: use one of {', '.join(CORE_OPS)}")


def _check_stages(depths: Sequence[int], groups: Sequence[int], out_indices: Sequence[int]) -> None:
    if len(depths) != len(groups):
        raise ValueError(f"{len(depths)} depths but {len(groups)} groups")
    if not out_indices or any(index not in range(len(depths)) for index in out_indices):
        raise ValueError(f"out_indices={tuple(out_indices)} must name stages 0..{len(depths) - 1}")


def _check_extra_norms(wanted: bool, layers: tuple[int, ...], depths: Sequence[int]) -> None:
    if wanted != bool(layers):
        raise ValueError("level2_post_norm and level2_post_norm_block_ids need each other")
    if wanted and (len(depths) < 3 or any(layer not in range(depths[2]) for layer in layers)):
        raise ValueError(f"level2_post_norm_block_ids={layers} must name layers of the third stage")
