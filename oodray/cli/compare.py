"""`oodray compare` and `oodray leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oodray.cli.terminal import one_form, print_json
from oodray.report.terminal import console, warn

if TYPE_CHECKING:
    from oodray.metrics.conventions import Convention
    from oodray.report.ranking import RankedTable

Like = Annotated[
    list[str] | None, typer.Option(help="Measure as an evaluator does, see `oodray evaluate`. Can be repeated.")
]
Bootstrap = Annotated[int, typer.Option(min=0, help="Draw the images anew so many times, for confidence intervals.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AsMarkdown = Annotated[bool, typer.Option("--markdown", help="Print tables in Markdown.")]
AsLatex = Annotated[bool, typer.Option("--latex", help="Print tables in LaTeX, for the package booktabs.")]


def compare(
    outs: Annotated[list[Path], typer.Argument(metavar="OUT1 OUT2 ...", help="Results folders.")],
    like: Like = None,
    bootstrap: Bootstrap = 0,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
    as_latex: AsLatex = False,
) -> None:
    """Put runs side by side, by dataset, ranked by AP, with what the paper printed as cited rows."""
    from oodray.analysis.comparison import compare_runs
    from oodray.analysis.labels import refuse_without_labels
    from oodray.report.ranking import ranked_tables
    from oodray.results.folder import ResultsFolder

    form = one_form(json=as_json, markdown=as_markdown, latex=as_latex)
    asked, folders = _conventions(like), [ResultsFolder(out) for out in outs]
    for folder in folders:
        refuse_without_labels(folder, "there is nothing to compare")
    runs = compare_runs(folders, asked, bootstrap)
    _print(ranked_tables(runs, asked), form)


def leaderboard(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder with results folders, at any depth.")],
    like: Like = None,
    bootstrap: Bootstrap = 0,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
    as_latex: AsLatex = False,
) -> None:
    """Rank all runs below a folder, best first, by dataset and convention."""
    from oodray.analysis.comparison import compare_runs, runs_below
    from oodray.metrics.conventions import DEFAULT
    from oodray.report.ranking import ranked_tables

    form = one_form(json=as_json, markdown=as_markdown, latex=as_latex)
    asked = [DEFAULT, *_conventions(like)] if like else [DEFAULT]
    runs, empty = runs_below(folder)
    if empty:
        warn(console(stderr=True), f"{len(empty)} runs have no results yet, the first is {empty[0]}")
    _print([table.best_first() for table in ranked_tables(compare_runs(runs, asked, bootstrap), asked)], form)


def _conventions(like: list[str] | None) -> list[Convention]:
    from oodray.metrics.conventions import DEFAULT
    from oodray.metrics.evaluators import like_evaluator

    return [like_evaluator(name) for name in like] if like else [DEFAULT]


def _print(tables: list[RankedTable], form: str | None) -> None:
    from oodray.report import comparison, ranking

    if form == "json":
        print_json(ranking.as_json(tables))
    elif form == "markdown":
        typer.echo(comparison.markdown(tables), nl=False)
    elif form == "latex":
        typer.echo(comparison.latex(tables), nl=False)
    else:
        terminal = console()
        for table in tables:
            terminal.print(comparison.terminal_table(table))
