"""Networks of Hugging Face's transformers: segmenters, and feature extractors beside another segmenter.

Images reach a segmenter through its own image processor, resized as its authors had it but never cropped or padded:
logits and features cover exactly the image. A feature extractor sees the image at its own size, brought to whole
patches.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from oodray.models.dtype import FLOAT32, products_in, store_weights
from oodray.models.feature_stage import nearest_to_stride_16
from oodray.models.hugging_face_files import load_network, load_part, transformers
from oodray.models.segmenter import Segmentation, Segmenter, segment_named
from oodray.models.tokens import as_map, patch_size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Of DINOv2, CLIP and most others: ImageNet's.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_WHOLE_IMAGE = {"do_center_crop": False, "do_pad": False}
"""What an image processor must not do: what it cuts off has no logits."""


class HuggingFaceSegmenter:
    """A model for semantic segmentation as a `Segmenter`.

    Features are the hidden state whose stride is nearest to 16, of several, as in plain transformers, the last;
    class tokens are left out.

    Args:
        folder: of the model's files.
        device: where to run, `"cpu"` or `"cuda"`.
        dtype: of convolutions and linear layers, see `products_in`. What comes out is float32 in any case.
        feature_stage: the hidden state to take instead, counted from 0.

    Raises:
        ModelError: if the folder holds no such model.
    """

    def __init__(
        self, folder: Path, *, device: str = "cpu", dtype: str = FLOAT32, feature_stage: int | None = None
    ) -> None:
        self.device, self.dtype, self.feature_stage = device, dtype, feature_stage
        network = load_network(transformers().AutoModelForSemanticSegmentation, folder)
        store_weights(network, dtype)
        self.network = network.to(device).eval()
        self.processor = load_part(transformers().AutoImageProcessor, folder)
        self.options = _position_options(network)

    @torch.inference_mode()
    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        """See `Segmenter.segment`."""
        pixels = self.processor(images, return_tensors="pt", **_WHOLE_IMAGE)["pixel_values"].to(self.device)
        with products_in(self.dtype, self.device):
            found = self.network(pixels, output_hidden_states=True, **self.options)
        stages = [as_map(state, pixels.shape[-2:], self.network.config) for state in found.hidden_states or ()]
        features = nearest_to_stride_16(stages, pixels.shape[-2:], self.feature_stage, tie="last")
        return [Segmentation(*maps) for maps in zip(found.logits.float(), features.float(), strict=True)]


class HuggingFaceFeatures:
    """Patch features of a vision transformer, such as DINOv2 or CLIP, or the last map of a convolutional network.

    Args:
        folder: of the model's files.
        device: where to run, `"cpu"` or `"cuda"`.
        dtype: of convolutions and linear layers, see `products_in`. What comes out is float32 in any case.

    Raises:
        ModelError: if the folder holds no model of images.
    """

    def __init__(self, folder: Path, *, device: str = "cpu", dtype: str = FLOAT32) -> None:
        package = transformers()
        self.device, self.dtype = device, dtype
        config = load_part(package.AutoConfig, folder)
        # CLIP and SigLIP come as a pair of encoders, of which the vision part is loaded.
        two_towers = {"clip": "CLIPVisionModel", "siglip": "SiglipVisionModel"}
        kind = getattr(package, two_towers.get(config.model_type, "AutoModel"))
        network = load_network(kind, folder)
        store_weights(network, dtype)
        self.network = network.to(device).eval()
        self.config = getattr(config, "vision_config", config)
        self.mean, self.std = _normalisation(folder)
        self.options = _position_options(self.network)

    @torch.inference_mode()
    def features(self, images: list[NDArray[np.uint8]]) -> Tensor:
        """Features `(N, D, h, w)` of images of one size, each `(H, W, 3)` uint8 RGB; they cover exactly the image."""
        pixels = torch.stack([torch.from_numpy(image.copy()).permute(2, 0, 1) for image in images])
        pixels = pixels.to(self.device, torch.float32) / 255
        patch = patch_size(self.config)
        size = [max(1, round(side / patch)) * patch for side in pixels.shape[-2:]]
        if size != list(pixels.shape[-2:]):
            pixels = interpolate(pixels, size, mode="bilinear", align_corners=False)
        mean, std = (torch.tensor(values, device=self.device)[:, None, None] for values in (self.mean, self.std))
        with products_in(self.dtype, self.device):
            state = self.network((pixels - mean) / std, **self.options).last_hidden_state
        return as_map(state.float(), size, self.config)


class WithFeatures:
    """A segmenter whose features are replaced by those of another network; its logits stay."""

    def __init__(self, segmenter: Segmenter, extractor: HuggingFaceFeatures) -> None:
        self.segmenter, self.extractor = segmenter, extractor

    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        """See `Segmenter.segment`."""
        return self.segment_named(images, [""] * len(images))

    def segment_named(self, images: list[NDArray[np.uint8]], image_ids: Sequence[str]) -> list[Segmentation]:
        """As `segment`, of images with a name."""
        segmentations = segment_named(self.segmenter, images, image_ids)
        features = self.extractor.features(images)
        return [replace(segmentation, features=own) for segmentation, own in zip(segmentations, features, strict=True)]


def _position_options(network: Any) -> dict[str, bool]:
    """What makes learned positions fit images of any size."""
    accepted = inspect.signature(network.forward).parameters
    return {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in accepted else {}


def _normalisation(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if not (folder / "preprocessor_config.json").is_file():
        return _MEAN, _STD
    processor = load_part(transformers().AutoImageProcessor, folder)
    return tuple(processor.image_mean or _MEAN), tuple(processor.image_std or _STD)
