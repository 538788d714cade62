"""From a resolved model to the network itself, with its weights."""

from __future__ import annotations

from pathlib import Path

from oodray.errors import ModelError
from oodray.models.factory import make_segmenter
from oodray.models.segmenter import Segmenter
from oodray.models.source import ModelSource

TRIED_SIZE = (128, 128)
"""Height and width of the image that a network is tried out on, in pixels."""


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
    if source.checkpoint is None:
        return make_segmenter(source.name, source.search_path)
    if source.config is not None:
        return _load_config(source.config, source.checkpoint, source.feature_stage, device, dtype)
    return _load_known(source, source.checkpoint, device, dtype)


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
    if source.feature_stage is not None:
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
