"""Networks of other libraries as segmenters, for a factory of yours of a few lines:

    # my_net.py, for `oodray run --model my_net:make`
    from oodray.models.modules import of_torchvision

    def make():
        return of_torchvision("deeplabv3_resnet50", "weights.pth", classes=19)

`of_torchvision` and `of_smp` make networks of torchvision and of segmentation_models.pytorch with weights of yours,
`ModuleSegmenter` takes any `torch.nn.Module`, and `OnnxSegmenter` an ONNX file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from oodray.errors import ModelError
from oodray.models.feature_stage import nearest_to_stride_16
from oodray.models.segmenter import Segmentation, check_one_size
from oodray.models.weights.parameters import load_weights_from

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, as torchvision and segmentation_models.pytorch have them."""


def of_torchvision(name: str, weights: str | Path, *, classes: int, device: str = "cpu") -> ModuleSegmenter:
    """A segmentation network of torchvision, such as `deeplabv3_resnet50`.

    Args:
        name: of the function in `torchvision.models.segmentation`.
        weights: a checkpoint that fits it; never executed.
        classes: that it tells apart.
        device: where to run, `"cpu"` or `"cuda"`.

    Raises:
        ModelError: torchvision is not here, has no such network, or the weights do not fit.
    """
    try:
        from torchvision.models import get_model, list_models, segmentation
    except ImportError:
        raise ModelError("networks of torchvision need it: pip install torchvision") from None
    known = list_models(module=segmentation)
    if name not in known:
        raise ModelError(f"torchvision.models.segmentation has no network {name!r}; it has {', '.join(known)}")
    network = get_model(name, weights=None, weights_backbone=None, num_classes=classes)
    load_weights_from(network, Path(weights))
    return ModuleSegmenter(network, features="backbone", device=device)


def of_smp(
    architecture: str, encoder: str, weights: str | Path, *, classes: int, device: str = "cpu"
) -> ModuleSegmenter:
    """A network of segmentation_models.pytorch, such as `Unet` with the encoder `resnet34`.

    Args:
        architecture: the name of its class.
        encoder: the name of its encoder.
        weights: a checkpoint that fits it; never executed.
        classes: that it tells apart.
        device: where to run, `"cpu"` or `"cuda"`.

    Raises:
        ModelError: the package is not here, has no such network, or the weights do not fit.
    """
    try:
        import segmentation_models_pytorch as smp
    except ImportError:
        raise ModelError("pip install segmentation-models-pytorch, which of_smp makes networks of") from None
    try:
        network = smp.create_model(architecture, encoder, encoder_weights=None, classes=classes)
    except (KeyError, ValueError, RuntimeError) as error:
        raise ModelError(f"segmentation_models_pytorch cannot make {architecture} with {encoder}: {error}") from error
    load_weights_from(network, Path(weights))
    return ModuleSegmenter(network, features="encoder", divisor=32, device=device)


class ModuleSegmenter:
    """Any `torch.nn.Module` from normalised images to logits as a `Segmenter`.

    Its output is a tensor `(N, C, h, w)`, or a dict with one under `out`, as torchvision has it.

    Args:
        network: with its weights.
        features: the name of the part of the network whose output is clustered: a map, or several, of which the one of
            stride 16 is taken.
        mean: of each channel, of pixels within 0..1.
        std: of each channel.
        divisor: what the sides of an image must be multiples of; it is padded with the mean, and that is cut off.
        device: where to run, `"cpu"` or `"cuda"`.

    Raises:
        ModelError: the network has no such part.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        features: str,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        divisor: int = 1,
        device: str = "cpu",
    ) -> None:
        parts = dict(network.named_modules())
        if features not in parts:
            raise ModelError(
                f"the network has no part {features!r}; it has {', '.join(name for name in parts if name)}"
            )
        self.network, self.device, self.divisor = network.to(device).eval(), device, divisor
        self.mean, self.std = mean, std
        self._stages: list[Tensor] = []
        parts[features].register_forward_hook(self._take_stages)

    @torch.inference_mode()
    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        """See `Segmenter.segment`."""
        check_one_size(images)
        pixels = normalised(images, self.mean, self.std, self.divisor).to(self.device)
        found = self.network(pixels)
        logits: Tensor = found["out"] if isinstance(found, Mapping) else found
        features = nearest_to_stride_16(self._stages, pixels.shape[-2:])
        self._stages = []
        padded, size = (pixels.shape[-2], pixels.shape[-1]), images[0].shape[:2]
        maps = (without_padding(values.float(), padded, size) for values in (logits, features))
        return [Segmentation(*both) for both in zip(*maps, strict=True)]

    def _take_stages(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        values = output.values() if isinstance(output, Mapping) else [output] if isinstance(output, Tensor) else output
        self._stages = [value for value in values if isinstance(value, Tensor) and value.ndim == 4]


class OnnxSegmenter:
    """An ONNX file with an output for logits and one for features as a `Segmenter`, by onnxruntime.

    Args:
        path: of the file.
        logits: the name of the output `(N, C, h, w)` with class scores before softmax.
        features: the name of the output `(N, D, h', w')` that is clustered.
        mean: of each channel, of pixels within 0..1.
        std: of each channel.
        divisor: what the sides of an image must be multiples of; it is padded with the mean, and that is cut off.
        providers: of onnxruntime, such as `["CUDAExecutionProvider"]`; None for the CPU.

    Raises:
        ModelError: onnxruntime is not here, or the file has no such outputs.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        logits: str,
        features: str,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        divisor: int = 1,
        providers: Sequence[str] | None = None,
    ) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise ModelError("ONNX files need onnxruntime: pip install onnxruntime") from None
        try:
            self.session = onnxruntime.InferenceSession(str(path), providers=providers or ["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(f"{path} cannot be read as an ONNX file: {error}") from error
        given = [output.name for output in self.session.get_outputs()]
        if missing := [name for name in (logits, features) if name not in given]:
            raise ModelError(f"{path} has no output {missing[0]!r}; it has {', '.join(given)}")
        self.outputs, self.input = [logits, features], self.session.get_inputs()[0].name
        self.mean, self.std, self.divisor = mean, std, divisor

    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        """See `Segmenter.segment`."""
        check_one_size(images)
        pixels = normalised(images, self.mean, self.std, self.divisor)
        padded, size = (pixels.shape[-2], pixels.shape[-1]), images[0].shape[:2]
        found = self.session.run(self.outputs, {self.input: pixels.numpy()})
        maps = (without_padding(torch.from_numpy(values).float(), padded, size) for values in found)
        return [Segmentation(*both) for both in zip(*maps, strict=True)]


def normalised(
    images: list[NDArray[np.uint8]], mean: Sequence[float], std: Sequence[float], divisor: int = 1
) -> Tensor:
    """`(N, 3, H, W)` float32 of images `(h, w, 3)` uint8 RGB, padded at the right and the bottom with the mean.

    >>> normalised([np.full((1, 2, 3), 255, np.uint8)], (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 4)[0, 0].tolist()
    [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    centre, spread = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    below, right = (-side % divisor for side in pixels.shape[-2:])
    return nn.functional.pad((pixels - centre) / spread, (0, right, 0, below))


def without_padding(maps: Tensor, padded: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The part of maps `(N, C, h, w)` that covers the image, to the nearest row and column of theirs."""
    if padded == size:
        return maps
    rows, columns = (
        max(1, math.ceil(side * count / whole))
        for side, count, whole in zip(size, maps.shape[-2:], padded, strict=True)
    )
    return maps[..., :rows, :columns]
