"""What commands share: the results folder as an argument, and the tables of an evaluation."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oodray.errors import ConfigError
from oodray.report.terminal import console, note, warn

if TYPE_CHECKING:
    from oodray.analysis.evaluation import Evaluation
    from oodray.analysis.files import CountedFiles
    from oodray.results.folder import ResultsFolder
    from oodray.storage.place import Place

Out = Annotated[Path, typer.Argument(metavar="OUT", help="The results folder of a run.")]


def print_evaluation(evaluation: Evaluation, path: Place, files: CountedFiles | None = None) -> None:
    """The tables of an evaluation, what is odd about the masks, where the results are, and what to do next.

    Without labels, the most anomalous images take the place of the metrics.

    Args:
        evaluation: of a run.
        path: of its folder.
        files: its finished files, where they are known.
    """
    from oodray.analysis.files import CountedFiles
    from oodray.analysis.images import images_in_brief
    from oodray.report.advice import NOTHING_FOUND, misfit, next_commands
    from oodray.report.tables import MOST_ANOMALOUS, evaluation_tables, is_labelled, most_anomalous_table
    from oodray.results.folder import ResultsFolder

    terminal = console()
    for table in evaluation_tables(evaluation):
        terminal.print(table)
    if evaluation.rule is not None and evaluation.images:
        found = images_in_brief(files or CountedFiles.of(ResultsFolder(path)), MOST_ANOMALOUS)
        if not is_labelled(evaluation):
            terminal.print(most_anomalous_table(found))
            if found.mean_ood_fraction == 0:
                note(terminal, NOTHING_FOUND)
        advice = misfit(found.mean_ood_fraction)
        if advice is not None:
            warn(terminal, advice)
    note(terminal, f"results in {path}")
    if evaluation.rule is not None and not is_labelled(evaluation):
        for command, what in next_commands(path):
            note(terminal, f"next: {command}   {what}")


def confirm_removal(folder: ResultsFolder) -> None:
    """Where somebody can answer, ask before results are removed."""
    from oodray.results.reading import finished_units

    units = len(finished_units(folder))
    if units and sys.stdin.isatty():
        typer.confirm(f"Remove the run in {folder.path}, {units} units of images?", abort=True, err=True)


def one_form(**asked: bool) -> str | None:
    """Which of some forms of output was asked for.

    Raises:
        ConfigError: more than one.
    """
    chosen = [name for name, given in asked.items() if given]
    if len(chosen) > 1:
        raise ConfigError(f"--{chosen[0]} and --{chosen[1]} do not go together: pass one of them")
    return chosen[0] if chosen else None


def print_json(content: Any) -> None:
    """Print plain values as JSON; NaN becomes null, as JSON has no word for it."""
    from oodray.results.folder import without_nan

    typer.echo(json.dumps(without_nan(content), indent=2, allow_nan=False))
