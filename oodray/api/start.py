"""Starting and continuing runs: `oodray.run`."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from oodray.api.calibrate import tau_for
from oodray.api.execution import Confirm, carry_out, plain, planned
from oodray.api.run import Run
from oodray.config import read_settings
from oodray.job.process_memory import set_up_process
from oodray.report.terminal import console, note, silent_console
from oodray.results.folder import ResultsFolder, default_out
from oodray.results.log import RunLog
from oodray.settings import Settings
from oodray.storage.place import Place


def run(
    *,
    out: str | Place | None = None,
    config: str | Path | None = None,
    progress: bool = True,
    retry_errors: bool = False,
    append: bool = False,
    overwrite: bool = False,
    **settings: Any,
) -> Run:
    """Segment and cluster every image of a dataset, write masks and tallies, and evaluate: what `oodray run` does.

    Where the results folder holds a part of the same run, it is continued.

        run = oodray.run(dataset="folder", root="photos", model="internimage-n-demo", k=6)
        run.images[["image_id", "ood_fraction"]]

    Args:
        out: the results folder, on a disk or in an object store; by default `runs/DATASET-ROOT`,
            with the name of the dataset's folder.
        config: a YAML file of settings; `settings` win over it.
        progress: show progress and warnings on standard error; without it nothing is printed.
        retry_errors: try images with an error again.
        append: take images that were added to the dataset since the run began; what is there is kept.
        overwrite: remove the run that the folder holds, and start anew.
        settings: `dataset`, `root`, `model` and all others of `docs/reference.md`, which has their values and
            defaults. None means not given.

    Raises:
        ConfigError: a setting is unknown or has a value that it cannot have, or none says which dataset, network
            or tau.
        DatasetError: the dataset is not there.
        ModelError: the network or its weights are not there.
        ResultsError: the folder holds a run with other settings, or another run is at work on it.
        RunError: the run failed; the same call continues it.
    """
    return start(
        settings,
        out=out,
        config=config,
        progress=progress,
        retry_errors=retry_errors,
        append=append,
        overwrite=overwrite,
    )


def start(
    settings: Settings,
    *,
    out: str | Place | None = None,
    config: str | Path | None = None,
    progress: bool = True,
    retry_errors: bool = False,
    append: bool = False,
    overwrite: bool = False,
    confirm: Confirm = lambda _: None,
    own_process: bool = False,
) -> Run:
    """As `run`, with the settings as a mapping.

    `confirm` is called before a run is removed. In a process of its own, as a command is, threads wait and memory is
    kept as the network needs it; a process of the caller's is left as it is.

    Raises:
        OodrayError: as `run` does.
    """
    from oodray.job.layers import read_layers

    terminal = console(stderr=True) if progress else silent_console()
    from_file = {} if config is None else read_settings(Path(config))
    layers = read_layers(plain(settings), from_file)
    folder = ResultsFolder(out or default_out(layers.config.dataset, layers.config.root, shard=layers.config.shard))
    if own_process and layers.config.executor == "local":
        set_up_process()  # before torch is imported
    since = time.monotonic()
    found = tau_for(layers, folder, progress=progress, overwrite=overwrite)
    if found is not None:
        note(terminal, found.told)
        layers = read_layers(plain(settings) | {"tau": found.tau, "tau_auto": True}, from_file)
    left, log = retry_errors or append or overwrite or not folder.is_finished(), RunLog()
    with contextlib.ExitStack() as started:
        plan, executor = planned(layers, folder, terminal, started, left=left, log=log)
        return carry_out(
            plan,
            folder,
            executor,
            terminal,
            started=started,
            since=since,
            log=log,
            retry_errors=retry_errors,
            append=append,
            overwrite=overwrite,
            confirm=confirm,
        )
