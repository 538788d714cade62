"""The networks that oodray knows by name as segmenters, without mmsegmentation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from oodray.models.dtype import FLOAT32, products_in, store_weights
from oodray.models.feature_stage import nearest_to_stride_16
from oodray.models.input_rule import InputRule
from oodray.models.internimage.architecture import ARCHITECTURES
from oodray.models.internimage.upernet import InternImageUPerNet
from oodray.models.segmenter import Segmentation, check_one_size
from oodray.models.weights.checkpoints import read_state_dict
from oodray.models.weights.parameters import load_weights_from
from oodray.models.weights.state_dicts import StateDict

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of the 8-bit values of red, green and blue in ImageNet, by which every InternImage was trained."""


def load_internimage(
    architecture: str,
    checkpoint: Path,
    *,
    classes: int | None,
    device: str = "cpu",
    dtype: str = FLOAT32,
    input_rule: InputRule | None = None,
    feature_stage: int | None = None,
) -> InternImageSegmenter:
    """A segmenter from one of `ARCHITECTURES` and a checkpoint, which is never executed; see `InternImageSegmenter`.

    Raises:
        ModelError: if the checkpoint cannot be read, or does not fit.
    """
    network = empty_network(architecture)
    match_outputs(network, read_state_dict(checkpoint), classes)
    _allocate(network)
    load_weights_from(network, checkpoint)
    return InternImageSegmenter(
        network, classes=classes, device=device, dtype=dtype, input_rule=input_rule, feature_stage=feature_stage
    )


def empty_network(architecture: str) -> InternImageUPerNet:
    """One of `ARCHITECTURES` without values: its parameters have shapes and no memory."""
    with torch.device("meta"):
        return InternImageUPerNet(ARCHITECTURES[architecture])


def _allocate(network: nn.Module) -> None:
    """Give the parameters of an empty network memory, of any content: a file has a value for each.

    So nobody waits until hundreds of millions of random values are drawn. `Module.to_empty` does the same, and imports
    a package for symbolic mathematics first.
    """
    empty = {key: torch.empty(value.shape, dtype=value.dtype) for key, value in network.state_dict().items()}
    network.load_state_dict(empty, assign=True)


def match_outputs(network: InternImageUPerNet, state: StateDict, classes: int | None) -> None:
    """Give the head as many outputs as the weights have, where those are exactly the `classes` in use.

    The published files have 150 outputs whatever they were trained on; some of other origin have none to spare.
    """
    stored = state.get("decode_head.conv_seg.weight")
    old = network.decode_head.conv_seg
    if classes is None or stored is None or stored.shape[0] != classes or classes == old.out_channels:
        return
    network.decode_head.conv_seg = nn.Conv2d(old.in_channels, classes, kernel_size=1, device=old.weight.device)


class InternImageSegmenter:
    """InternImage + UPerNet as a `Segmenter`: logits at a quarter of the image's size, features at a sixteenth.

    Args:
        network: the network, with its weights.
        classes: use the first `classes` channels of the logits, or all when None.
        device: where to run, `"cpu"` or `"cuda"`.
        dtype: of convolutions and linear layers, see `products_in`. Logits and features are float32 in any case.
        input_rule: the size at which the network sees an image, its own when None.
        feature_stage: which of the backbone's maps is clustered, counted from 0, instead of the third.
    """

    def __init__(
        self,
        network: InternImageUPerNet,
        *,
        classes: int | None = None,
        device: str = "cpu",
        dtype: str = FLOAT32,
        input_rule: InputRule | None = None,
        feature_stage: int | None = None,
    ) -> None:
        store_weights(network, dtype)
        self.network = network.to(device).eval()
        # The backbone's maps are channels-last in memory: so they are convolved as they are.
        cast("Any", self.network.decode_head).to(memory_format=torch.channels_last)
        self.device, self.dtype = device, dtype
        self.classes = classes
        self.input_rule = input_rule
        self.feature_stage = feature_stage

    @torch.inference_mode()
    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        """See `Segmenter.segment`."""
        check_one_size(images)
        if self.input_rule is not None:
            images = [self.input_rule.apply(image) for image in images]
        inputs = normalised(images, self.device)
        with products_in(self.dtype, self.device):
            stages = self.network.backbone(inputs)
            head_input = self.network.decode_head.fused(stages)
            logits = self.network.decode_head.conv_seg(self.network.decode_head.dropout(head_input))
        features = nearest_to_stride_16(stages, inputs.shape[-2:], self.feature_stage)
        maps = zip(logits[:, : self.classes].float(), features.float(), head_input, strict=True)
        return [Segmentation(of_logits, of_features, head_input=seen) for of_logits, of_features, seen in maps]

    @torch.inference_mode()
    def head(self, head_input: Tensor) -> Tensor:
        """The classifier: from what it sees, `(E, h, w)`, to logits `(C, h, w)`."""
        with products_in(self.dtype, self.device):
            logits: Tensor = self.network.decode_head.conv_seg(head_input[None])
        return logits[0, : self.classes].float()


def normalised(images: list[NDArray[np.uint8]], device: str) -> Tensor:
    """What the network takes, `(N, 3, H, W)` float32, of images `(H, W, 3)` uint8 RGB.

    >>> normalised([np.full((1, 2, 3), 255, np.uint8)], "cpu")[0, :, 0, 1]
    tensor([2.2489, 2.4286, 2.6400])
    """
    pixels = torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2).contiguous()
    mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (MEAN, STD))
    return (pixels.float() - mean) / std
