"""Runs side by side as tables, one for each dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from oodray.metrics.conventions import Convention
from oodray.report.published import TABLES
from oodray.report.words import conventions_text, percent

if TYPE_CHECKING:
    from oodray.analysis.comparison import Compared


def comparison_tables(runs: Mapping[str, Sequence[Compared]], convention: Convention) -> list[Table]:
    """One table for each dataset: the measured rows of every run, then what the paper printed of that dataset."""
    return [_table(dataset, compared, convention) for dataset, compared in runs.items()]


def _table(dataset: str, runs: Sequence[Compared], convention: Convention) -> Table:
    table = Table(title=dataset, title_justify="left", caption_justify="left", min_width=60)
    table.add_column("run", overflow="fold")
    table.add_column("score", overflow="fold")
    for name in ("AP %", "FPR95 %", "AUROC %"):
        table.add_column(name, justify="right", overflow="fold")
    names = _names(runs)
    for run, name in zip(runs, names, strict=True):
        for metrics in run.evaluation.of(convention):
            numbers = map(percent, (metrics.ap, metrics.fpr95, metrics.auroc))
            table.add_row(Text(name), Text(metrics.score), *numbers)
        table.add_section()
    blurred, exact = (all(getattr(run.evaluation, name) for run in runs) for name in ("blurred", "exact"))
    rules = conventions_text(convention, blurred=blurred, exact=exact)
    notes = [*map(_note, runs, names), *_different(runs), rules]
    if dataset in TABLES:
        cited, rows = TABLES[dataset]
        for row in rows:
            texts = (row.method, f"published, {cited}", f"{row.ap:.2f}", f"{row.fpr95:.2f}", "")
            table.add_row(*map(Text, texts), style="dim")
        notes.append(
            f"Rows marked as published are cited from {cited} of arXiv 2510.02909: not measured here, and without the "
            "conventions that they follow."
        )
    table.caption = Text("\n".join(notes), overflow="fold")
    return table


def _names(runs: Sequence[Compared]) -> list[str]:
    """The folders' names; whole paths where two have one name."""
    names = [run.path.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _note(run: Compared, name: str) -> str:
    evaluation = run.evaluation
    failed = f", {evaluation.failed} failed" if evaluation.failed else ""
    left = f", {evaluation.left} not done yet" if evaluation.left else ""
    setting = run.evaluation.rule
    how = f"K = {setting.k}, tau = {setting.tau}, T = {setting.ood_ratio}" if setting else "imported scores"
    return f"{name}: {run.model + ', ' if run.model else ''}{how}; {evaluation.images} images{failed}{left}."


def _different(runs: Sequence[Compared]) -> list[str]:
    if all(run.image_ids == runs[0].image_ids for run in runs):
        return []
    return ["These runs are not of the same images: their numbers do not compare."]
