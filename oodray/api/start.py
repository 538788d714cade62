"""Starting and continuing runs: the plan, the lease, the progress, the evaluation."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oodray.api.run import Run
from oodray.config import read_settings
from oodray.job.process_memory import set_up_process
from oodray.report.terminal import console, note, silent_console, warn
from oodray.results.folder import ResultsFolder
from oodray.results.lease import Lease
from oodray.settings import Settings
from oodray.storage.place import Place

if TYPE_CHECKING:
    from rich.console import Console

    from oodray.job.layers import Layers
    from oodray.job.pipeline import Executor, Job
    from oodray.job.plan import Plan

Confirm = Callable[[ResultsFolder], None]
"""Asked before the run in a folder is removed; raises where it must not be."""


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
        out: the results folder, on a disk or in an object store; by default `runs/DATASET`.
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
    folder = ResultsFolder(out or Path("runs") / layers.layout.name)
    if own_process and layers.config.executor == "local":
        set_up_process()  # before torch is imported
    since = time.monotonic()
    left = retry_errors or append or overwrite or not folder.is_finished()
    with contextlib.ExitStack() as started:
        plan, executor = planned(layers, folder, terminal, started, left=left)
        return carry_out(
            plan,
            folder,
            executor,
            terminal,
            started=started,
            since=since,
            retry_errors=retry_errors,
            append=append,
            overwrite=overwrite,
            confirm=confirm,
        )


def planned(
    layers: Layers, folder: ResultsFolder, terminal: Console, started: contextlib.ExitStack, *, left: bool = True
) -> tuple[Plan, Executor]:
    """The plan of a run, and what will execute it; that starts while the plan is made, and ends with a stack.

    `left` says whether images are left to do.

    Raises:
        OodrayError: the request is wrong; if so, nearly always before anything was started.
    """
    from oodray.job.executors import executor_of
    from oodray.job.plan import complete, make_request

    request = make_request(layers, folder)
    executor = started.enter_context(executor_of(layers.config))

    def make_plan() -> Plan:
        return complete(request, lambda line: note(terminal, line), executor.expect)

    def make_plan_and_try() -> Plan:
        from oodray.models.loading import remarks_on, try_network

        plan = make_plan()
        remarks = remarks_on(plan.model)
        if executor.uses_ray:  # else the network is loaded here next
            try_network(plan.model)
        return replace(plan, warnings=(*plan.warnings, *remarks))

    return (executor.start_beside(make_plan_and_try) if left else make_plan()), executor


def carry_out(
    plan: Plan,
    folder: ResultsFolder,
    executor: Executor,
    terminal: Console,
    *,
    started: contextlib.ExitStack,
    since: float,
    retry_errors: bool = False,
    append: bool = False,
    overwrite: bool = False,
    confirm: Confirm = lambda _: None,
) -> Run:
    """Compute what a plan has left in a results folder, then evaluate; `terminal` gets warnings and progress.

    The seconds of the run count from `since`, a `time.monotonic`. What was `started` ends before the lease is given
    back: until then a process of Ray's may still write.

    Raises:
        ResultsError: the folder holds a run with other settings, or another run is at work on it.
        RunError: the run failed.
    """
    from oodray.job.run import prepare
    from oodray.job.run import run as run_job
    from oodray.report.progress import Progress
    from oodray.results.continuing import other_versions, start_anew

    warnings = list(plan.warnings)
    for warning in plan.warnings:
        warn(terminal, warning)
    if overwrite:
        confirm(folder)
    with Lease(folder, on_wait=lambda line: note(terminal, line)) as lease, started.pop_all():
        if lease.taken_over is not None:
            warnings.append(f"{folder.path} was left by {lease.taken_over}, which is gone: its work is continued")
            warn(terminal, warnings[-1])
        if overwrite:
            start_anew(folder)
        job = prepare(plan, folder, retry_errors=retry_errors, append=append)
        total, left = job.manifest.num_rows, job.left.images.num_rows
        of_versions = other_versions(folder) if left < total and left else None
        if of_versions is not None:
            warnings.append(of_versions)
            warn(terminal, of_versions)
        warnings += _with_reference(job, executor, terminal)
        with Progress(total=total, done=total - left, console=terminal) as shown:
            evaluation = run_job(job, executor, shown.update, shown.note, since=since)
    return Run(folder, evaluation=evaluation, warnings=warnings)


def _with_reference(job: Job, executor: Executor, terminal: Console) -> list[str]:
    """Make the reference of a run whose own images are the fit, where it is not there yet; gives what to know of it."""
    from oodray.job.reference import first_pass_text, make_reference, prepare_reference, warnings_of
    from oodray.report.progress import Progress

    first = prepare_reference(job)
    if first is None:
        return []
    total, left = first.plan.manifest.num_rows, first.left.images.num_rows
    note(terminal, first_pass_text(first))
    with Progress(total=total, done=total - left, console=terminal) as shown:
        reference = make_reference(first, job.folder, executor, shown.update, shown.note)
    warnings = warnings_of(reference)
    for warning in warnings:
        warn(terminal, warning)
    note(terminal, f"second pass: scores of {job.left.images.num_rows} images")
    return warnings


def plain(settings: Settings) -> dict[str, Any]:
    """Settings as they are declared, which have no paths: a `Path` becomes its text.

    >>> plain({"root": Path("photos"), "k": 6})
    {'root': 'photos', 'k': 6}
    """
    return {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in settings.items()}
