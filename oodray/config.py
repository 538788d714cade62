"""What a run is: its configuration, from a preset, a file and options."""

# No `from __future__ import annotations` here: what is declared inside an annotation is Python to run, not a text.
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from oodray.errors import ConfigError
from oodray.ranges import (
    decimal_range,
    is_label_codes,
    names_of_list,
    refinement,
    shard,
    shard_of,
    tau_or_auto,
    whole_range,
    workers_range,
)
from oodray.settings import About, Check, Settings, declared_settings, one_of, seconds, shown, whole
from oodray.spelling import did_you_mean
from oodray.yaml_text import load_yaml

KMEANS_BACKENDS = ("auto", "torch", "cuml", "sklearn")

DTYPES = ("auto", "float32", "bfloat16", "float16")

EXECUTORS = ("ray", "local")

REGIONS = ("kmeans", "slic", "grid")

KNN_METRICS = ("euclidean", "cosine")

MOST_SCALE = 8

SELF = "self"
"""In place of the folder of a fit: the images of the run itself."""

NO_CHECKPOINT = "none"
"""Stands in a list of checkpoints for a network that has its own."""

RUN_ONLY = ("run",)


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run. Config files, options and `oodray.run` have these names.

    `docs/reference.md` is a table of them, made from here by `python -m oodray.report.reference`.
    """

    dataset: Annotated[str, About("Name of the dataset, see `oodray datasets`")]
    root: Annotated[
        str | None,
        About(
            "The dataset's own folder; for --dataset list the list, for --dataset folder also an image or a quoted "
            "pattern, 'photos/*.jpg'",
            unset="dataset/ in the results folder, for the demo alone, which draws itself",
        ),
    ] = None
    split: Annotated[
        str | None,
        About("Split of --dataset hf-parquet or webdataset, as its files name it, such as test", unset="all files"),
    ] = None
    label_codes: Annotated[
        str | None,
        About(
            "What codes in the label files of your own images mean, such as 2=ood,1=id or 0:18=id,254=ood; 255 is "
            "ignored unless it is named",
            Check(is_label_codes, "such as 2=ood,1=id,255=ignore, or with ranges 0:18=id"),
            unset="0 in-distribution, 1 OoD, 255 ignore",
        ),
    ] = None
    labels: Annotated[
        str | None,
        About(
            "The folder of labels of --dataset folder, below --root or elsewhere",
            unset="told by names, see docs/datasets.md",
            identity=False,
            commands=("run", "calibrate"),
        ),
    ] = None
    allow_outside_root: Annotated[
        bool,
        About(
            "Take files that links in --root lead to elsewhere",
            identity=False,
            option="--allow-outside-root/--inside-root",
        ),
    ] = False
    model: Annotated[
        str | None,
        About(
            "A model's name, an mmsegmentation config (.py) with --checkpoint, hf:ORG/NAME, a folder with a "
            "Hugging Face model, or package.module:factory; given several times, the mean of their probabilities",
            unset="the one published for the dataset",
            repeated=True,
        ),
    ] = None
    members: Annotated[
        tuple[str, ...], About("Further networks, the second --model and those after it", unset="none", commands=())
    ] = ()
    # The weights themselves are part of a run's identity, wherever they lie: a run knows them by their sha256.
    checkpoint: Annotated[
        str | None,
        About(
            "Weights for --model; of several, one for each in their order, the word none where one has its own",
            unset="those that belong to its name",
            identity=False,
            repeated=True,
        ),
    ] = None
    member_checkpoints: Annotated[
        tuple[str, ...],
        About("Weights for the further networks", unset="those that belong to them", identity=False, commands=()),
    ] = ()
    flip: Annotated[
        bool, About("Average probabilities over every image and its mirror image", option="--flip/--no-flip")
    ] = False
    scales: Annotated[
        tuple[float, ...],
        About(
            "Average probabilities over sizes of every image, such as 0.75,1,1.25",
            Check(lambda values: all(0 < value <= MOST_SCALE for value in values), "numbers above 0, at most 8"),
            unset="its own size",
            from_text=lambda text: {"scales": tuple(decimal_range(text))},
        ),
    ] = ()
    mc_dropout: Annotated[
        int, About("Passes over every image with active dropout, whose probabilities are averaged", whole(0, 1000))
    ] = 0
    feature_stage: Annotated[
        int | None, About("Map of the network to cluster, counted from 0", whole(0), unset="that of stride 16")
    ] = None
    features: Annotated[
        str | None,
        About("Cluster the features of another network: hf:ORG/NAME, or a folder", unset="the segmenter's own"),
    ] = None
    dtype: Annotated[
        str | None,
        About(
            "Of the network's products: float32, bfloat16, float16 (on GPUs), or auto, bfloat16 on GPUs alone",
            one_of(DTYPES),
            unset="float32, with a factory its own",
        ),
    ] = None
    k: Annotated[int, About("Clusters per image", whole(1, 255))] = 5
    tau: Annotated[
        float | None,
        About(
            "Pixels with a smaller max-logit are unsure; auto takes the value of --fit, or estimates one first",
            Check(math.isfinite, "a finite number"),
            unset="the value known for --model",
            commands=RUN_ONLY,
            from_text=tau_or_auto,
        ),
    ] = None
    # Not an option of its own: `tau: auto` sets it, and the tau that is found decides the results.
    tau_auto: Annotated[
        bool, About("Whether tau is that of --fit, or was estimated, as tau: auto says", identity=False, commands=())
    ] = False
    # The tau that is found decides the results, not where it is from.
    calibrate_on: Annotated[
        str | None,
        About(
            "Folder of images that hold nothing unknown, on which --tau auto estimates tau",
            unset="the images of the run themselves",
            identity=False,
            commands=RUN_ONLY,
        ),
    ] = None
    ood_ratio: Annotated[
        float,
        About(
            "T: clusters with a larger share of unsure pixels are OoD",
            Check(lambda value: 0 <= value <= 1, "a share from 0 to 1"),
            commands=RUN_ONLY,
        ),
    ] = 0.3
    regions: Annotated[
        str,
        About(
            "What pixels are judged by: kmeans, the clusters of the paper; slic, superpixels; grid, rectangles. --k is "
            "their number",
            one_of(REGIONS),
            commands=RUN_ONLY,
        ),
    ] = "kmeans"
    seed: Annotated[int, About("Seed of the K-Means", whole(0, 2**32 - 1))] = 0
    normalize_features: Annotated[
        bool, About("L2-normalise features before clustering", option="--normalize-features/--raw-features")
    ] = False
    kmeans_backend: Annotated[str, About("K-Means by auto, torch, cuml or sklearn", one_of(KMEANS_BACKENDS))] = "auto"
    n_init: Annotated[int, About("Restarts of the K-Means", whole(1, 100))] = 4
    scores: Annotated[
        tuple[str, ...],
        About(
            "Scores to evaluate, comma-separated; one of yours is package.module:MyScore",
            unset="ratio, mask-then-logit, max-logit, msp, entropy, energy, and all that --fit holds",
            commands=RUN_ONLY,
            from_text=lambda text: {"scores": names_of_list(text)},
        ),
    ] = ()
    blur: Annotated[
        bool,
        About(
            "Blur the maps of pixel scores as PEBAL does: Gaussian, 7x7, sigma 1; confidence and mask stay as they are",
            option="--blur/--no-blur",
            commands=RUN_ONLY,
        ),
    ] = False
    # What the fit holds is part of a run's identity, wherever it lies: a run knows it by its sha256.
    fit: Annotated[
        str | None,
        About(
            "Statistics of in-distribution images, from `oodray fit`, for scores that need them; self takes the images "
            "of the run itself, in a first pass",
            unset="none",
            identity=False,
            commands=RUN_ONLY,
        ),
    ] = None
    reference_images: Annotated[
        int | None,
        About(
            "With --fit self, how many images of the run the others are compared with, drawn at random",
            whole(1),
            unset="all",
            commands=RUN_ONLY,
        ),
    ] = None
    reference_gap: Annotated[
        int | None,
        About(
            "With --fit self, how many images before and after one in its folder it is not compared with, as those "
            "around it in a video",
            whole(0),
            unset="0: itself alone",
            commands=RUN_ONLY,
        ),
    ] = None
    keep_features_gb: Annotated[
        float,
        About(
            "With --fit self, how many GB the results folder may hold between the two passes, so that images need not "
            "pass the network twice; 0 keeps nothing",
            Check(lambda value: 0 <= value < math.inf, "a number of GB, at least 0"),
            identity=False,
            commands=RUN_ONLY,
        ),
    ] = 4.0
    refine: Annotated[
        str | None,
        About(
            "Refine the maps of pixel scores along the edges of the image: guided or bilateral, or with a radius such "
            "as guided:8; confidence and mask stay as they are",
            unset="not at all",
            commands=RUN_ONLY,
        ),
    ] = None
    keep_maps: Annotated[
        tuple[str, ...],
        About(
            "Keep the maps of these scores, comma-separated, and of the predicted classes in the results; without a "
            "name, of all pixel scores",
            unset="none",
            commands=RUN_ONLY,
            from_text=lambda text: {"keep_maps": names_of_list(text)},
        ),
    ] = ()
    id_quality: Annotated[
        bool,
        About(
            "Measure the network on its own classes, too: mIoU, ECE, Brier and open-IoU, where labels name classes",
            option="--id-quality/--no-id-quality",
            commands=RUN_ONLY,
        ),
    ] = False
    knn_metric: Annotated[
        str,
        About("Metric of the score knn: euclidean, as published, or cosine", one_of(KNN_METRICS), commands=RUN_ONLY),
    ] = "euclidean"
    sweep_k: Annotated[
        tuple[int, ...],
        About(
            "Further values of K to cluster for `oodray sweep`: 3:10, or 3,5,8; --k gives the mask",
            Check(lambda values: all(1 <= k <= 255 for k in values), "whole numbers from 1 to 255"),
            unset="none",
            commands=RUN_ONLY,
            from_text=lambda text: {"sweep_k": whole_range(text)},
        ),
    ] = ()
    confidence_bits: Annotated[
        int,
        About(
            "Bits of the keys that tallies of clusters count by: 16 is exact, 12 makes the tallies for sweeps ten "
            "times smaller",
            whole(6, 16),
            commands=RUN_ONLY,
        ),
    ] = 16
    # Not an option: `oodray calibrate` and `oodray fit` take tau from images that may have no label.
    exact_counts: Annotated[
        bool, About("Whether images without a label are counted by every key; else by 256 bins", commands=())
    ] = False
    batch_size: Annotated[int, About("Images of one size that the network sees at once", whole(1))] = 1
    threads: Annotated[
        int, About("CPU threads of each worker; their number can change the last bit of a float", whole(1))
    ] = 2
    shard: Annotated[
        str | None,
        About(
            "Compute the I-th of N shares of the images, such as 2/4, into a folder of its own; `oodray merge` joins "
            "them",
            unset="all",
            commands=RUN_ONLY,
            from_text=shard,
        ),
    ] = None
    executor: Annotated[
        str,
        About(
            "ray: worker processes, on this machine or a cluster; local: this process alone, which starts faster",
            one_of(EXECUTORS),
            identity=False,
        ),
    ] = "ray"
    workers: Annotated[
        int | None,
        About(
            "Workers with a network, 4, or 2:16 on a growing cluster",
            whole(1),
            unset="one per GPU, or one",
            identity=False,
            from_text=workers_range,
        ),
    ] = None
    fewest_workers: Annotated[
        int | None,
        About(
            "Workers at the start, where more may come with a cluster that grows: the 2 of --workers 2:16",
            whole(1),
            unset="workers",
            identity=False,
            commands=(),
        ),
    ] = None
    gpus_per_worker: Annotated[
        float | None,
        About(
            "GPUs of each worker; 0 is the CPU",
            # Ray gives shares of one GPU, or whole ones.
            Check(
                lambda value: value == 0 or 0.0001 <= value <= 1 or (value > 1 and value % 1 == 0),
                "0, a share from 0.0001 to 1, or a whole number",
            ),
            unset="1 where there is a GPU, else 0",
            identity=False,
        ),
    ] = None
    wait: Annotated[
        float,
        About(
            "Seconds to wait for a cluster that grows to have room for the workers",
            seconds("at least 0"),
            identity=False,
        ),
    ] = 0.0
    image_timeout: Annotated[
        float,
        About(
            "Seconds an image may take in a stage before its process is ended and the image given up; 0 is for ever, "
            "as always with --executor local, whose only process is yours",
            seconds("0 for no limit"),
            identity=False,
            commands=RUN_ONLY,
        ),
    ] = 600.0
    ray_address: Annotated[
        str | None,
        About(
            "Ray cluster to join", unset="that of RAY_ADDRESS, else a Ray of its own on this machine", identity=False
        ),
    ] = None

    def __post_init__(self) -> None:
        for name, setting in SETTINGS.items():
            value = getattr(self, name)
            if not setting.accepts(value) and setting.about.check is not None:
                raise ConfigError(f"{name} must be {setting.about.check.expected}, got {shown(value)}")
        if self.fewest_workers is not None and self.fewest_workers > (self.workers or 0):
            raise ConfigError(
                f"fewest_workers is {self.fewest_workers}, workers is {self.workers}: a range such as 2:16 begins with "
                "the smaller number"
            )
        if self.shard is not None:
            shard_of(self.shard)
        if self.refine is not None:
            refinement(self.refine)
        self._refuse_what_self_alone_has()
        if self.executor == "local":
            self._refuse_what_ray_alone_has()

    def _refuse_what_self_alone_has(self) -> None:
        if self.fit == SELF:
            if self.shard is not None:
                raise ConfigError(
                    "--fit self compares the images of a whole run with each other, and --shard computes a share of "
                    "them: pass one of the two"
                )
            return
        for name in ("reference_images", "reference_gap"):
            if getattr(self, name) is not None:
                raise ConfigError(
                    f"{SETTINGS[name].option} {getattr(self, name)} goes with --fit self, which compares the images of "
                    "a run with each other: pass both, or neither"
                )

    def _refuse_what_ray_alone_has(self) -> None:
        asked = {
            "workers": (self.workers or 1) > 1,
            "gpus_per_worker": (self.gpus_per_worker or 0) > 1,
            "wait": self.wait > 0,
            "ray_address": self.ray_address is not None,
        }
        for name in (name for name, given in asked.items() if given):
            raise ConfigError(
                f"{SETTINGS[name].option} {getattr(self, name)} does not go with --executor local, which is one "
                "process on this machine: leave it out, or pass --executor ray, which takes it"
            )


SETTINGS = declared_settings(RunConfig)
"""All settings by name."""


def config_root() -> Path:
    """The folder `configs/`: inside the installed package, or beside it in a checkout."""
    installed = Path(__file__).parent / "configs"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "configs"


def read_settings(path: Path) -> dict[str, Any]:
    """Settings from a YAML file; keys are the fields of `RunConfig`.

    Raises:
        ConfigError: if the file cannot be read, is no mapping, or has an unknown key or a wrong value.
    """
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the config file {path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the config file {path} is not valid YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise ConfigError(f"the config file {path} must hold `key: value` lines, got a {kind}")
    source = str(path)
    return check_settings(with_texts(content, source=source), source=source)


def with_texts(settings: Settings, *, source: str) -> Settings:
    """Settings in which a text is read as the option is, where it stands for a number or a list.

    Raises:
        ConfigError: it is none.

    >>> with_texts({"scores": "ratio, msp", "sweep_k": "3:5", "workers": "2:16", "k": 4}, source="an example")
    {'scores': ('ratio', 'msp'), 'sweep_k': (3, 4, 5), 'workers': 16, 'k': 4, 'fewest_workers': 2}
    """
    found = dict(settings)
    for name, value in settings.items():
        read = SETTINGS[name].about.from_text if name in SETTINGS else None
        if read is not None and isinstance(value, str):
            try:
                found |= read(value)
            except ConfigError as error:
                raise ConfigError(f"{name} in {source}: {error}") from None
    return found


def check_settings(settings: Settings, *, source: str) -> dict[str, Any]:
    """Settings with known keys and values of the right type, numbers converted.

    >>> check_settings({"k": 6, "tau": 1}, source="an example")
    {'k': 6, 'tau': 1.0}
    >>> check_settings({"ood_ration": 0.3}, source="an example")
    Traceback (most recent call last):
    oodray.errors.ConfigError: unknown key 'ood_ration' in an example; did you mean 'ood_ratio'?
    """
    checked = {}
    for key, value in _with_members(settings).items():
        if key not in SETTINGS:
            hint = did_you_mean(str(key), SETTINGS, what="known keys")
            raise ConfigError(f"unknown key {shown(key)} in {source}; {hint}")
        try:
            checked[key] = SETTINGS[key].converted(value)
        except (ValueError, OverflowError):
            raise ConfigError(f"{key} in {source} must be {SETTINGS[key].expected}, got {shown(value)}") from None
    return checked


def _with_members(settings: Settings) -> Settings:
    """Settings in which a list of networks, or of their weights, is the first of them and the further ones."""
    found = dict(settings)
    for first, further in (("model", "members"), ("checkpoint", "member_checkpoints")):
        given = settings.get(first)
        if isinstance(given, list | tuple) and given and all(isinstance(one, str) for one in given):
            found |= {first: given[0], further: tuple(given[1:])}
    if found.get("checkpoint") == NO_CHECKPOINT:
        found["checkpoint"] = None
    return found


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
        if layer.get("workers") is not None:  # a number of workers takes the place of a range
            settings.pop("fewest_workers", None)
        settings.update({key: value for key, value in layer.items() if value is not None})
    if "dataset" not in settings:
        raise ConfigError("no dataset given: pass --dataset NAME, see `oodray datasets`")
    return RunConfig(**settings)


def fingerprint(config: RunConfig) -> dict[str, Any]:
    """The settings that a continued run must share, as plain values for JSON."""
    values = {name: getattr(config, name) for name, setting in SETTINGS.items() if setting.about.identity}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
