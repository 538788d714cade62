"""What commands share: the results folder as an argument, consoles, the tables of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from oodray.job.plan import Plan
    from oodray.job.reduce import Evaluation
    from oodray.job.results import ResultsFolder

Out = Annotated[Path, typer.Argument(metavar="OUT", help="The results folder of a run.")]


def stream_plan(plan: Plan, folder: ResultsFolder) -> Evaluation:
    """Start or continue a run, with warnings and progress on standard error."""
    from oodray.job.run import images_done, run, start_or_continue
    from oodray.report.progress import Progress

    errors = console(stderr=True)
    for warning in plan.warnings:
        errors.print(f"warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    start_or_continue(plan, folder)
    with Progress(total=plan.manifest.num_rows, done=images_done(plan, folder), console=errors) as progress:
        return run(plan, folder, progress.update)


def print_evaluation(evaluation: Evaluation, path: Path) -> None:
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
