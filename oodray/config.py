"""What a run is: its configuration, from a preset, a file and options."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from reprlib import Repr
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from oodray.errors import ConfigError

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run. Keys of config files have these names.

    Attributes:
        dataset: name of the dataset's layout, see `oodray datasets`.
        root: the dataset's own folder; the demo draws itself into the results folder when None.
        allow_outside_root: take files that links in `root` lead to elsewhere.
        model: a name, an mmsegmentation config (with `checkpoint`), `hf:ORG/NAME`, `package.module:factory`, or a
            folder with a Hugging Face model.
        checkpoint: weights for `model`; None takes those that belong to its name.
        feature_stage: which of the network's maps is clustered, counted from 0; None is the one of stride 16.
        features: a Hugging Face model, whose features are clustered instead of the segmenter's own.
        dtype: of the network's products: `"float32"`, `"bfloat16"` or, on GPUs, `"float16"`; `"auto"` is bfloat16 on
            GPUs and float32 on CPUs. None is float32, and with a factory whatever the factory takes, alone.
        k: clusters per image.
        tau: a pixel with a confidence below it, strictly, is unsure. None takes the value known for `model`.
        ood_ratio: a cluster with a larger share of unsure pixels, strictly, is OoD.
        seed: of the K-Means.
        normalize_features: L2-normalise features before clustering.
        kmeans_backend: `"auto"`, `"torch"`, `"cuml"` or `"sklearn"`.
        n_init: restarts of the K-Means.
        scores: the scores to evaluate; empty means all.
        sweep_k: further values of K to cluster, for `oodray sweep`; `k` alone gives the mask.
        confidence_bits: of the keys that the clusters' tallies count by; 16 is exact.
        batch_size: images of one size that the network sees at once.
        threads: CPU threads of each worker; they can change the last bit of a float.
        workers: worker processes that hold the network; None is one per GPU, or one.
        fewest_workers: workers at the start, where more may come with a cluster that grows; None is `workers`.
        gpus_per_worker: GPUs of each; None is 1 where Ray has a GPU, else 0.
        wait: seconds to wait for a cluster to have room for the workers, as one that grows needs; 0 starts at once.
        image_timeout: seconds that an image may take in a stage before its process is ended; 0 is for ever.
        ray_address: a Ray cluster to join; None starts a local one unless `RAY_ADDRESS` is set.
    """

    dataset: str
    root: str | None = None
    allow_outside_root: bool = False
    model: str | None = None
    checkpoint: str | None = None
    feature_stage: int | None = None
    features: str | None = None
    dtype: str | None = None
    k: int = 5
    tau: float | None = None
    ood_ratio: float = 0.3
    seed: int = 0
    normalize_features: bool = False
    kmeans_backend: str = "auto"
    n_init: int = 4
    scores: tuple[str, ...] = ()
    sweep_k: tuple[int, ...] = ()
    confidence_bits: int = 16
    batch_size: int = 1
    threads: int = 2
    workers: int | None = None
    fewest_workers: int | None = None
    gpus_per_worker: float | None = None
    wait: float = 0.0
    image_timeout: float = 600.0
    ray_address: str | None = None
    executor: str = "ray"

    def __post_init__(self) -> None:
        for name, (accepts, expected) in _CHECKS.items():
            value = getattr(self, name)
            if value is not None and not accepts(value):
                raise ConfigError(f"{name} must be {expected}, got {_shown(value)}")
        if self.fewest_workers is not None and self.fewest_workers > (self.workers or 0):
            raise ConfigError(
                f"fewest_workers is {self.fewest_workers}, workers is {self.workers}: a range such as 2:16 begins with "
                "the smaller number"
            )


KMEANS_BACKENDS = ("auto", "torch", "cuml", "sklearn")

DTYPES = ("auto", "float32", "bfloat16", "float16")

_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "feature_stage": (lambda v: v >= 0, "a whole number of at least 0"),
    "dtype": (lambda v: v in DTYPES, f"one of {', '.join(DTYPES)}"),
    "k": (lambda v: 1 <= v <= 255, "a whole number from 1 to 255"),
    "tau": (math.isfinite, "a finite number"),
    "ood_ratio": (lambda v: 0 <= v <= 1, "a share from 0 to 1"),
    "seed": (lambda v: 0 <= v < 2**32, "a whole number from 0 to 4294967295"),
    "kmeans_backend": (lambda v: v in KMEANS_BACKENDS, f"one of {', '.join(KMEANS_BACKENDS)}"),
    "n_init": (lambda v: 1 <= v <= 100, "a whole number from 1 to 100"),
    "sweep_k": (lambda v: all(1 <= k <= 255 for k in v), "whole numbers from 1 to 255"),
    "confidence_bits": (lambda v: 6 <= v <= 16, "a whole number from 6 to 16"),
    "batch_size": (lambda v: v >= 1, "a whole number of at least 1"),
    "threads": (lambda v: v >= 1, "a whole number of at least 1"),
    "workers": (lambda v: v >= 1, "a whole number of at least 1"),
    "image_timeout": (lambda v: v >= 0 and math.isfinite(v), "a number of seconds, 0 for no limit"),
    "wait": (lambda v: v >= 0 and math.isfinite(v), "a number of seconds, at least 0"),
    "fewest_workers": (lambda v: v >= 1, "a whole number of at least 1"),
    # Ray gives shares of one GPU, or whole ones.
    "gpus_per_worker": (lambda v: 0 <= v <= 1 or (v > 1 and v % 1 == 0), "a share from 0 to 1, or a whole number"),
}

HOW_IT_RUNS = (
    "allow_outside_root",
    "checkpoint",
    "workers",
    "fewest_workers",
    "gpus_per_worker",
    "wait",
    "image_timeout",
    "ray_address",
    "executor",
)
"""Settings that may change when a run is continued: they decide where and how fast, not what.

The weights themselves may not, wherever they lie: a run knows them by their sha256.
"""


def config_root() -> Path:
    """The folder `configs/`: inside the installed package, or beside it in a checkout."""
    installed = Path(__file__).parent / "configs"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "configs"


def read_settings(path: Path) -> dict[str, Any]:
    """Settings from a YAML file; keys are the fields of `RunConfig`.

    Raises:
        ConfigError: if the file cannot be read, is no mapping, or has an unknown key or a wrong value.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the config file {path}: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none, lists of lists of lists ...
        raise ConfigError(f"the config file {path} is not valid YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise ConfigError(f"the config file {path} must hold `key: value` lines, got a {kind}")
    return check_settings(content, source=str(path))


def check_settings(settings: Settings, *, source: str) -> dict[str, Any]:
    """Settings with known keys and values of the right type, numbers converted.

    >>> check_settings({"k": 6, "tau": 1}, source="an example")
    {'k': 6, 'tau': 1.0}
    >>> check_settings({"ood_ration": 0.3}, source="an example")
    Traceback (most recent call last):
    oodray.errors.ConfigError: unknown key 'ood_ration' in an example; did you mean 'ood_ratio'?
    """
    types = get_type_hints(RunConfig)
    checked = {}
    for key, value in settings.items():
        if key not in types:
            close = difflib.get_close_matches(str(key), types, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(types)}"
            raise ConfigError(f"unknown key {_shown(key)} in {source}; {hint}")
        try:
            checked[key] = _converted(value, types[key])
        except (ValueError, OverflowError):
            expected = _EXPECTED[_value_type(types[key])]
            raise ConfigError(f"{key} in {source} must be {expected}, got {_shown(value)}") from None
    return checked


def preset(dataset: str) -> dict[str, Any]:
    """The settings published for a dataset, or none."""
    path = config_root() / "runs" / f"{dataset}.yaml"
    return read_settings(path) if path.is_file() else {}


def build_config(*layers: Settings) -> RunConfig:
    """A configuration from layers of settings, later ones winning; None in a layer means not given there.

    Raises:
        ConfigError: if a value is out of range or no layer names a dataset.
    """
    settings: dict[str, Any] = {}
    for layer in layers:
        settings.update({key: value for key, value in layer.items() if value is not None})
    if "dataset" not in settings:
        raise ConfigError("no dataset given: pass --dataset NAME, see `oodray datasets`")
    return RunConfig(**settings)


def fingerprint(config: RunConfig) -> dict[str, Any]:
    """The settings that a continued run must share, as plain values for JSON."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if name not in HOW_IT_RUNS
    }


_EXPECTED: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple[str, ...]: "a list of names",
    tuple[int, ...]: "a list of whole numbers",
}


def _converted(value: Any, annotation: Any) -> Any:
    """`value` as the annotated type: YAML gives a whole number where a float is meant, and lists for tuples.

    Raises:
        ValueError: if it is of another type.
        OverflowError: if it is too large for a float.
    """
    expected = _value_type(annotation)
    if value is None and annotation != expected:
        return None
    if get_origin(expected) is tuple:
        item = get_args(expected)[0]
        if isinstance(value, list | tuple) and all(type(entry) is item for entry in value):
            return tuple(value)
    elif expected is float and type(value) is int:  # not bool, which is an int too
        return float(value)
    elif type(value) is expected:
        return value
    raise ValueError


def _shown(value: Any) -> str:
    """A value for a message: anchors of YAML make a few bytes of file a value of gigabytes."""
    brief = Repr()
    brief.maxlevel, brief.maxstring, brief.maxother = 2, 60, 60
    try:
        return brief.repr(value)
    except ValueError:  # Python prints no number of more than 4300 digits
        return "a number of thousands of digits"


def _value_type(annotation: Any) -> Any:
    """The type of an annotation without `| None`."""
    return get_args(annotation)[0] if isinstance(annotation, UnionType) else annotation
