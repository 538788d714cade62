"""A run from its request to its results: the plan, the lease, the progress, the evaluation."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from oodray.api.run import Run
from oodray.phases import heard_by, phase
from oodray.report.phases import Phases
from oodray.report.terminal import note, warn
from oodray.results.folder import ResultsFolder
from oodray.results.lease import Lease
from oodray.results.log import RunLog
from oodray.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from oodray.job.layers import Layers
    from oodray.job.pipeline import Executor, Job
    from oodray.job.plan import Plan
    from oodray.job.units import UnitDone

Confirm = Callable[[ResultsFolder], None]
"""Asked before the run in a folder is removed; raises where it must not be."""


def planned(
    layers: Layers,
    folder: ResultsFolder,
    terminal: Console,
    started: contextlib.ExitStack,
    *,
    left: bool = True,
    log: RunLog | None = None,
    seeks_ood: bool = True,
) -> tuple[Plan, Executor]:
    """The plan of a run, and what will execute it; that starts while the plan is made, and ends with a stack.

    `left` says whether images are left to do; `log` hears of the phases that pass; `seeks_ood` says whether some images
    may hold what is OoD, which those of a fit or a calibration do not.

    Raises:
        OodrayError: the request is wrong; if so, nearly always before anything was started.
    """
    from oodray.job.executors import executor_of
    from oodray.job.plan import complete, make_request

    with Phases(terminal) as shown, heard_by(shown, log or RunLog()):
        request = make_request(layers, folder, seeks_ood=seeks_ood)
        executor = started.enter_context(executor_of(layers.config))

        def make_plan() -> Plan:
            return complete(request, shown.note, executor.expect)

        def make_plan_and_try() -> Plan:
            from oodray.models.loading import remarks_on, try_network

            plan = make_plan()
            remarks = remarks_on(plan.model)
            if executor.uses_ray:  # else the network is loaded here next
                with phase("trying the network"):
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
    log: RunLog | None = None,
    retry_errors: bool = False,
    append: bool = False,
    overwrite: bool = False,
    confirm: Confirm = lambda _: None,
) -> Run:
    """Compute what a plan has left in a results folder, then evaluate; `terminal` gets warnings and progress.

    The seconds of the run count from `since`, a `time.monotonic`; a `log` has what came before. What was `started` ends
    before the lease is given back: until then a process of Ray's may still write.

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
        log = _begun(log or RunLog(), plan, total, left, warnings)
        with log.written_to(folder), Progress(total=total, done=total - left, console=terminal) as shown:

            def on_unit(done: UnitDone) -> None:
                shown.update(done)
                log.add_unit(done)

            def on_start(line: str) -> None:
                shown.note(line)
                log.add("scheduled", text=line)

            with heard_by(shown, log):
                evaluation = run_job(job, executor, on_unit, on_start, since=since)
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


def _begun(log: RunLog, plan: Plan, total: int, left: int, warnings: list[str]) -> RunLog:
    """The log with what a session begins with."""
    config = plan.config
    setting = {"model": config.model, "k": config.k, "tau": config.tau, "ood_ratio": config.ood_ratio}
    log.add("start", dataset=config.dataset, root=config.root, **setting, images=total, left=left)
    for text in warnings:
        log.add("warning", text=text)
    return log


def plain(settings: Settings) -> dict[str, Any]:
    """Settings as they are declared, which have no paths: a `Path` becomes its text.

    >>> from pathlib import Path
    >>> plain({"root": Path("photos"), "k": 6})
    {'root': 'photos', 'k': 6}
    """
    return {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in settings.items()}
