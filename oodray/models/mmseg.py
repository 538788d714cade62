"""mmsegmentation networks as segmenters; importing this module registers `InternImage` in mmseg's `MODELS`.

This is the only module that imports mmseg or mmengine at run time. Neither needs a compiled mmcv.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from oodray.errors import ModelError
from oodray.models.checkpoints import load_weights, read_state_dict
from oodray.models.internimage import InternImage
from oodray.models.mmcv_ops import ensure_mmcv_ops
from oodray.models.segmenter import Segmentation
from oodray.models.sliding import slide

ensure_mmcv_ops()
with warnings.catch_warnings():
    # Deprecations inside mmengine and mmseg; their users can do nothing about them.
    warnings.simplefilter("ignore")
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample
    from mmseg.utils import register_all_modules

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FEATURE_STRIDE = 16

register_all_modules(init_default_scope=False)
if "InternImage" not in MODELS.module_dict:
    MODELS.register_module(name="InternImage", module=InternImage)


def build_network(config: Path) -> nn.Module:
    """The mmsegmentation network that a config file describes, with random weights.

    Raises:
        ModelError: if the file cannot be read or does not describe an encoder-decoder network.
    """
    try:
        model_config = Config.fromfile(str(config)).model
    except Exception as error:
        raise ModelError(f"cannot read the mmsegmentation config {config}: {error}") from error
    # Weights come from a checkpoint; upstream configs would otherwise try to download the backbone's.
    model_config.pop("pretrained", None)
    model_config.backbone.pop("init_cfg", None)
    init_default_scope("mmseg")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network: nn.Module = MODELS.build(model_config)
    except Exception as error:
        raise ModelError(f"cannot build the network of {config}: {error}") from error
    if not hasattr(network, "decode_head") or not hasattr(network, "backbone"):
        raise ModelError(f"{config} describes a {type(network).__name__}; oodray needs an EncoderDecoder")
    return network


def load_mmseg_segmenter(config: Path, checkpoint: Path, *, classes: int | None, device: str) -> MMSegSegmenter:
    """A segmenter from an mmsegmentation config and a checkpoint.

    Args:
        config: the mmsegmentation config file. It is Python: it is executed.
        checkpoint: the weights; never executed.
        classes: use the first `classes` channels of the logits, or all when None.
        device: where to run, `"cpu"` or `"cuda"`.

    Raises:
        ModelError: if config or checkpoint cannot be used or do not belong together.
    """
    network = build_network(config)
    load_weights(network, read_state_dict(checkpoint), source=checkpoint)
    return MMSegSegmenter(network, classes=classes, device=device)


class MMSegSegmenter:
    """An mmsegmentation `EncoderDecoder` as a `Segmenter`.

    The network's own `data_preprocessor`, `align_corners` and `test_cfg` are honoured. Features are the backbone's
    map whose stride is nearest to 16, its third stage in every hierarchical backbone.
    """

    def __init__(self, network: nn.Module, *, classes: int | None = None, device: str = "cpu") -> None:
        self.network: Any = network.to(device).eval()
        self.classes = classes
        self.align_corners = bool(self.network.decode_head.align_corners)
        self.test_cfg = dict(self.network.test_cfg or {"mode": "whole"})

    @torch.inference_mode()
    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        """See `Segmenter.segment`."""
        if len({image.shape for image in images}) != 1:
            raise ValueError(f"images of one size expected, got {sorted({image.shape for image in images})}")
        height, width = images[0].shape[:2]
        inputs = self._preprocess(images)
        if self.test_cfg["mode"] == "slide":
            logits, features = slide(
                inputs, self._forward_resized, tuple(self.test_cfg["crop_size"]), tuple(self.test_cfg["stride"])
            )
        elif self.align_corners or inputs.shape[-2:] != (height, width):
            logits, features = self._forward_resized(inputs)
        else:
            logits, features = self._forward(inputs)
        logits, features = _crop_padding(logits, features, inputs.shape[-2:], (height, width))
        return [Segmentation(*maps) for maps in zip(logits, features, strict=True)]

    def _preprocess(self, images: list[NDArray[np.uint8]]) -> Tensor:
        # mmsegmentation's loaders give BGR; each config says for itself whether to swap.
        tensors = [torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1) for image in images]
        batch = {"inputs": tensors, "data_samples": [SegDataSample() for _ in tensors]}
        inputs: Tensor = self.network.data_preprocessor(batch, False)["inputs"]
        return inputs

    def _forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits at the head's stride and the clustered features, of network input `(N, 3, H, W)`."""
        stages = self.network.backbone(inputs)
        features = min(stages, key=lambda stage: abs(inputs.shape[-1] / stage.shape[-1] - FEATURE_STRIDE))
        head_inputs = self.network.neck(stages) if self.network.with_neck else stages
        logits: Tensor = self.network.decode_head(head_inputs)
        return logits[:, : self.classes], features

    def _forward_resized(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """As `_forward`, with the logits at input size, resized as the head's config says."""
        logits, features = self._forward(inputs)
        size = inputs.shape[-2:]
        resized = nn.functional.interpolate(logits, size, mode="bilinear", align_corners=self.align_corners)
        return resized, features


def _crop_padding(
    logits: Tensor, features: Tensor, padded: torch.Size, image: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Cut off what the preprocessor padded at the right and the bottom; logits are then at padded size."""
    if tuple(padded) == image:
        return logits, features
    rows, columns = (-(-size * cells // whole) for size, cells, whole in zip(image, features.shape[-2:], padded))
    return logits[..., : image[0], : image[1]], features[..., :rows, :columns]
