"""Ranked rows as a table of the terminal, of Markdown or of LaTeX."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from oodray.report.ranking import Interval, RankedRow, RankedTable

_METRICS = {"ap": "AP", "fpr95": "FPR95", "auroc": "AUROC"}
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    character: f"\\{character}" for character in "&%$#_{}"
}


def terminal_table(ranked: RankedTable) -> Table:
    """A table with a section for each run."""
    table = Table(title=_title(ranked), title_justify="left", caption_justify="left", min_width=60)
    table.add_column("rank", justify="right")
    table.add_column("run", overflow="fold")
    table.add_column("score", overflow="fold")
    for name in _METRICS.values():
        table.add_column(f"{name} %", justify="right", overflow="fold")
    before = None
    for row in ranked.rows:
        if before is not None and (row.method if not row.published else None) != before:
            table.add_section()
        before = None if row.published else row.method
        table.add_row(*map(Text, _cells(row, "-")), style="dim" if row.published else None)
    table.caption = Text("\n".join(ranked.notes), overflow="fold")
    return table


def markdown(tables: Sequence[RankedTable]) -> str:
    """The tables in Markdown, the best AP, FPR95 and AUROC of each in bold."""
    parts = []
    for ranked in tables:
        lines = [f"### {_title(ranked)}", "", "| rank | method | score | AP | FPR95 | AUROC |"]
        lines.append("|---:|---|---|---:|---:|---:|")
        for row in ranked.rows:
            cells = [cell.replace("|", "\\|") for cell in _cells(row, "-")]
            best = _best(row, ranked)
            lines.append("| " + " | ".join([*cells[:3], *_marked(cells[3:], best, "**{}**")]) + " |")
        lines += ["", *(f"{note}  " for note in ranked.notes)]
        parts.append("\n".join(lines).rstrip())
    return "\n\n".join(parts) + "\n"


def latex(tables: Sequence[RankedTable]) -> str:
    """The tables in LaTeX, for the package booktabs; what the numbers mean stands in comments above each."""
    parts = []
    for ranked in tables:
        lines = [f"% {ranked.dataset}: {note}" for note in ranked.notes]
        lines += [r"\begin{tabular}{rllrrr}", r"\toprule"]
        lines += [r"rank & method & score & AP $\uparrow$ & FPR95 $\downarrow$ & AUROC $\uparrow$ \\", r"\midrule"]
        for row in ranked.rows:
            cells = [_in_latex(cell) for cell in _cells(row, "--")]
            best = _best(row, ranked)
            lines.append(" & ".join([*cells[:3], *_marked(cells[3:], best, r"\textbf{{{}}}")]) + r" \\")
        parts.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}"]))
    return "\n\n".join(parts) + "\n"


def _title(ranked: RankedTable) -> str:
    return ranked.dataset if ranked.convention is None else f"{ranked.dataset}, as {ranked.convention} measures"


def _cells(row: RankedRow, unknown: str) -> list[str]:
    numbers = [_number(getattr(row, name), getattr(row, f"{name}_interval"), unknown) for name in _METRICS]
    return [unknown if row.rank is None else str(row.rank), row.method, row.score, *numbers]


def _number(value: float | None, interval: Interval | None, unknown: str) -> str:
    if value is None:
        return unknown
    return f"{100 * value:.2f}" + (f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else "")


def _best(row: RankedRow, ranked: RankedTable) -> list[bool]:
    """Whether each number of a row is the best of its column."""
    found = []
    for name in _METRICS:
        values = [getattr(other, name) for other in ranked.rows if getattr(other, name) is not None]
        best = (min if name == "fpr95" else max)(values, default=None)
        found.append(best is not None and getattr(row, name) == best)
    return found


def _marked(cells: Sequence[str], best: Sequence[bool], mark: str) -> list[str]:
    return [mark.format(cell) if is_best else cell for cell, is_best in zip(cells, best, strict=True)]


def _in_latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
