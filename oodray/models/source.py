"""Where a network comes from: what `--model` and the options beside it mean. Nothing of it is loaded here."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from oodray.config import NO_CHECKPOINT
from oodray.errors import ModelError
from oodray.models.factory import import_factory, source_file
from oodray.models.input_rule import InputRule
from oodray.models.weights.hub import folder_sha256, is_hugging_face, model_folder
from oodray.models.weights.zoo import ZooModel, find_checkpoint, get_model, model_names
from oodray.spelling import did_you_mean


@dataclass(frozen=True)
class PassSettings:
    """How often, and how, each network sees an image.

    Attributes:
        flip: its mirror image, too.
        scales: at these sizes, as a share of its own; none for its own alone.
        dropout: so many times with active dropout; 0 for once, without.
        seed: of the dropout.
    """

    flip: bool = False
    scales: tuple[float, ...] = ()
    dropout: int = 0
    seed: int = 0


@dataclass(frozen=True)
class ModelSource:
    """Where a segmenter comes from, resolved once and small enough to be sent to every worker.

    Attributes:
        name: what the user asked for.
        architecture: of a network known by name, see `oodray.models.internimage.architecture`.
        config: an mmsegmentation config.
        checkpoint: the weights of a name or a config.
        classes: how many channels of the logits to use, None for all.
        input_rule: the size at which the network sees an image, its own when None.
        search_path: folder to import a factory from, the driver's working directory.
        code: the file of yours that makes the network, a config or the module of a factory; None for a name.
        sha256: of the checkpoint as published, None where nothing was.
        folder: the files of a Hugging Face model.
        feature_stage: which of the network's maps is clustered, counted from 0; None is the one of stride 16.
        features: the files of another Hugging Face model, whose features are clustered instead.
        tau: the threshold known for this network, if any.
        remark: what the user should know of this network, if anything.
        members: further networks of an ensemble.
        passes: how each of them is asked.
    """

    name: str
    architecture: str | None = None
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
    members: tuple[ModelSource, ...] = ()
    passes: PassSettings = PassSettings()

    @property
    def several_passes(self) -> bool:
        """Whether an image is looked at more than once, and probabilities are averaged."""
        return bool(self.members) or self.passes != PassSettings(seed=self.passes.seed)

    @property
    def networks(self) -> tuple[ModelSource, ...]:
        """This one, and the further ones."""
        return (self, *self.members)

    def gives_queries(self) -> bool | None:
        """Whether the networks are mask classifiers; None where only running them shows it."""
        found = [source._gives_queries() for source in self.networks]
        return False if False in found else None if None in found else True

    def _gives_queries(self) -> bool | None:
        if self.from_factory:
            return None
        if self.folder is None:
            return False
        from oodray.models.mask_classifiers import is_mask_classifier

        return is_mask_classifier(self.folder)

    @property
    def from_factory(self) -> bool:
        """Whether a callable of yours makes the segmenter."""
        return self.architecture is None and self.config is None and self.folder is None

    @property
    def own_code(self) -> Path | None:
        """The file of yours that every worker reads; None for a name, and for a factory of an installed package."""
        if self.code is None or self.config is not None:
            return self.code
        return self.code if self.search_path and self.code.is_relative_to(self.search_path) else None

    def files(self) -> list[Path]:
        """What holds the weights, those of the features included: files, or folders; nothing for a factory."""
        own = [path for path in (self.checkpoint, self.folder, self.features) if path is not None]
        return own + [path for member in self.members for path in member.files()]

    def weights_sha256(self) -> str | None:
        """Of whatever holds the weights; None for a factory."""
        if self.folder is not None:
            return folder_sha256(self.folder)
        if self.checkpoint is None:
            return None
        from oodray.models.weights.wrong_files import file_sha256

        return file_sha256(self.checkpoint)

    def features_sha256(self) -> str | None:
        """Of the network that the features are from; None where it is the segmenter itself."""
        return None if self.features is None else folder_sha256(self.features)

    def identity(self) -> dict[str, Any]:
        """What tells this network, which of its maps is clustered, and how often it sees an image, from others."""
        return {
            "model": self.name,
            "model_sha256": self.weights_sha256(),
            "code_sha256": self.code_sha256(),
            "features_sha256": self.features_sha256(),
            "feature_stage": self.feature_stage,
            "members_sha256": self.members_sha256(),
            "flip": self.passes.flip,
            "scales": list(self.passes.scales),
            "mc_dropout": self.passes.dropout,
        }

    def code_sha256(self) -> str | None:
        """Of the file that makes the network; None where none does."""
        from oodray.models.weights.wrong_files import file_sha256

        return None if self.code is None else file_sha256(self.code)

    def members_sha256(self) -> list[list[str | None]]:
        """Of the weights and the code of each further network."""
        return [[member.weights_sha256(), member.code_sha256()] for member in self.members]


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


def resolve_models(
    models: Sequence[str],
    checkpoints: Sequence[str | None],
    *,
    feature_stage: int | None = None,
    features: str | None = None,
    passes: PassSettings = PassSettings(),
) -> ModelSource:
    """As `resolve_model`, of one network or several, and how each is asked; features are those of the first.

    Raises:
        ModelError: see `resolve_model`; or there are not as many checkpoints as networks.
    """
    given = [None if checkpoint in (None, NO_CHECKPOINT) else checkpoint for checkpoint in checkpoints]
    if any(given) and len(given) != len(models):
        raise ModelError(
            f"{len(given)} --checkpoint for {len(models)} --model: give one for each, in their order, and "
            f"`--checkpoint {NO_CHECKPOINT}` for a network that has its own weights"
        )
    given = given if any(given) else [None] * len(models)
    first = resolve_model(models[0], given[0], feature_stage=feature_stage, features=features)
    members = tuple(_resolve_segmenter(*pair) for pair in zip(models[1:], given[1:], strict=True))
    found = replace(first, members=members, passes=passes)
    # A threshold on logits is none on the logarithm of a mean probability.
    return replace(found, tau=None) if found.several_passes else found


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
        return replace(source, code=source_file(import_factory(source.name, source.search_path)))
    if model.endswith(".py"):
        if checkpoint is None:
            raise ModelError(f"the config {model} needs weights: pass --checkpoint FILE")
        config = _config_file(model)
        return ModelSource(str(config), config=config, checkpoint=_existing(checkpoint, "checkpoint"), code=config)

    known = _known(model)
    weights = find_checkpoint(known) if checkpoint is None else _existing(checkpoint, "checkpoint")
    return ModelSource(
        model,
        architecture=known.architecture,
        checkpoint=weights,
        classes=known.classes,
        input_rule=known.input_rule,
        # These two belong to the weights, not to the name.
        sha256=known.sha256 if checkpoint is None else None,
        tau=known.tau if checkpoint is None else None,
        remark=known.remark,
    )


def _known(name: str) -> ZooModel:
    """A network known by name; of others the message says what may have been meant."""
    if name in model_names():
        return get_model(name)
    if name.startswith(("/", "./", "../", "~")):
        raise ModelError(f"the model {name} does not exist, or is no folder of Hugging Face: it has no config.json")
    configs = {path.stem: f"{path.parent.name}/{path.name}" for path in _shipped_configs()}
    meant = did_you_mean(name, [*model_names(), *configs], what="known")
    if name in configs:
        meant = f"mmsegmentation ships a config {configs[name]}, which needs --checkpoint FILE."
    elif meant.startswith("known"):
        meant = f"known names: {', '.join(model_names())}."
    raise ModelError(
        f"unknown model {name!r}; {meant} A model of Hugging Face is hf:ORG/NAME or a folder with its config.json, "
        "a config of mmsegmentation ends in .py, and a factory of yours is package.module:factory"
    )


def _shipped_configs() -> list[Path]:
    """The configs in mmsegmentation's package."""
    package = importlib.util.find_spec("mmseg")
    folders = (
        [Path(folder) / ".mim" / "configs" for folder in package.submodule_search_locations or ()] if package else []
    )
    return [path for folder in folders for path in sorted(folder.glob("*/*.py")) if path.parent.name != "_base_"]


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
