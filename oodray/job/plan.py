"""From a configuration to everything that is known before the first image; what is wrong is found here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from oodray.cluster.capacity import wait_for_room
from oodray.cluster.device import choose_device, refuse_absent_gpu
from oodray.cluster.pool import crowding
from oodray.config import SELF, RunConfig, fingerprint
from oodray.datasets.layouts import Layout, count_warning
from oodray.datasets.manifest import build_manifest, listing_digest
from oodray.datasets.members import file_of
from oodray.datasets.own import folder_of
from oodray.datasets.remarks import remarks
from oodray.datasets.unit_size import cut_by_size
from oodray.datasets.white_masks import white_masks_warning
from oodray.errors import ConfigError, ResultsError
from oodray.job.foreign_code import refuse_code_of_the_dataset
from oodray.job.layers import Layers, read_layers
from oodray.method.settings import MethodSettings
from oodray.metrics.tally import snap_threshold
from oodray.models.dtype import FLOAT32, choose_dtype, dtype_warning
from oodray.models.loading import load_segmenter
from oodray.models.segmenter import PASSES, QUERIES, Segmenter
from oodray.models.source import ModelSource, PassSettings, resolve_models
from oodray.models.weights.wrong_files import file_sha256, refuse_wrong_file
from oodray.phases import phase
from oodray.results.folder import ResultsFolder
from oodray.scores.fitted.folder import Fit, FitFolder, network_identity
from oodray.scores.logits import Energy
from oodray.scores.pooled import Pool
from oodray.scores.registry import KNOWN, is_own, names_of, pixel_scores, source_files
from oodray.settings import Settings
from oodray.storage.place import Place, storage_path

LoadNetwork = partial[Segmenter]
"""Loads a network; raises what keeps it from starting."""

METHOD_VERSION = 5
"""Raised when the same input would give other numbers: results of two versions are never mixed."""


@dataclass(frozen=True)
class Plan:
    """A run, resolved.

    Attributes:
        config: the configuration, with nothing left open that decides a number.
        layout: the dataset's layout.
        root: the dataset's folder.
        manifest: one row per image.
        model: where the network comes from.
        model_sha256: of its checkpoint, None for a factory.
        code_sha256: of the user's file that makes the network, None where a name does.
        fit_sha256: of the fit that scores are made of; `SELF` where that is made of the run's own images, None
            without one.
        device: `"cuda"` or `"cpu"`.
        warnings: what the user should know.
        search_path: the folder to import scores of yours from.
    """

    config: RunConfig
    layout: Layout
    root: Place
    manifest: pa.Table
    model: ModelSource
    model_sha256: str | None
    code_sha256: str | None
    fit_sha256: str | None
    device: str
    warnings: tuple[str, ...]
    search_path: str

    def method(self) -> MethodSettings:
        """The settings that the stages need."""
        return MethodSettings.of(self.config, self.search_path)

    def score_names(self) -> tuple[str, ...]:
        """How results name the scores."""
        return names_of(self.config.scores, self.search_path)

    def weights_bytes(self) -> int | None:
        """Size of the weights on disk, None where a factory has its own."""
        found = [file for path in self.model.files() for file in ([path] if path.is_file() else path.rglob("*"))]
        return sum(file.stat().st_size for file in found) or None

    def places(self) -> dict[str, str]:
        """What every machine that computes must see, by the name that a message gives it."""
        places = {
            "--root": str(folder_of(self.root)),
            "the first image": file_of(self.manifest["image_uri"][0].as_py()),
        }
        places |= {f"the weights {path.name}": str(path) for path in self.model.files()}
        codes = [network.own_code for network in self.model.networks]
        places |= {f"the code {code.name}": str(code) for code in codes if code is not None}
        if self.config.fit is not None and self.config.fit != SELF:
            places["the fit"] = str(FitFolder(self.config.fit).fit)
        places |= {
            f"the code {path.name}": str(path) for path in self._own_scores() if path.is_relative_to(self.search_path)
        }
        return places

    def _own_scores(self) -> list[Path]:
        return source_files(self.config.scores, self.search_path)

    def identity(self) -> dict[str, Any]:
        """What a continued run must share with the one that it continues."""
        return fingerprint(self.config) | {
            "model_sha256": self.model_sha256,
            "code_sha256": self.code_sha256,
            "features_sha256": self.model.features_sha256(),
            "members_sha256": self.model.members_sha256(),
            "scores_sha256": [file_sha256(path) for path in self._own_scores()],
            "fit_sha256": self.fit_sha256,
            "manifest": listing_digest(self.manifest),
            "device": self.device,
            "method_version": METHOD_VERSION,
        }


@dataclass(frozen=True)
class Request:
    """A run as far as it is known at once: without torch, without a cluster, and before anything is drawn.

    Attributes:
        layers: the settings, by where they are from.
        model: where the network comes from.
        root: the dataset's folder.
        manifest: one row per image; None where the images have to be drawn first.
        tau: the threshold.
        warnings: what the user should know.
    """

    layers: Layers
    model: ModelSource
    root: Place
    manifest: pa.Table | None
    tau: float
    warnings: tuple[str, ...]


def make_plan(
    options: Settings,
    from_file: Settings | None,
    folder: ResultsFolder,
    *,
    on_wait: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Resolve options, which win over those of a config file, which win over the dataset's preset.

    A request that is refused leaves nothing behind: what has to be drawn is drawn last. `on_wait` hears what a
    cluster is waited for.

    Raises:
        ConfigError: an option or a file is wrong, or no layer says which network or tau to use.
        DatasetError: the dataset is not there.
        ModelError: the network or its weights are not there.
        ResultsError: the results folder is a file.
    """
    return complete(make_request(read_layers(options, from_file), folder), on_wait)


def make_request(layers: Layers, folder: ResultsFolder, *, seeks_ood: bool = True) -> Request:
    """Resolve what can be resolved at once; nearly all that is wrong with a request is found here.

    Labels in which nothing can be OoD are worth a warning where that is sought, and not in a fit or a calibration.

    Raises:
        OodrayError: as `make_plan` does.
    """
    if folder.path.exists() and not folder.path.is_dir():
        raise ResultsError(f"--out {folder.path} is a file; name a folder")
    refuse_absent_gpu(layers.config)
    model = resolve_network(layers)
    check_own_scores(layers.config)
    refuse_classes(layers, model)
    root = dataset_root(layers, folder)
    with remarks() as noticed, phase("listing the images"):
        manifest = list_images(layers, root)
    tau, warnings = choose_tau(layers, model)
    of_labels = (
        None
        if manifest is None or not seeks_ood
        else white_masks_warning(layers.layout, (uri.as_py() for uri in manifest["label_uri"].drop_null()))
    )
    found = (*(remark.text for remark in noticed), *([of_labels] if of_labels else []))
    return Request(layers, model, root, manifest, tau, (*found, *warnings))


def complete(
    request: Request,
    on_wait: Callable[[str], None] = lambda _: None,
    on_network: Callable[[LoadNetwork], None] = lambda _: None,
) -> Plan:
    """Choose the device, draw what has to be drawn, and hash the weights.

    `on_network` hears how the network is loaded, and may do so: images are drawn meanwhile.

    Only the device may need a cluster: `--wait` asks it for room, and where the device or cuML is an open question its
    nodes are asked.

    Raises:
        ConfigError: the cluster has no room in time, or the device cannot do what is asked for.
        RunError: the cluster cannot be joined.
    """
    config, model, layout = request.layers.config, request.model, request.layers.layout
    wait_for_room(config, on_wait)
    with phase("looking for GPUs"):
        device = choose_device(config)
    dtype = choose_dtype(config.dtype, model, device.kind)
    fit = None if config.fit in (None, SELF) else Fit(str(config.fit))
    known = {} if fit is None else model.identity()
    if fit is not None:
        fit.require_network(network_identity(known))
    with ThreadPoolExecutor(1, "draw") as thread:
        # From here on nothing refuses the request any more.
        drawn = None
        if request.manifest is None:
            drawn = thread.submit(copy_context().run, draw_images, layout, request.root)
        on_network(network_of(model, device.kind, dtype))
        with phase("hashing the weights"):
            sha256 = known.get("model_sha256") or model.weights_sha256()
        manifest = drawn.result() if drawn else request.manifest
        assert manifest is not None, "images that are not listed are drawn"
        manifest = cut_by_size(manifest)
    warnings = (
        count_warning(layout, manifest),
        _checksum_warning(model, sha256),
        model.remark,
        device.warning,
        dtype_warning(dtype, device.kind),
        crowding(config, device.kind),
        constant_scores_warning(config.scores, model),
        *request.warnings,
    )
    return Plan(
        config=replace(
            config,
            root=str(request.root),
            fit=config.fit if fit is None else str(fit.folder.path),
            model=model.name,
            tau=request.tau,
            dtype=dtype,
            kmeans_backend=device.kmeans_backend,
        ),
        layout=layout,
        root=request.root,
        manifest=manifest,
        model=model,
        model_sha256=sha256,
        code_sha256=model.code_sha256(),
        # What the images of the run give follows from the rest of its identity.
        fit_sha256=config.fit if fit is None else fit.sha256(),
        device=device.kind,
        warnings=tuple(warning for warning in warnings if warning),
        search_path=str(Path.cwd()),
    )


def resolve_network(layers: Layers) -> ModelSource:
    """Where the network comes from; its files exist, and its code does not lie in the dataset's folder.

    Raises:
        ConfigError: no layer names a network, or its code lies inside of the dataset's folder.
        ModelError: it is not there.
    """
    config = layers.config
    if config.model is None:
        raise ConfigError(
            f"no network given for {layers.layout.name}: pass --model NAME, for example internimage-n-demo"
        )
    names = (config.model, *config.members)
    if config.root is not None:
        for name in names:
            refuse_code_of_the_dataset(name, storage_path(config.root))
    model = resolve_models(
        names,
        (config.checkpoint, *config.member_checkpoints),
        feature_stage=config.feature_stage,
        features=config.features,
        passes=PassSettings(config.flip, config.scales, config.mc_dropout, config.seed),
    )
    for network in model.networks:
        if network.checkpoint is not None:
            refuse_wrong_file(network.checkpoint)
    refuse_scores(config.scores, model)
    return model


def refuse_classes(layers: Layers, model: ModelSource) -> None:
    """Whether labels name classes, and a network can have as many, where these are to be measured.

    Raises:
        ConfigError: they do not, or it has fewer.
    """
    if not layers.config.id_quality:
        return
    layout, named = layers.layout, len(layers.layout.label_codes.class_codes)
    if not named:
        raise ConfigError(
            f"--id-quality needs labels that name classes, which those of {layout.name} do not: cityscapes, "
            "ade20k, camvid, bdd100k and issu-static have such; your own images say so with --label-codes, for example "
            "0:18=id,254=ood"
        )
    for network in model.networks:
        if network.classes is not None and network.classes < named:
            raise ConfigError(
                f"--id-quality needs a network that was trained on the classes of the labels: those of {layout.name} "
                f"name {named}, and {network.name} has {network.classes}; `oodray models` lists others"
            )


def refuse_scores(scores: Sequence[str], model: ModelSource) -> None:
    """Whether a network offers what scores need, as far as it is known before it is loaded.

    Raises:
        ConfigError: naming a score that it cannot give.
    """
    for name in scores:
        pool = Pool.named(name)
        score = KNOWN.get(name if pool is None else pool.of)
        if score is None:
            continue
        if "passes" in score.needs and not model.several_passes:
            raise ConfigError(f"the score {name} needs {PASSES}")
        if "queries" in score.needs and model.gives_queries() is False:
            raise ConfigError(f"the score {name} needs {QUERIES}; {model.name} is none")


def constant_scores_warning(scores: Sequence[str], model: ModelSource) -> str | None:
    """What to say of scores that several passes make the same everywhere; None where none of those asked for is."""
    sources = {name: pool.of if (pool := Pool.named(name)) else name for name in scores}
    constant = [name for name, of in sources.items() if of == Energy.name]
    if not constant or not model.several_passes:
        return None
    return (
        f"{' and '.join(constant)} will be the same at every pixel, which ranks nothing: with several passes over an "
        "image the logits are the logarithm of mean probabilities, and their energy is 0; --scores leaves it out"
    )


def check_own_scores(config: RunConfig) -> None:
    """Import the scores of yours, after their code was found to lie outside of the dataset's folder.

    Raises:
        ConfigError: one of them cannot be used.
    """
    for score in config.scores:
        if config.root is not None:
            refuse_code_of_the_dataset(score, storage_path(config.root))
    own = [score for score in config.scores if is_own(score)]
    pixel_scores(own, str(Path.cwd()))
    names_of(config.scores, str(Path.cwd()))


def dataset_root(layers: Layers, folder: ResultsFolder) -> Place:
    """The dataset's folder; one in the results folder for a dataset that is drawn.

    Raises:
        DatasetError: none is given.
    """
    if layers.config.root:
        return storage_path(layers.config.root)
    if not layers.layout.drawn:
        raise layers.layout.error("no --root DIR was given")
    return folder.dataset


def list_images(layers: Layers, root: Place) -> pa.Table | None:
    """The manifest of the images that lie in `root`; None where they have to be drawn first.

    Raises:
        DatasetError: the dataset is not there.
    """
    if layers.layout.drawn:
        return None
    return build_manifest(layers.layout, root, allow_outside=layers.config.allow_outside_root)


def network_of(model: ModelSource, device: str, dtype: str | None) -> LoadNetwork:
    """What loads a network: small enough to be sent to every worker."""
    return partial(load_segmenter, model, device, dtype or FLOAT32)


def draw_images(layout: Layout, root: Place) -> pa.Table:
    """Draw the images of a dataset that oodray makes itself, where they are not there yet; their manifest."""
    with phase("drawing the scenes"):
        layout.prepare(root)
    return build_manifest(layout, root)


def choose_tau(layers: Layers, model: ModelSource) -> tuple[float, tuple[str, ...]]:
    """The threshold, and what the user should know of it.

    Raises:
        ConfigError: none is known.
    """
    tau, warnings = _known_tau(layers, model)
    bits = layers.config.confidence_bits
    snapped = snap_threshold(tau, bits)
    if snapped != tau:
        warnings += (f"tau={tau} is no edge of tallies of {bits} bits: {snapped} is used, and named tau_used",)
    return tau, warnings


def _checksum_warning(model: ModelSource, sha256: str | None) -> str | None:
    if model.sha256 is None or model.sha256 == sha256:
        return None
    return f"{model.checkpoint} is not the file that was published as {model.name}: its sha256 is {sha256}"


def _known_tau(layers: Layers, model: ModelSource) -> tuple[float, tuple[str, ...]]:
    """The tau asked for, else the network's own, else the preset's, with a warning if it is for another."""
    config = layers.config
    if layers.given.get("tau") is not None:
        return float(layers.given["tau"]), ()
    if config.tau_auto:
        if config.fit in (None, SELF):
            raise ConfigError("tau is to be estimated first, or taken from a fit: pass --fit FIT")
        return Fit(str(config.fit)).tau, ()
    if model.tau is not None:
        return model.tau, ()
    if model.several_passes:
        raise ConfigError(
            "with several passes over an image the confidence is the logarithm of a mean probability, so tau has to be "
            "found anew: `oodray calibrate` with the same settings does, then pass --tau X; or pass --tau auto "
            "--calibrate-on DIR, with a folder of images that hold nothing unknown"
        )
    if config.tau is None:
        raise ConfigError(
            f"no tau is known for {model.name}: pass --tau X, the confidence below which a pixel is unsure. "
            f"`oodray calibrate --dataset folder --root DIR --model {model.name}` finds one on images that hold "
            "nothing unknown, and so does --tau auto --calibrate-on DIR"
        )
    owner = layers.published.get("model")
    if config.model == owner and config.checkpoint is None:
        return config.tau, ()
    asked = model.name if config.checkpoint is None else f"the weights {config.checkpoint}"
    return config.tau, (
        f"tau={config.tau} was chosen for {owner or 'another network'}, not for {asked}; pass --tau to set its own",
    )
