"""From a resolved model to the network itself, with its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oodray.config import NO_CHECKPOINT
from oodray.errors import ConfigError, ModelError
from oodray.models.dtype import FLOAT32, choose_dtype
from oodray.models.factory import make_segmenter
from oodray.models.network import Network
from oodray.models.segmenter import Segmenter
from oodray.models.source import ModelSource, PassSettings, resolve_models
from oodray.models.weights.hub import weight_files

TRIED_SIZE, LARGER_SIZE = (128, 128), (512, 1024)
"""Height and width of the image that a network is tried out on, and of a second one if it fails on the first."""


def load(
    model: str | Path | Sequence[str | Path],
    *,
    checkpoint: str | Path | Sequence[str | Path | None] | None = None,
    feature_stage: int | None = None,
    features: str | Path | None = None,
    device: str | None = None,
    dtype: str | None = None,
    flip: bool = False,
    scales: Sequence[float] = (),
    mc_dropout: int = 0,
    seed: int = 0,
) -> Network:
    """A network, ready to segment images in this process.

    Args:
        model: a name (`oodray models`), a config of mmsegmentation, `hf:ORG/NAME`, a folder of a Hugging Face model, or
            `package.module:factory`. Configs and factories are Python, and are executed. Of several, the mean of their
            probabilities is taken.
        checkpoint: the weights of a config; for a name, others than its own. Of several networks, one for each.
        feature_stage: which of the network's maps is clustered, counted from 0; None is the one of stride 16.
        features: a Hugging Face model, whose features are clustered instead.
        device: `"cpu"` or `"cuda"`; None is a GPU where torch has one.
        dtype: in which it multiplies: `"float32"`, `"bfloat16"` or, on GPUs, `"float16"`; `"auto"` is bfloat16 on GPUs
            and float32 on CPUs. None is float32, and with a factory whatever the factory takes, alone.
        flip: average probabilities over an image and its mirror image.
        scales: average probabilities over these sizes of an image.
        mc_dropout: average probabilities over so many passes with active dropout.
        seed: of the dropout.

    Raises:
        ModelError: if there is no such network, its weights are not here, or arguments do not go together.
        ConfigError: if device or dtype cannot be had.

    >>> network = load("internimage-n-demo", device="cpu")
    >>> network.name, network.tau, network.dtype
    ('internimage-n-demo', 3.52734375, 'float32')
    """
    source = resolve_models(
        _texts(model),
        _texts(checkpoint),
        feature_stage=feature_stage,
        features=None if features is None else str(features),
        passes=PassSettings(flip, tuple(scales), mc_dropout, seed),
    )
    device = _choose_device(device)
    dtype = choose_dtype(dtype, source, device)
    return Network(source, device, dtype, load_segmenter(source, device, dtype or FLOAT32))


def _texts(given: str | Path | Sequence[str | Path | None] | None) -> list[str]:
    """One, or several, as a list."""
    several = [given] if given is None or isinstance(given, str | Path) else given
    return [NO_CHECKPOINT if one is None else str(one) for one in several]


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
    segmenter = _load_passes(source, device, dtype) if source.several_passes else _load(source, device, dtype)
    if source.features is None:
        return segmenter
    from oodray.models.hugging_face import HuggingFaceFeatures, WithFeatures

    both = WithFeatures(segmenter, HuggingFaceFeatures(source.features, device=device, dtype=dtype))
    _try_out(both, TRIED_SIZE)
    return both


def _load_passes(source: ModelSource, device: str, dtype: str) -> Segmenter:
    from oodray.models.passes import Passes, views_of

    members = [(member.name, _load(member, device, dtype)) for member in source.networks]
    settings = source.passes
    views = views_of(settings.scales, flip=settings.flip)
    segmenter = Passes(members, views, dropout=settings.dropout, seed=settings.seed)
    _try_out(segmenter, TRIED_SIZE)  # whether all members have the same classes shows now
    return segmenter


def remarks_on(source: ModelSource) -> tuple[str, ...]:
    """What is done to find the weights in files that are not the published ones.

    Raises:
        ModelError: a file cannot be read.
    """
    files = [net.checkpoint for net in source.networks if net.checkpoint is not None and net.sha256 is None]
    for folder in (net.folder for net in source.networks if net.folder is not None):
        files += weight_files(folder) if len(weight_files(folder)) == 1 else []
    if not files:
        return ()
    from oodray.models.weights.checkpoints import read_checkpoint  # imports torch

    found = (read_checkpoint(file).remark for file in files)
    # Many networks of Hugging Face have a part named model, which is no word of a trainer's.
    return tuple(remark for remark in found if remark is not None and "'model.'" not in remark)


def try_network(source: ModelSource) -> None:
    """Load a network and let it segment an image, on the CPU of this process, before others load it.

    Networks whose weights are the published ones are not tried, and neither are factories, which may need what only a
    worker has.

    Raises:
        ModelError: it cannot be built, or cannot segment.
    """
    if any(network.from_factory for network in source.networks):
        return
    if source.features is None and not source.several_passes and source.sha256 is not None:
        return
    load_segmenter(source)


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

    A network that fails on it is tried once more on a larger one: some average windows that it does not fill.

    Raises:
        ModelError: it cannot, and why.
    """
    import numpy as np

    for height, width in (size, LARGER_SIZE):
        try:
            segmenter.segment([np.zeros((height, width, 3), np.uint8)])
        except ModelError:
            raise
        except Exception as error:
            failure = ModelError(
                f"the network cannot segment an image of {width}x{height} pixels: {type(error).__name__}: {error}"
            )
            failure.__cause__ = error
        else:
            return
    raise failure
