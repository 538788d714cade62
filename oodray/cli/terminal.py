"""What commands share: the results folder as an argument, and the tables of an evaluation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oodray.report.terminal import console, note

if TYPE_CHECKING:
    from oodray.analysis.evaluation import Evaluation
    from oodray.results.folder import ResultsFolder
    from oodray.storage.place import Place

Out = Annotated[Path, typer.Argument(metavar="OUT", help="The results folder of a run.")]


def print_evaluation(evaluation: Evaluation, path: Place) -> None:
    """The tables of an evaluation, and where the results are."""
    from oodray.report.tables import evaluation_tables

    terminal = console()
    for table in evaluation_tables(evaluation):
        terminal.print(table)
    note(terminal, f"results in {path}")


def confirm_removal(folder: ResultsFolder) -> None:
    """Where somebody can answer, ask before results are removed."""
    files = len(folder.finished_units())
    if files and sys.stdin.isatty():
        typer.confirm(f"Remove the run in {folder.path}, {files} files?", abort=True, err=True)
