"""From a resolved model to the network itself, with its weights."""

from __future__ import annotations

from oodray.models.factory import make_segmenter
from oodray.models.segmenter import Segmenter
from oodray.models.source import ModelSource


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
        return make_segmenter(source.name, source.search_path)

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
