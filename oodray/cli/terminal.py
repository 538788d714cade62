"""What commands share: the results folder as an argument, consoles, the tables of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

Out = Annotated[Path, typer.Argument(metavar="OUT", help="The results folder of a run.")]


def print_evaluation(evaluation: Any, path: Path) -> None:
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
