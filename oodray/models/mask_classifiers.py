"""Mask classifiers of Hugging Face's transformers: Mask2Former, MaskFormer, OneFormer and EoMT.

Their raw outputs are taken, class and mask logits of every query. The post-processing of their image processors first
squeezes the masks to a size of its own, which loses detail.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from oodray.errors import ModelError
from oodray.models.dtype import FLOAT32, products_in, store_weights
from oodray.models.feature_stage import nearest_to_stride_16
from oodray.models.hugging_face_files import load_network, load_part, settings_of, transformers
from oodray.models.segmenter import Segmentation, check_one_size
from oodray.models.sliding import Window as Part
from oodray.models.sliding import stitched
from oodray.models.tokens import as_map
from oodray.scores.queries import Window, Windows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CLASSES = {
    "maskformer": ("MaskFormerForInstanceSegmentation", "4.19"),
    "mask2former": ("Mask2FormerForUniversalSegmentation", "4.26"),
    "oneformer": ("OneFormerForUniversalSegmentation", "4.26"),
    "eomt": ("EomtForUniversalSegmentation", "4.54"),
    "eomt_dinov3": ("EomtDinov3ForUniversalSegmentation", "5.0"),
}
"""By the model_type of `config.json`: the class of transformers, and the version that it came with."""

TASK = "the task is semantic"
"""What OneFormer is told, in the words of its authors."""


def is_mask_classifier(folder: Path) -> bool:
    """Whether a folder holds one.

    Raises:
        ModelError: its settings cannot be read.
    """
    return settings_of(folder).get("model_type") in CLASSES


def load_mask_classifier(
    folder: Path, *, device: str = "cpu", dtype: str = FLOAT32, feature_stage: int | None = None
) -> MaskClassifier:
    """The mask classifier of a folder as a `Segmenter`.

    Args:
        folder: of the model's files.
        device: where to run, `"cpu"` or `"cuda"`.
        dtype: of convolutions and linear layers, see `products_in`. What comes out is float32 in any case.
        feature_stage: which map is clustered, counted from 0: of the backbone's, of EoMT's layers.

    Raises:
        ModelError: the folder holds no such model, or the installed transformers is too old for it.
    """
    kind: str = settings_of(folder)["model_type"]
    network = load_network(_class_of(kind), folder)
    store_weights(network, dtype)
    made = {"eomt": Eomt, "eomt_dinov3": Eomt, "oneformer": OneFormer}.get(kind, MaskClassifier)
    return made(network.to(device).eval(), folder, device, dtype, feature_stage)


def _class_of(kind: str) -> Any:
    name, version = CLASSES[kind]
    package = transformers()
    if not hasattr(package, name):
        raise ModelError(
            f"{name} needs transformers {version}, here is {package.__version__}: pip install 'transformers>={version}'"
        )
    return getattr(package, name)


class MaskClassifier:
    """Mask2Former and MaskFormer as a `Segmenter`.

    Images go through the model's own image processor, without its padding. Features are the map of the backbone whose
    stride is nearest to 16, else the pixel decoder's.

    Args:
        network: with its weights, on its device.
        folder: of the model's files.
        device: where the network is.
        dtype: see `products_in`.
        feature_stage: which of the backbone's maps is clustered, counted from 0.
    """

    processor_options: dict[str, Any] = {"do_pad": False}  # noqa: RUF012

    def __init__(self, network: Any, folder: Path, device: str, dtype: str, feature_stage: int | None) -> None:
        self.network, self.device, self.dtype, self.feature_stage = network, device, dtype, feature_stage
        self.processor = load_part(transformers().AutoImageProcessor, folder, **self.part_options())

    @torch.inference_mode()
    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        """See `Segmenter.segment`."""
        check_one_size(images)
        inputs = self.inputs_of(images)
        with products_in(self.dtype, self.device):
            found = self.network(**inputs, output_hidden_states=True)
        features = self._features(found, inputs["pixel_values"].shape[-2:]).float()
        logits = found.class_queries_logits.float(), found.masks_queries_logits.float()
        return [Segmentation.of_queries(*maps) for maps in zip(*logits, features, strict=True)]

    def part_options(self) -> dict[str, Any]:
        """What the image processor is loaded with."""
        return {}

    def inputs_of(self, images: list[NDArray[np.uint8]]) -> dict[str, Tensor]:
        """What the network is called with."""
        pixels = self.processor(images, return_tensors="pt", **self.processor_options)["pixel_values"]
        return {"pixel_values": pixels.to(self.device)}

    def _features(self, found: Any, size: torch.Size) -> Tensor:
        stages = [map_ for map_ in found.encoder_hidden_states or () if map_.ndim == 4]
        if not stages and self.feature_stage is None:
            last: Tensor = found.pixel_decoder_last_hidden_state
            return last
        return nearest_to_stride_16(stages, size, self.feature_stage)


class OneFormer(MaskClassifier):
    """OneFormer, which is told its task in words."""

    def __init__(self, network: Any, folder: Path, device: str, dtype: str, feature_stage: int | None) -> None:
        super().__init__(network, folder, device, dtype, feature_stage)
        if not any((folder / name).is_file() for name in ("tokenizer.json", "merges.txt")):
            # Without them transformers makes a tokenizer that knows no word.
            raise ModelError(
                f"{folder} lacks the files of its tokenizer, which OneFormer needs: vocab.json, merges.txt"
            )
        tokenizer = load_part(transformers().AutoTokenizer, folder)
        length = network.config.task_seq_len
        tokens = tokenizer([TASK], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        # As its own processor has it: what is not looked at is 0.
        self.task = (tokens["input_ids"] * tokens["attention_mask"]).to(device)

    def part_options(self) -> dict[str, Any]:
        """Names of classes, which the processor would download, are not needed."""
        return {"class_info_file": None}

    def inputs_of(self, images: list[NDArray[np.uint8]]) -> dict[str, Tensor]:
        """What the network is called with: the images, and the task for each."""
        pixels = self.processor(images, task_inputs=["semantic"] * len(images), return_tensors="pt", do_pad=False)
        return {
            "pixel_values": pixels["pixel_values"].to(self.device),
            "task_inputs": self.task.expand(len(images), -1),
        }


class Eomt(MaskClassifier):
    """EoMT, a plain transformer that sees squares of one size.

    Its processor cuts the resized image into squares that overlap, for semantic segmentation; else it pads it to one.
    Features are the patch tokens of the last layer, or of the one asked for.
    """

    @torch.inference_mode()
    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        """See `Segmenter.segment`."""
        check_one_size(images)
        height, width, _ = images[0].shape
        # It sees one size, so an image that is not cut up has to be padded.
        split = bool(self.processor.do_split_image)
        inputs = self.processor(images, return_tensors="pt", do_split_image=split, do_pad=not split)
        pixels = inputs["pixel_values"].to(self.device)
        windows = self._windows(inputs, (height, width)) if split else self._padded(pixels.shape, (height, width))
        with products_in(self.dtype, self.device):
            found = self.network(pixels, output_hidden_states=self.feature_stage is not None)
        tokens = self._tokens(found, pixels.shape[-2:]).float()
        by_image = (len(images), len(windows.windows))
        logits = found.class_queries_logits.float(), found.masks_queries_logits.float()
        maps = (values.unflatten(0, by_image) for values in (*logits, tokens))
        return [
            Segmentation.of_queries(classes, masks, _stitched(features, windows), windows)
            for classes, masks, features in zip(*maps, strict=True)
        ]

    def _windows(self, inputs: Any, image: tuple[int, int]) -> Windows:
        """The squares of an image, which lie along its longer side."""
        down, across = inputs["pixel_values"].shape[-2:]
        offsets = [offset.tolist() for offset in inputs["patch_offsets"]]
        starts = [start for index, start, _ in offsets if index == 0]
        # Where the processor rounds the last offset down, nobody sees the last pixel, which its own merging leaves 0.
        last = max(starts)
        if image[0] > image[1]:
            return Windows(last + down, across, tuple(Window(start, 0, down, across) for start in starts))
        return Windows(down, last + across, tuple(Window(0, start, down, across) for start in starts))

    def _padded(self, shape: torch.Size, image: tuple[int, int]) -> Windows:
        """The one square of an image, which is larger than what was resized."""
        from transformers.image_transforms import get_size_with_aspect_ratio

        size = self.processor.size
        height, width = get_size_with_aspect_ratio(image, size["shortest_edge"], size["longest_edge"])
        return Windows(height, width, (Window(0, 0, shape[-2], shape[-1]),))

    def _tokens(self, found: Any, size: torch.Size) -> Tensor:
        if self.feature_stage is None:
            return as_map(found.last_hidden_state, size, self.network.config)
        stages = [as_map(state, size, self.network.config) for state in found.hidden_states]
        return nearest_to_stride_16(stages, size, self.feature_stage)


def _stitched(features: Tensor, windows: Windows) -> Tensor:
    """Features of windows `(W, D, h, w)` as one map `(D, h', w')` of the input."""
    window = windows.windows[0]
    if len(windows.windows) == 1:
        rows = max(1, round(windows.height * features.shape[-2] / window.height))
        columns = max(1, round(windows.width * features.shape[-1] / window.width))
        return features[0, :, :rows, :columns]
    parts = [Part(w.top, w.top + w.height, w.left, w.left + w.width) for w in windows.windows]
    return stitched([*zip(parts, features[:, None], strict=True)], windows.height, windows.width)[0]
