"""Estimating tau: a run over in-distribution images, and what its tallies say of each threshold."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oodray.api.execution import carry_out, plain, planned
from oodray.config import RUN_ONLY, SELF, SETTINGS
from oodray.errors import ConfigError
from oodray.report.terminal import console, silent_console
from oodray.results.folder import ResultsFolder, default_out
from oodray.results.log import RunLog
from oodray.settings import Settings, shown
from oodray.storage.place import Place

if TYPE_CHECKING:
    from oodray.analysis.calibration import Calibration
    from oodray.job.layers import Layers

MAX_QUANTILE = 0.999
"""At 1 every pixel might be unsure."""


def calibrate(
    settings: Settings,
    *,
    quantile: float = 0.05,
    out: str | Place | None = None,
    config_out: str | Path | None = None,
    progress: bool = True,
    overwrite: bool = False,
) -> Calibration:
    """Estimate tau on in-distribution images, and tell the false alarms of each T there, as `oodray calibrate` does.

    Args:
        settings: `dataset`, `root`, `model` and others of `docs/reference.md`; not those that a calibration finds.
        quantile: share of in-distribution pixels that may be unsure, from 0 to `MAX_QUANTILE`.
        out: the results folder; by default `runs/calibrate-DATASET-ROOT`, with the name of the dataset's folder.
        config_out: YAML file to write model and tau to, for `config` of `oodray.run`.
        progress: show progress and warnings on standard error; without it nothing is printed.
        overwrite: remove the calibration that the folder holds, and start anew.

    Raises:
        ConfigError: a setting is unknown, cannot have its value, or is not one of a calibration; or the quantile is
            out of range.
        DatasetError: the dataset is not there, or holds OoD pixels.
        ModelError: the network or its weights are not there.
        ResultsError: the folder holds another run.
        RunError: the run failed.
    """
    from oodray.analysis.calibration import calibrate as calibrate_run
    from oodray.analysis.calibration import write_config

    check_quantile(quantile)
    layers = in_distribution_layers(plain(settings), what="a calibration")
    layout = layers.layout
    terminal = console(stderr=True) if progress else silent_console()
    folder = ResultsFolder(out or default_out(layout.name, layers.config.root, before="calibrate-"))
    since = time.monotonic()
    with contextlib.ExitStack() as started:
        left, log = overwrite or not folder.is_finished(), RunLog()
        plan, executor = planned(layers, folder, terminal, started, left=left, log=log, seeks_ood=False)
        carry_out(plan, folder, executor, terminal, started=started, since=since, log=log, overwrite=overwrite)
    calibration = calibrate_run(folder, float(quantile))
    if config_out is not None:
        write_config(
            Path(config_out),
            calibration,
            settings={name: value for name in OF_NETWORK if (value := getattr(plan.config, name))},
            model_sha256=plan.model_sha256,
            dataset=layout.name,
        )
    return calibration


@dataclass(frozen=True)
class FoundTau:
    """A tau that was estimated for a run, and what its user is told of it."""

    tau: float
    told: str


def tau_for(layers: Layers, folder: ResultsFolder, *, progress: bool, overwrite: bool) -> FoundTau | None:
    """The tau of `--tau auto` where it has to be estimated first; None where it is not asked for, or a fit has it.

    It is estimated on the images of `--calibrate-on`, or else on those of the run, in `OUT/calibration`.

    Raises:
        ConfigError: `--calibrate-on` comes without `--tau auto`, or with a fit; or the images of the run hold what
            is to be found in them.
        OodrayError: as `calibrate` does.
    """
    from oodray.job.plan import make_request

    config = layers.config
    has_fit = config.fit not in (None, SELF)  # that of the run itself comes after its tau
    if config.calibrate_on is not None and (not config.tau_auto or has_fit):
        raise ConfigError("--calibrate-on DIR belongs to --tau auto, without --fit, which has a tau of its own")
    if not config.tau_auto or has_fit:
        return None
    if config.calibrate_on is None and layers.layout.images is not None and layers.layout.label_codes.ood:
        raise ConfigError(
            f"--tau auto needs images that hold nothing unknown, and {config.dataset} is there to measure on: pass "
            "--calibrate-on DIR with a folder of such images, or --fit FIT"
        )
    # What is wrong with the run is found before its tau is.
    make_request(replace(layers, given={**layers.given, "tau": 0.0}), folder)
    on = {"dataset": config.dataset, "root": config.root, "split": config.split}
    if config.calibrate_on is not None:
        on = {"dataset": "folder", "root": config.calibrate_on}
    settings = {name: getattr(config, name) for name in (*OF_NETWORK, *_OF_EXECUTION)}
    # One cluster: confidences alone are counted.
    found = calibrate(
        {**settings, **on, "k": 1, "n_init": 1}, out=folder.calibration, progress=progress, overwrite=overwrite
    )
    where = (
        f"the images in {config.calibrate_on}" if config.calibrate_on else "the run's own images, whatever they show"
    )
    return FoundTau(
        found.tau, f"tau {found.tau:g}: {found.unsure:.1%} of the pixels of {where} have a smaller max-logit"
    )


_OF_EXECUTION = (
    "dtype",
    "seed",
    "batch_size",
    "threads",
    "executor",
    "workers",
    "fewest_workers",
    "gpus_per_worker",
    "wait",
    "ray_address",
    "allow_outside_root",
)

OF_NETWORK = ("model", "members", "checkpoint", "member_checkpoints", "flip", "scales", "mc_dropout")
"""Settings that a threshold belongs to."""


def in_distribution_layers(settings: Settings, from_file: Settings | None = None, *, what: str = "a fit") -> Layers:
    """The settings of a pass over in-distribution images, for a calibration and for a fit.

    Raises:
        ConfigError: a setting is unknown, cannot have its value, or is not one of such a pass.
        DatasetError: no such dataset is known, or it holds OoD pixels.
    """
    from oodray.analysis.calibration import PROVISIONAL_TAU, check_in_distribution
    from oodray.job.layers import read_layers

    for name in settings:
        if name in SETTINGS and SETTINGS[name].about.commands == RUN_ONLY:
            raise ConfigError(f"{what} does not take {name}: it works without it, or finds it")
    check_in_distribution(read_layers(settings, from_file).layout)
    # No pixel scores: the clusters' tallies answer everything.
    return read_layers({**settings, "tau": PROVISIONAL_TAU, "scores": ("ratio",), "exact_counts": True}, from_file)


def check_quantile(quantile: Any) -> None:
    """Refuse what is no share of pixels that may be unsure.

    Raises:
        ConfigError: it is none.
    """
    is_number = isinstance(quantile, Real) and not isinstance(quantile, bool)
    if not is_number or not 0 <= quantile <= MAX_QUANTILE:
        raise ConfigError(f"quantile must be a share from 0 to {MAX_QUANTILE}, got {shown(quantile)}")
