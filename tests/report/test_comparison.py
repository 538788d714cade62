"""Ranked rows as text: ranks, the best in bold, what LaTeX and Markdown want escaped, JSON that has no NaN."""

from __future__ import annotations

import json
import math
import re
from pathlib import PurePosixPath
from typing import Any

from oodray.analysis.comparison import Compared
from oodray.analysis.evaluation import Evaluation
from oodray.metrics.conventions import DEFAULT
from oodray.metrics.curves import operating_point
from oodray.metrics.evaluation import ScoreMetrics
from oodray.report.comparison import latex, markdown
from oodray.report.published import TABLES
from oodray.report.ranking import as_json, ranked_tables


def run(name: str, *, dataset: str = "folder", **scores: tuple[float, float]) -> Compared:
    metrics = [
        ScoreMetrics(score, ap, fpr95, 0.5, 10, 10, ap_low=ap - 0.01, ap_high=ap + 0.01)
        for score, (ap, fpr95) in scores.items()
    ]
    evaluation = Evaluation(None, 3, 0, metrics, operating_point(1, 1, 1, 1))
    path: Any = PurePosixPath("/runs") / name
    return Compared(path, dataset, None, frozenset({"a"}), frozenset({"a"}), evaluation)


def test_rows_are_ranked_by_ap_and_equal_ones_share_a_rank() -> None:
    runs = {"folder": [run("one", a=(0.5, 0.3), b=(0.7, 0.2)), run("two", a=(0.5, 0.1), b=(math.nan, math.nan))]}
    [table] = ranked_tables(runs, [DEFAULT])
    assert [(row.method, row.score, row.rank) for row in table.rows] == [
        ("one", "a", 2),
        ("one", "b", 1),
        ("two", "a", 2),
        ("two", "b", None),
    ]
    assert [row.rank for row in table.best_first().rows] == [1, 2, 2, None]


def test_the_papers_rows_have_a_rank_among_them() -> None:
    [table] = ranked_tables({"road-anomaly": [run("mine", dataset="road-anomaly", s=(0.6, 0.5))]}, [DEFAULT])
    published = TABLES["road-anomaly"][1]
    assert len(table.rows) == 1 + len(published)
    assert table.rows[0].rank == 1 + sum(row.ap > 60 for row in published)
    assert any("not measured here" in note for note in table.notes)


def test_markdown_has_a_row_each_and_the_best_in_bold() -> None:
    text = markdown(ranked_tables({"folder": [run("a|b", x=(0.5, 0.3)), run("c", x=(0.25, 0.2))]}, [DEFAULT]))
    lines = text.splitlines()
    assert r"| 1 | a\|b | x | **50.00 [49.0, 51.0]** | 30.00 | **50.00** |" in lines
    assert "| 2 | c | x | 25.00 [24.0, 26.0] | **20.00** | **50.00** |" in lines
    assert lines[2].count("|") == lines[3].count("|") == 7


def test_latex_is_escaped_and_closed() -> None:
    text = latex(ranked_tables({"folder": [run("50%_off & more", x=(0.5, 0.3))]}, [DEFAULT]))
    assert r"1 & 50\%\_off \& more & x & \textbf{50.00 [49.0, 51.0]}" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {5}


def test_json_has_no_nan() -> None:
    [table] = as_json(ranked_tables({"folder": [run("one", a=(math.nan, 0.3))]}, [DEFAULT]))
    again = json.loads(json.dumps(table, allow_nan=False))
    assert (again["dataset"], again["like"]) == ("folder", None)
    assert again["rows"][0]["ap"] is None
    assert again["rows"][0]["fpr95"] == 0.3
