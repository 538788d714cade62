"""What commands share: the results folder as an argument, and the tables of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oodray.report.terminal import console, note, warn

if TYPE_CHECKING:
    from oodray.analysis.evaluation import Evaluation
    from oodray.storage.place import Place

Out = Annotated[Path, typer.Argument(metavar="OUT", help="The results folder of a run.")]


def print_evaluation(evaluation: Evaluation, path: Place) -> None:
    """The tables of an evaluation, what is odd about the masks, where the results are, and what to do next.

    Without labels, the most anomalous images take the place of the metrics.
    """
    from oodray.analysis.files import CountedFiles
    from oodray.analysis.images import found_in_images, mean_ood_fraction
    from oodray.report.advice import misfit, next_commands
    from oodray.report.tables import evaluation_tables, is_labelled, most_anomalous_table
    from oodray.results.folder import ResultsFolder

    terminal = console()
    for table in evaluation_tables(evaluation):
        terminal.print(table)
    if evaluation.rule is not None and evaluation.images:
        images = found_in_images(CountedFiles.of(ResultsFolder(path)))
        if not is_labelled(evaluation):
            terminal.print(most_anomalous_table(images))
        advice = misfit(mean_ood_fraction(images))
        if advice is not None:
            warn(terminal, advice)
    note(terminal, f"results in {path}")
    if evaluation.rule is not None and not is_labelled(evaluation):
        for command, what in next_commands(path):
            note(terminal, f"next: {command}   {what}")
