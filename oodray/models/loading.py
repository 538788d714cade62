"""From a resolved model to the network itself, with its weights."""

from __future__ import annotations

from pathlib import Path

from oodray.errors import ConfigError, ModelError
from oodray.models.dtype import FLOAT32, choose_dtype
from oodray.models.factory import make_segmenter
from oodray.models.network import Network
from oodray.models.segmenter import Segmenter
from oodray.models.source import ModelSource, resolve_model

TRIED_SIZE = (128, 128)
"""Height and width of the image that a network is tried out on, in pixels."""


def load(
    model: str | Path,
    *,
    checkpoint: str | Path | None = None,
    feature_stage: int | None = None,
    features: str | Path | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> Network:
    """A network, ready to segment images in this process.

    Args:
        model: a name (`oodray models`), a config of mmsegmentation, `hf:ORG/NAME`, a folder of a Hugging Face model, or
            `package.module:factory`. Configs and factories are Python, and are executed.
        checkpoint: the weights of a config; for a name, others than its own.
        feature_stage: which of the network's maps is clustered, counted from 0; None is the one of stride 16.
        features: a Hugging Face model, whose features are clustered instead.
        device: `"cpu"` or `"cuda"`; None is a GPU where torch has one.
        dtype: in which it multiplies: `"float32"`, `"bfloat16"` or, on GPUs, `"float16"`; `"auto"` is bfloat16 on GPUs
            and float32 on CPUs. None is float32, and with a factory whatever the factory takes, alone.

    Raises:
        ModelError: if there is no such network, its weights are not here, or arguments do not go together.
        ConfigError: if device or dtype cannot be had.

    >>> network = load("internimage-n-demo", device="cpu")
    >>> network.name, network.tau, network.dtype
    ('internimage-n-demo', 3.52734375, 'float32')
    """
    source = resolve_model(
        str(model),
        None if checkpoint is None else str(checkpoint),
        feature_stage=feature_stage,
        features=None if features is None else str(features),
    )
    device = _choose_device(device)
    dtype = choose_dtype(dtype, source, device)
    return Network(source, device, dtype, load_segmenter(source, device, dtype or FLOAT32))


def _choose_device(asked: str | None) -> str:
    import torch

    if asked not in (None, "cpu", "cuda"):
        raise ConfigError(f"device must be cpu or cuda, got {asked!r}")
    has_gpu = torch.cuda.is_available()
    if asked == "cuda" and not has_gpu:
        raise ConfigError("device cuda: torch finds no GPU here, and `oodray doctor` says why; take cpu")
    return asked or ("cuda" if has_gpu else "cpu")


def load_segmenter(source: ModelSource, device: str = "cpu", dtype: str = FLOAT32) -> Segmenter:
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
        return _load_folder(source.folder, source.feature_stage, device, dtype)
    if source.checkpoint is None:
        return make_segmenter(source.name, source.search_path)
    if source.config is not None:
        return _load_config(source.config, source.checkpoint, source.feature_stage, device, dtype)
    return _load_known(source, source.checkpoint, device, dtype)


def _load_folder(folder: Path, feature_stage: int | None, device: str, dtype: str) -> Segmenter:
    from oodray.models.mask_classifiers import is_mask_classifier, load_mask_classifier

    segmenter: Segmenter
    if is_mask_classifier(folder):
        segmenter = load_mask_classifier(folder, device=device, dtype=dtype, feature_stage=feature_stage)
    else:
        from oodray.models.hugging_face import HuggingFaceSegmenter

        segmenter = HuggingFaceSegmenter(folder, device=device, dtype=dtype, feature_stage=feature_stage)
    _try_out(segmenter, TRIED_SIZE)
    return segmenter


def _load_config(config: Path, checkpoint: Path, feature_stage: int | None, device: str, dtype: str) -> Segmenter:
    from oodray.models.mmseg import load_mmseg_segmenter

    segmenter = load_mmseg_segmenter(config, checkpoint, device=device, dtype=dtype, feature_stage=feature_stage)
    # A network that nobody here has run: what it cannot do shows now, not with every image.
    _try_out(segmenter, segmenter.sliding[0] if segmenter.sliding else TRIED_SIZE)
    return segmenter


def _load_known(source: ModelSource, checkpoint: Path, device: str, dtype: str) -> Segmenter:
    from oodray.models.internimage.segmenter import load_internimage

    assert source.architecture is not None
    segmenter = load_internimage(
        source.architecture,
        checkpoint,
        classes=source.classes,
        device=device,
        dtype=dtype,
        input_rule=source.input_rule,
        feature_stage=source.feature_stage,
    )
    # Compiled code, too, is loaded with the network and not with the first image, beside whatever else is prepared.
    _try_out(segmenter, TRIED_SIZE)
    return segmenter


def _try_out(segmenter: Segmenter, size: tuple[int, int]) -> None:
    """Segment a black image of `size`, height and width, to find out at once whether the network can be used.

    Raises:
        ModelError: it cannot, and why.
    """
    import numpy as np

    height, width = size
    try:
        segmenter.segment([np.zeros((height, width, 3), np.uint8)])
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"the network cannot segment an image of {width}x{height} pixels: {type(error).__name__}: {error}"
        ) from error
