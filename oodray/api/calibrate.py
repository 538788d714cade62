"""Estimating tau: a run over in-distribution images, and what its tallies say of each threshold."""

from __future__ import annotations

import contextlib
import time
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oodray.api.start import carry_out, plain, planned
from oodray.config import RUN_ONLY, SETTINGS
from oodray.errors import ConfigError
from oodray.report.terminal import console, silent_console
from oodray.results.folder import ResultsFolder
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
) -> Calibration:
    """Estimate tau on in-distribution images, and tell the false alarms of each T there, as `oodray calibrate` does.

    Args:
        settings: `dataset`, `root`, `model` and others of `docs/reference.md`; not those that a calibration finds.
        quantile: share of in-distribution pixels that may be unsure, from 0 to `MAX_QUANTILE`.
        out: the results folder; by default `runs/calibrate-DATASET`.
        config_out: YAML file to write model and tau to, for `config` of `oodray.run`.
        progress: show progress and warnings on standard error; without it nothing is printed.

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
    folder = ResultsFolder(out or Path("runs") / f"calibrate-{layout.name}")
    since = time.monotonic()
    with contextlib.ExitStack() as started:
        plan, executor = planned(layers, folder, terminal, started)
        carry_out(plan, folder, executor, terminal, started=started, since=since)
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
