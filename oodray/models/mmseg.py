"""mmsegmentation networks as segmenters; importing this module registers `InternImage` in mmseg's `MODELS`.

This is the only module that imports mmseg or mmengine at run time. Neither needs a compiled mmcv.
"""

from __future__ import annotations

import importlib.util
import math
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from oodray.errors import ModelError
from oodray.models.dtype import FLOAT32, products_in, store_weights
from oodray.models.feature_stage import nearest_to_stride_16
from oodray.models.internimage.backbone import InternImage
from oodray.models.mmcv_ops import ensure_mmcv_ops, hidden, packages_found
from oodray.models.mmseg_heads import DecodeHeads, heads_of
from oodray.models.segmenter import Segmentation, check_one_size
from oodray.models.sliding import slide
from oodray.models.weights.parameters import load_weights_from

ensure_mmcv_ops()
with warnings.catch_warnings():
    # Deprecations inside torch, mmengine, mmcv and mmseg, which whoever imports them can do nothing about.
    warnings.simplefilter("ignore")
    with hidden("transformers"):
        # It imports transformers for an optimizer, which takes seconds; a network in inference has none.
        import mmengine.optim
    import mmengine.config.config
    from mmengine.config import Config
    from mmengine.config.utils import MODULE2PACKAGE
    from mmengine.registry import init_default_scope
    from mmseg.models.decode_heads import UPerHead
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

if TYPE_CHECKING:
    from numpy.typing import NDArray

Size = tuple[int, int]  # height, width

if "InternImage" not in MODELS.module_dict:
    MODELS.register_module(name="InternImage", module=InternImage)


def build_network(config: Path) -> nn.Module:
    """The mmsegmentation network that a config file describes, with random weights.

    Raises:
        ModelError: if the file cannot be read or does not describe an encoder-decoder network.
    """
    try:
        whole = _read(config)
        model_config = whole.model
        if model_config.get("type") == "MultimodalEncoderDecoder":  # the one kind that has neither backbone nor head
            raise ModelError(_unreadable(config, model_config.type))
        # Weights come from a checkpoint; upstream configs would otherwise try to download the backbone's.
        model_config.pop("pretrained", None)
        model_config.backbone.pop("init_cfg", None)
        # For training only.
        model_config.pop("auxiliary_head", None)
    except ModelError:
        raise
    except Exception as error:
        _require_packages(config)
        raise ModelError(f"cannot read the mmsegmentation config {config}: {error}") from error
    if "data_preprocessor" not in model_config and "data_preprocessor" in whole:
        # Beside the model, where mmengine's Runner takes it, too.
        model_config.data_preprocessor = whole.data_preprocessor
    if "data_preprocessor" not in model_config:
        raise ModelError(
            f"the model of {config} has no data_preprocessor, which normalises the images: "
            "add one of type SegDataPreProcessor, as configs of mmsegmentation 1.x have it"
        )
    init_default_scope("mmseg")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="mmseg")
            network: nn.Module = MODELS.build(model_config)
    except Exception as error:
        _require_packages(config)
        raise ModelError(f"cannot build the network of {config}: {error}") from error
    heads = heads_of(network)
    if not heads or not all(isinstance(head, BaseDecodeHead) for head in heads):
        raise ModelError(_unreadable(config, type(network).__name__))
    return network


def _unreadable(config: Path, kind: str) -> str:
    return (
        f"{config} describes a {kind} whose logits oodray cannot read; "
        "it needs an EncoderDecoder or a CascadeEncoderDecoder, each head a BaseDecodeHead"
    )


def _read(config: Path, *, import_custom_modules: bool = True) -> Config:
    with packages_found(mmengine.config.config, MODULE2PACKAGE):
        return Config.fromfile(str(config), import_custom_modules=import_custom_modules)


def _require_packages(config: Path) -> None:
    """Name the OpenMMLab package that a config needs and that is not here."""
    try:
        text = _read(config, import_custom_modules=False).pretty_text
    except Exception:  # the config itself is wrong, which the caller says
        return
    for package, what in _OTHER_PACKAGES.items():
        if re.search(rf"['\"]{package}\b", text) and importlib.util.find_spec(package) is None:
            raise ModelError(f"{config} takes parts from the package {package}, which is not here: pip install {what}")


_OTHER_PACKAGES = {"mmdet": "mmdet", "mmpretrain": "mmpretrain", "mmcls": "mmcls"}
"""Packages that configs of mmsegmentation name, and what pip calls them."""


def load_mmseg_segmenter(
    config: Path,
    checkpoint: Path,
    *,
    device: str = "cpu",
    dtype: str = FLOAT32,
    feature_stage: int | None = None,
) -> MMSegSegmenter:
    """A segmenter from an mmsegmentation config and a checkpoint.

    Args:
        config: the mmsegmentation config file. It is Python: it is executed.
        checkpoint: the weights; never executed.
        device: where to run, `"cpu"` or `"cuda"`.
        dtype: see `MMSegSegmenter`.
        feature_stage: which of the backbone's maps is clustered, see `MMSegSegmenter`.

    Raises:
        ModelError: if config or checkpoint cannot be used or do not belong together.
    """
    network = build_network(config)
    load_weights_from(network, checkpoint)
    return MMSegSegmenter(network, device=device, dtype=dtype, feature_stage=feature_stage)


class MMSegSegmenter:
    """An mmsegmentation `EncoderDecoder` as a `Segmenter`.

    The network's own `data_preprocessor`, `align_corners` and `test_cfg` are honoured. Features are the
    backbone's map whose stride is nearest to 16, its third stage in every hierarchical backbone.

    Args:
        network: the network, with its weights.
        device: where to run, `"cpu"` or `"cuda"`.
        dtype: of convolutions and linear layers, see `products_in`. Logits and features are float32 in any case.
        feature_stage: which of the backbone's maps is clustered, counted from 0, instead of that default.

    Raises:
        ModelError: if the network's `test_cfg` cannot be followed.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        device: str = "cpu",
        dtype: str = FLOAT32,
        feature_stage: int | None = None,
    ) -> None:
        store_weights(network, dtype)
        self.device, self.dtype = device, dtype
        self.network = cast("Any", network.to(device).eval())
        # UPerNet convolves InternImage's channels-last maps as they are; other heads may flatten them, and then cannot.
        heads = heads_of(self.network)
        assert heads
        takes_channels_last = all(isinstance(head, UPerHead) for head in heads)
        if takes_channels_last:
            self.network.decode_head.to(memory_format=torch.channels_last)
        self.copies_stages = isinstance(self.network.backbone, InternImage) and not takes_channels_last
        self.feature_stage = feature_stage
        self.heads = DecodeHeads(heads, self.network.test_cfg)
        self.align_corners = self.heads.align_corners
        self.sliding = _sliding_windows(self.network.test_cfg)

    @torch.inference_mode()
    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        """See `Segmenter.segment`."""
        check_one_size(images)
        height, width, _ = images[0].shape
        inputs = self._preprocess(images)
        padded = inputs.shape[-2], inputs.shape[-1]
        if self.sliding is not None:
            logits, features = slide(inputs, self._forward_resized, *self.sliding)
        elif self.align_corners or padded != (height, width):
            logits, features = self._forward_resized(inputs)
        else:
            logits, features = self._forward(inputs)
        logits, features = _crop_padding(logits, features, padded, (height, width))
        found = [Segmentation(*maps) for maps in zip(logits, features, strict=True)]
        seen = self.heads.classifier_inputs()
        if seen is None or self.sliding is not None:
            return found
        seen = _crop_map(seen, padded, (height, width))
        return [replace(one, head_input=of_one) for one, of_one in zip(found, seen, strict=True)]

    @property
    def head(self) -> Callable[[Tensor], Tensor] | None:
        """The classifier: from `Segmentation.head_input` to logits `(C, h, w)`.

        None where a head's last layer is not one convolution of 1 x 1, which an image shows, and for sliding windows:
        they average logits, and what was averaged is not what the classifier saw.
        """
        return self._classified if self.heads.classifier is not None and self.sliding is None else None

    @torch.inference_mode()
    def _classified(self, head_input: Tensor) -> Tensor:
        classifier = self.heads.classifier
        assert classifier is not None, "a caller of `head` has it"
        with products_in(self.dtype, self.device):
            logits = classifier(head_input[None])
        return logits[0].float()

    def _preprocess(self, images: list[NDArray[np.uint8]]) -> Tensor:
        # mmsegmentation's loaders give BGR; each config says for itself whether to swap.
        tensors = [torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1) for image in images]
        batch = {"inputs": tensors, "data_samples": [SegDataSample() for _ in tensors]}
        inputs: Tensor = self.network.data_preprocessor(batch, False)["inputs"]
        return inputs

    def _forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits at the head's stride and the clustered features, of network input `(N, 3, H, W)`."""
        with products_in(self.dtype, self.device):
            stages = self.network.backbone(inputs)
            maps = _maps_in(stages)
            features = nearest_to_stride_16(maps, inputs.shape[-2:], self.feature_stage)
            if self.copies_stages:
                stages = [stage.contiguous() for stage in stages]
            head_inputs = self.network.neck(stages) if self.network.with_neck else stages
            logits = self.heads(head_inputs, (inputs.shape[-2], inputs.shape[-1]))
        return logits.float(), features.float()

    def _forward_resized(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """As `_forward`, with the logits at input size, resized as the head's config says."""
        logits, features = self._forward(inputs)
        size = inputs.shape[-2:]
        resized = nn.functional.interpolate(logits, size, mode="bilinear", align_corners=self.align_corners)
        return resized, features


def _sliding_windows(test_cfg: Mapping[str, Any] | None) -> tuple[Size, Size] | None:
    """Size and stride of the windows, None for the image as a whole."""
    settings = {"mode": "whole", **(test_cfg or {})}
    if settings["mode"] == "whole":
        return None
    if settings["mode"] != "slide" or not {"crop_size", "stride"} <= settings.keys():
        raise ModelError(f"test_cfg {settings} must have mode 'whole', or 'slide' with crop_size and stride")
    (height, width), (down, right) = settings["crop_size"], settings["stride"]
    if not (0 < down <= height and 0 < right <= width):
        raise ModelError(f"test_cfg {settings} leaves gaps: the stride must be at most the crop_size")
    return (height, width), (down, right)


def _maps_in(stages: Any) -> list[Tensor]:
    """The maps that a backbone gives: one, several, or each beside its class token."""
    several = [stages] if isinstance(stages, Tensor) else stages
    firsts = [stage[0] if isinstance(stage, list | tuple) else stage for stage in several]
    return [stage for stage in firsts if isinstance(stage, Tensor) and stage.ndim == 4]


def _crop_padding(logits: Tensor, features: Tensor, padded: Size, image: Size) -> tuple[Tensor, Tensor]:
    """Cut off what the preprocessor padded at the right and the bottom; logits are then at padded size."""
    if padded == image:
        return logits, features
    return logits[..., : image[0], : image[1]], _crop_map(features, padded, image)


def _crop_map(maps: Tensor, padded: Size, image: Size) -> Tensor:
    """The same of maps of any stride: whatever a pixel of the image has a part in."""
    axes = zip(image, maps.shape[-2:], padded, strict=True)
    rows, columns = (math.ceil(size * count / whole) for size, count, whole in axes)
    return maps[..., :rows, :columns]
