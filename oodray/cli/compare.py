"""`oodray compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oodray.report.terminal import console


def compare(
    outs: Annotated[list[Path], typer.Argument(metavar="OUT1 OUT2 ...", help="Results folders.")],
    like: Annotated[str | None, typer.Option(help="Measure as an evaluator does, see `oodray evaluate`.")] = None,
) -> None:
    """Put runs side by side, by dataset, with what the paper printed as cited rows."""
    from oodray.analysis.comparison import compare_runs
    from oodray.analysis.labels import refuse_without_labels
    from oodray.metrics.conventions import DEFAULT, like_evaluator
    from oodray.report.comparison import comparison_tables
    from oodray.results.folder import ResultsFolder

    convention = DEFAULT if like is None else like_evaluator(like)
    terminal, folders = console(), [ResultsFolder(out) for out in outs]
    for folder in folders:
        refuse_without_labels(folder, "there is nothing to compare")
    for table in comparison_tables(compare_runs(folders, convention), convention):
        terminal.print(table)
