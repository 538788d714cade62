"""The seam between networks and the method: image in, logits and features out."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from oodray.errors import ImageError, ModelError
from oodray.models.input_rule import InputRule
from oodray.models.weights.hub import folder_sha256, is_hugging_face, model_folder
from oodray.models.weights.zoo import find_checkpoint, get_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Segmentation:
    """What a network says of one image. Both maps cover exactly the image, at whatever resolution they have.

    Attributes:
        logits: `(C, h, w)`, class scores before softmax.
        features: `(D, h', w')`, the backbone's third stage, or whatever is to be clustered.
    """

    logits: Tensor
    features: Tensor


@runtime_checkable
class Segmenter(Protocol):
    """A trained closed-set segmentation network.

    Any object with this method can be run: `--model package.module:factory` names a callable without
    arguments that returns one.
    """

    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        """Segment images of one size, each `(H, W, 3)` uint8 RGB; one result per image, in order."""
        ...


@dataclass(frozen=True)
class ModelSource:
    """Where a segmenter comes from, resolved once and small enough to be sent to every worker.

    Attributes:
        name: what the user asked for.
        config: the mmsegmentation config, None for a factory.
        checkpoint: the weights, None for a factory.
        classes: how many channels of the logits to use, None for all.
        input_rule: the size at which the network sees an image, its own when None.
        search_path: folder to import a factory from, the driver's working directory.
        code: the file of yours that makes the network, a config or the module of a factory; None for a name.
        sha256: of the checkpoint as published, None where nothing was.
        folder: the files of a Hugging Face model, None for everything else.
        feature_stage: which of the network's maps is clustered, counted from 0; None is the one of stride 16.
        features: the files of another Hugging Face model, whose features are clustered instead.
        tau: the threshold known for this network, if any.
        remark: what the user should know of this network, if anything.
    """

    name: str
    config: Path | None = None
    checkpoint: Path | None = None
    classes: int | None = None
    input_rule: InputRule | None = None
    search_path: str | None = None
    code: Path | None = None
    sha256: str | None = None
    tau: float | None = None
    remark: str | None = None
    folder: Path | None = None
    feature_stage: int | None = None
    features: Path | None = None

    @property
    def from_factory(self) -> bool:
        """Whether code of yours makes the segmenter, instead of a config."""
        return self.config is None and self.folder is None

    @property
    def own_code(self) -> Path | None:
        """The file of yours that every worker reads; None for a name, and for a factory of an installed package."""
        if self.code is None or self.config is not None:
            return self.code
        return self.code if self.search_path and self.code.is_relative_to(self.search_path) else None

    def files(self) -> list[Path]:
        """What holds the weights, those of the features included: files, or folders; nothing for a factory."""
        return [path for path in (self.checkpoint, self.folder, self.features) if path is not None]

    def weights_sha256(self) -> str | None:
        """Of whatever holds the weights; None for a factory."""
        if self.folder is not None:
            return folder_sha256(self.folder)
        if self.checkpoint is None:
            return None
        from oodray.models.weights.checkpoints import file_sha256

        return file_sha256(self.checkpoint)

    def features_sha256(self) -> str | None:
        """Of the network that the features are from; None where it is the segmenter itself."""
        return None if self.features is None else folder_sha256(self.features)


def resolve_model(
    model: str, checkpoint: str | None = None, *, feature_stage: int | None = None, features: str | None = None
) -> ModelSource:
    """What `--model` and the options beside it mean.

    Args:
        model: a name, an mmsegmentation config, a Hugging Face model, or `package.module:factory`.
        checkpoint: weights for a name or a config.
        feature_stage: which of the network's maps is clustered.
        features: a Hugging Face model, whose features are clustered instead.

    Raises:
        ModelError: if there is no such model, its weights are not here, or options do not go together.
    """
    if features is not None and feature_stage is not None:
        raise ModelError("--feature-stage chooses a map of the segmenter, --features takes another network: pass one")
    source = _resolve_segmenter(model, checkpoint)
    if feature_stage is not None and source.from_factory:
        raise ModelError(f"--feature-stage does not go with the factory {model}: the factory chooses its features")
    folder = None if features is None else model_folder(features)
    return replace(source, feature_stage=feature_stage, features=folder)


def _resolve_segmenter(model: str, checkpoint: str | None) -> ModelSource:
    if is_hugging_face(model):
        if checkpoint is not None:
            raise ModelError(
                f"--checkpoint does not go with the Hugging Face model {model}: its folder has the weights"
            )
        return ModelSource(model, folder=model_folder(model))
    if ":" in model and not model.endswith(".py"):
        if checkpoint is not None:
            raise ModelError(f"--checkpoint does not go with the factory {model}: the factory loads its own weights")
        source = ModelSource(model, search_path=str(Path.cwd()))
        # What cannot be imported here is found out before anything is started.
        return replace(source, code=_source_file(_import_factory(source)))
    if model.endswith(".py"):
        if checkpoint is None:
            raise ModelError(f"the config {model} needs weights: pass --checkpoint FILE")
        config = _config_file(model)
        return ModelSource(str(config), config=config, checkpoint=_existing(checkpoint, "checkpoint"), code=config)

    known = get_model(model)
    weights = find_checkpoint(known) if checkpoint is None else _existing(checkpoint, "checkpoint")
    return ModelSource(
        model,
        config=known.config,
        checkpoint=weights,
        classes=known.classes,
        input_rule=known.input_rule,
        # These two belong to the weights, not to the name.
        sha256=known.sha256 if checkpoint is None else None,
        tau=known.tau if checkpoint is None else None,
        remark=known.remark,
    )


def load_segmenter(source: ModelSource, device: str = "cpu", dtype: str = "float32") -> Segmenter:
    """The segmenter of a resolved model, its network on `device`, with its products in `dtype`.

    A factory decides both for itself.

    Raises:
        ModelError: if it cannot be built.
    """
    segmenter = _load(source, device, dtype)
    if source.features is None:
        return segmenter
    from oodray.models.hugging_face import HuggingFaceFeatures, WithFeatures

    return WithFeatures(segmenter, HuggingFaceFeatures(source.features, device=device, dtype=dtype))


def _load(source: ModelSource, device: str, dtype: str) -> Segmenter:
    if source.folder is not None:
        from oodray.models.hugging_face import HuggingFaceSegmenter

        return HuggingFaceSegmenter(source.folder, device=device, dtype=dtype, feature_stage=source.feature_stage)
    if source.config is None or source.checkpoint is None:
        return _call_factory(source)

    from oodray.models.mmseg import load_mmseg_segmenter

    segmenter = load_mmseg_segmenter(
        source.config,
        source.checkpoint,
        classes=source.classes,
        device=device,
        dtype=dtype,
        input_rule=source.input_rule,
        feature_stage=source.feature_stage,
    )
    if source.code is not None or source.feature_stage is not None:
        # A network that nobody here has run: what it cannot do shows now, not with every image.
        segmenter.try_out()
    return segmenter


def check_segmentations(segmentations: list[Segmentation], images: int) -> list[Segmentation]:
    """What a segmenter returned for `images` images, if it keeps to the protocol.

    Raises:
        ImageError: saying what it returned instead.
    """
    if len(segmentations) != images:
        raise ImageError(f"the segmenter returned {len(segmentations)} results for {images} images")
    for found in segmentations:
        _check_map("logits", found.logits)
        _check_map("features", found.features)
    return segmentations


def _check_map(name: str, values: Any) -> None:
    import torch

    if not isinstance(values, torch.Tensor):
        raise ImageError(f"the segmenter returned {name} of type {type(values).__name__}, expected a tensor")
    if values.ndim != 3 or not values.numel() or not values.is_floating_point():
        raise ImageError(
            f"the segmenter returned {name} of {values.dtype} {tuple(values.shape)}, "
            "expected floats (channels, height, width)"
        )


def _import_factory(source: ModelSource) -> Callable[[], Any]:
    module_name, _, factory_name = source.name.partition(":")
    if source.search_path is not None and source.search_path not in sys.path:
        sys.path.insert(0, source.search_path)
    try:
        factory: Callable[[], Any] = getattr(importlib.import_module(module_name), factory_name)
    except Exception as error:
        raise ModelError(
            f"cannot import the factory {source.name}: {type(error).__name__}: {error}. "
            f"It is looked for in {source.search_path} and on PYTHONPATH, here and on every worker."
        ) from error
    return factory


def _source_file(factory: Callable[[], Any]) -> Path | None:
    file = getattr(sys.modules.get(getattr(factory, "__module__", "")), "__file__", None)
    return None if file is None else Path(file)


def _call_factory(source: ModelSource) -> Segmenter:
    factory = _import_factory(source)
    try:
        segmenter = factory()
    except Exception as error:
        raise ModelError(f"the factory {source.name} failed: {type(error).__name__}: {error}") from error
    if isinstance(segmenter, type) or not isinstance(segmenter, Segmenter):
        raise ModelError(
            f"the factory {source.name} returned {segmenter!r}; it must return an object with a method "
            "segment(images), see oodray.Segmenter"
        )
    return segmenter


def _config_file(name: str) -> Path:
    """A config of mmsegmentation: a file, or one that its package ships, such as `segformer/NAME.py`."""
    package = importlib.util.find_spec("mmseg")
    for folder in package.submodule_search_locations or () if package else ():
        shipped = Path(folder) / ".mim" / "configs" / name
        if not Path(name).expanduser().is_file() and shipped.is_file():
            return shipped
    return _existing(name, "config")


def _existing(path: str, what: str) -> Path:
    found = Path(path).expanduser().resolve()
    if not found.is_file():
        raise ModelError(f"the {what} {path} does not exist")
    return found
