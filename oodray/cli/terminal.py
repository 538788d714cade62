"""What commands share: the results folder as an argument, consoles, the tables of an evaluation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from oodray.analysis.evaluation import Evaluation
    from oodray.job.plan import Plan
    from oodray.results.folder import ResultsFolder
    from oodray.storage.place import Place

Out = Annotated[Path, typer.Argument(metavar="OUT", help="The results folder of a run.")]


def stream_plan(
    plan: Plan, folder: ResultsFolder, *, retry_errors: bool = False, overwrite: bool = False
) -> Evaluation:
    """Start or continue a run, with warnings and progress on standard error."""
    from oodray.job.executors import executor_of
    from oodray.job.run import prepare, run
    from oodray.report.progress import Progress
    from oodray.results.continuing import start_anew
    from oodray.results.lease import Lease

    errors = console(stderr=True)
    for warning in plan.warnings:
        warn(errors, warning)
    if overwrite and folder.finished_units() and sys.stdin.isatty():
        typer.confirm(f"Remove the run in {folder.path}, {len(folder.finished_units())} files?", abort=True, err=True)
    with Lease(folder, on_wait=note) as lease:
        if lease.taken_over is not None:
            warn(errors, f"{folder.path} was left by {lease.taken_over}, which is gone: its work is continued")
        if overwrite:
            start_anew(folder)
        job = prepare(plan, folder, retry_errors=retry_errors)
        total, left = plan.manifest.num_rows, job.left.images.num_rows
        with (
            executor_of(plan.config) as executor,
            Progress(total=total, done=total - left, console=errors) as progress,
        ):
            return run(job, executor, progress.update, progress.note)


def note(line: str) -> None:
    """A line on standard error."""
    console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)


def warn(terminal: Console, text: str) -> None:
    """A line that stands out."""
    terminal.print(f"warning: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def print_evaluation(evaluation: Evaluation, path: Place) -> None:
    """The tables of an evaluation, and where the results are."""
    from oodray.report.tables import evaluation_tables

    terminal = console()
    for table in evaluation_tables(evaluation):
        terminal.print(table)
    terminal.print(f"results in {path}", markup=False, highlight=False, soft_wrap=True)


def console(*, stderr: bool = False) -> Console:
    """A terminal, or a file, that takes rich's tables."""
    from rich.console import Console

    return Console(stderr=stderr)
