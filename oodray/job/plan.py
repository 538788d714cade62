"""From a configuration to everything that is known before Ray starts; what is wrong is found here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import pyarrow as pa

from oodray.cluster.capacity import wait_for_room
from oodray.cluster.device import choose_device
from oodray.cluster.shares import gpu_shares
from oodray.config import (
    RunConfig,
    Settings,
    build_config,
    check_settings,
    fingerprint,
    preset,
    read_settings,
)
from oodray.datasets.layouts import Layout, count_warning, get_layout
from oodray.datasets.manifest import build_manifest, manifest_digest
from oodray.errors import ConfigError, ResultsError
from oodray.job.stages import Method
from oodray.method.scores import PIXEL_SCORES, SCORES
from oodray.metrics.tally import snap_threshold
from oodray.models.dtype import choose_dtype, dtype_warning
from oodray.models.source import ModelSource, resolve_model
from oodray.models.weights.checkpoints import file_sha256, refuse_wrong_file
from oodray.models.weights.hub import is_hugging_face
from oodray.results.folder import ResultsFolder
from oodray.storage.remote import storage_path

METHOD_VERSION = 4
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
        device: `"cuda"` or `"cpu"`.
        warnings: what the user should know.
    """

    config: RunConfig
    layout: Layout
    root: Path
    manifest: pa.Table
    model: ModelSource
    model_sha256: str | None
    code_sha256: str | None
    device: str
    warnings: tuple[str, ...]

    def method(self) -> Method:
        """The settings that the stages need."""
        config = self.config
        assert config.tau is not None
        return Method(
            k=config.k,
            ks=tuple(sorted({config.k, *config.sweep_k})),
            tau=snap_threshold(config.tau, config.confidence_bits),
            ood_ratio=config.ood_ratio,
            seed=config.seed,
            normalize_features=config.normalize_features,
            kmeans_backend=config.kmeans_backend,
            n_init=config.n_init,
            scores=tuple(name for name in config.scores if name in PIXEL_SCORES),
            batch_size=config.batch_size,
            confidence_bits=config.confidence_bits,
        )

    def local_cpus(self) -> int:
        """Logical CPUs that a Ray on this machine needs: the workers' own, and two for what goes on beside them."""
        if self.device == "cpu":
            return (self.config.workers or 1) * self.config.threads + 2
        import torch

        # On GPUs a worker takes one CPU, whatever its threads.
        gpus = self.config.gpus_per_worker or 1
        return (self.config.workers or max(1, gpu_shares(torch.cuda.device_count(), gpus))) + 2

    def weights_bytes(self) -> int | None:
        """Size of the weights on disk, None where a factory has its own."""
        found = [file for path in self.model.files() for file in ([path] if path.is_file() else path.rglob("*"))]
        return sum(file.stat().st_size for file in found) or None

    def places(self) -> dict[str, str]:
        """What every machine that computes must see, by the name that a message gives it."""
        places = {"--root": str(self.root), "the first image": self.manifest["image_uri"][0].as_py()}
        places |= {f"the weights {path.name}": str(path) for path in self.model.files()}
        if self.model.own_code is not None:
            places[f"the code {self.model.own_code.name}"] = str(self.model.own_code)
        return places

    def identity(self) -> dict[str, Any]:
        """What a continued run must share with the one that it continues."""
        return fingerprint(self.config) | {
            "model_sha256": self.model_sha256,
            "code_sha256": self.code_sha256,
            "features_sha256": self.model.features_sha256(),
            "manifest": manifest_digest(self.manifest),
            "device": self.device,
            "method_version": METHOD_VERSION,
        }


def make_plan(
    options: Settings,
    config_file: Path | None,
    folder: ResultsFolder,
    *,
    on_wait: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Resolve options, which win over the config file, which wins over the dataset's preset.

    `on_wait` hears what a cluster is waited for.

    Raises:
        ConfigError: if an option or a file is wrong, or no layer says which network or tau to use.
        DatasetError: if the dataset is not there.
        ModelError: if the network or its weights are not there.
    """
    given = check_settings({k: v for k, v in options.items() if v is not None}, source="the options")
    from_file = read_settings(config_file) if config_file is not None else {}
    named = build_config(from_file, given)
    layout = get_layout(named.dataset)
    if folder.path.exists() and not folder.path.is_dir():
        raise ResultsError(f"--out {folder.path} is a file; name a folder")
    published = preset(named.dataset)
    config = build_config(published, from_file, given)

    if config.model is None:
        raise ConfigError(f"no network given for {layout.name}: pass --model NAME, for example internimage-n-demo")
    if config.root is not None:
        _refuse_code_of_the_dataset(config.model, storage_path(config.root))
    model = resolve_model(config.model, config.checkpoint, feature_stage=config.feature_stage, features=config.features)
    if model.checkpoint is not None:
        refuse_wrong_file(model.checkpoint)
    root = _dataset_root(config, layout, folder)
    # What has to be drawn is drawn last: a refused request leaves nothing behind.
    manifest = None if layout.drawn else build_manifest(layout, root, allow_outside=config.allow_outside_root)
    scores = _check_scores(config.scores)
    tau, warnings = _choose_tau(config, model, published, {**from_file, **given})
    snapped = snap_threshold(tau, config.confidence_bits)
    if snapped != tau:
        warnings += (
            f"tau={tau} is no edge of tallies of {config.confidence_bits} bits: {snapped} is used, and named tau_used",
        )
    wait_for_room(config, on_wait)
    device = choose_device(config)
    dtype = choose_dtype(config.dtype, model, device.kind)
    if manifest is None:
        layout.prepare(root)
        manifest = build_manifest(layout, root)
    sha256 = model.weights_sha256()
    shortfall, slow = count_warning(layout, manifest), dtype_warning(dtype, device.kind)
    return Plan(
        config=replace(
            config,
            root=str(root),
            tau=tau,
            scores=scores,
            dtype=dtype,
            kmeans_backend=device.kmeans_backend,
            model=model.name,
        ),
        layout=layout,
        root=root,
        manifest=manifest,
        model=model,
        model_sha256=sha256,
        code_sha256=None if model.code is None else file_sha256(model.code),
        device=device.kind,
        warnings=tuple(
            filter(None, (shortfall, _checksum_warning(model, sha256), model.remark, device.warning, slow, *warnings))
        ),
    )


def _checksum_warning(model: ModelSource, sha256: str | None) -> str | None:
    if model.sha256 is None or model.sha256 == sha256:
        return None
    return f"{model.checkpoint} is not the file that was published as {model.name}: its sha256 is {sha256}"


def _choose_tau(
    config: RunConfig, model: ModelSource, published: Settings, given: Settings
) -> tuple[float, tuple[str, ...]]:
    """The tau asked for, else the network's own, else the preset's, with a warning if it is for another."""
    if given.get("tau") is not None:
        return float(given["tau"]), ()
    if model.tau is not None:
        return model.tau, ()
    if config.tau is None:
        raise ConfigError(
            f"no tau is known for {model.name}: pass --tau X, the confidence below which a pixel is unsure. "
            "A low quantile of the network's max-logit on images of its own kind is a good start."
        )
    owner = published.get("model")
    if config.model == owner and config.checkpoint is None:
        return config.tau, ()
    asked = model.name if config.checkpoint is None else f"the weights {config.checkpoint}"
    return config.tau, (
        f"tau={config.tau} was chosen for {owner or 'another network'}, not for {asked}; pass --tau to set its own",
    )


def _dataset_root(config: RunConfig, layout: Layout, folder: ResultsFolder) -> Path:
    if config.root:
        return storage_path(config.root)
    if not layout.drawn:
        raise layout.error("no --root DIR was given")
    return folder.dataset


def _refuse_code_of_the_dataset(model: str, root: Path) -> None:
    """A dataset may come from anywhere; a config or a factory is Python that will be run."""
    for code in _code_of(model):
        if code.resolve().is_relative_to(root.resolve()):
            raise ConfigError(
                f"{code} lies inside the dataset's folder {root}, and it is Python that would be run: read it, and "
                "copy it elsewhere if it is meant; or pass a --root that holds the images alone"
            )


def _code_of(model: str) -> list[Path]:
    """A config, or what the working directory has of a factory's modules; nothing is imported."""
    if model.endswith(".py"):
        return [path for path in (Path(model).expanduser(),) if path.is_file()]
    module, _, factory = model.partition(":")
    if is_hugging_face(model) or not factory:
        return []
    here, (package, *_) = Path.cwd(), module.split(".")
    # A package runs code of its own before its modules do.
    found = PathFinder.find_spec(package, [str(here)])
    places = [] if found is None else [found.origin] if found.origin else list(found.submodule_search_locations or ())
    code = here.joinpath(*module.split(".")).with_suffix(".py")
    return [path for path in (code,) if path.is_file()] + [Path(place) for place in places if place]


def _check_scores(scores: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [score for score in scores if score not in SCORES]
    if unknown:
        raise ConfigError(f"unknown score {unknown[0]!r}; known: {', '.join(SCORES)}")
    return tuple(score for score in SCORES if score in scores) if scores else SCORES
