"""Rows of a comparison: what was measured and what the paper printed, ranked by AP."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from oodray.datasets.remarks import examples
from oodray.metrics.conventions import Convention
from oodray.report.published import TABLES
from oodray.report.words import conventions_text, why_empty

if TYPE_CHECKING:
    from oodray.analysis.comparison import Compared

Interval = tuple[float, float]


@dataclass(frozen=True)
class RankedRow:
    """A row, with fractions; None where a number is not known.

    Attributes:
        rank: by AP among all rows of the dataset, 1 the best; equal ones share a rank. None without an AP.
        method: name of the run, or of a published method.
        score: name of the score; of a published row, the table that it is cited from.
        published: whether it is cited, not measured.
        ap: average precision.
        fpr95: FPR at 95 % TPR.
        auroc: area under the ROC curve.
        ap_interval: 95 % confidence interval, where one was asked for; likewise the others.
        fpr95_interval: see above.
        auroc_interval: see above.
    """

    rank: int | None
    method: str
    score: str
    published: bool
    ap: float | None
    fpr95: float | None
    auroc: float | None
    ap_interval: Interval | None = None
    fpr95_interval: Interval | None = None
    auroc_interval: Interval | None = None


@dataclass(frozen=True)
class RankedTable:
    """The rows of one dataset under one convention.

    Attributes:
        dataset: its name.
        convention: the evaluator's name, None for the default.
        rows: measured rows run by run, then cited ones.
        notes: what the numbers are of, and mean.
    """

    dataset: str
    convention: str | None
    rows: list[RankedRow]
    notes: list[str]

    def best_first(self) -> RankedTable:
        """The same table in the order of the ranks."""
        return replace(self, rows=sorted(self.rows, key=lambda row: row.rank or math.inf))


def ranked_tables(runs: Mapping[str, Sequence[Compared]], conventions: Sequence[Convention]) -> list[RankedTable]:
    """One table for each dataset and convention: the measured rows of every run, then what the paper printed."""
    return [_table(dataset, of, convention) for dataset, of in runs.items() for convention in conventions]


def as_json(tables: Sequence[RankedTable]) -> list[dict[str, Any]]:
    """The tables as plain values; a number that is not known is None."""
    return [
        {
            "dataset": table.dataset,
            "like": table.convention,
            "rows": [{name: getattr(row, name) for name in RankedRow.__dataclass_fields__} for row in table.rows],
            "notes": table.notes,
        }
        for table in tables
    ]


def _table(dataset: str, runs: Sequence[Compared], convention: Convention) -> RankedTable:
    names = _names(runs)
    rows = [row for run, name in zip(runs, names, strict=True) for row in _measured(run, name, convention)]
    blurred, exact = (all(getattr(run.evaluation, name) for run in runs) for name in ("blurred", "exact"))
    rules = conventions_text(convention, blurred=blurred, exact=exact)
    notes = [
        *(_note(run, name, convention) for run, name in zip(runs, names, strict=True)),
        *_different(runs, names),
        rules,
    ]
    if dataset in TABLES:
        cited, published = TABLES[dataset]
        rows += [
            RankedRow(None, row.method, f"published, {cited}", True, row.ap / 100, row.fpr95 / 100, None)
            for row in published
        ]
        notes.append(
            f"Rows marked as published are cited from {cited} of arXiv 2510.02909: not measured here, and without the "
            "conventions that they follow."
        )
    return RankedTable(dataset, convention.like, _ranked(rows), notes)


def _measured(run: Compared, name: str, convention: Convention) -> list[RankedRow]:
    return [
        RankedRow(
            rank=None,
            method=name,
            score=metrics.score,
            published=False,
            ap=_known(metrics.ap),
            fpr95=_known(metrics.fpr95),
            auroc=_known(metrics.auroc),
            ap_interval=_interval(metrics.ap_low, metrics.ap_high),
            fpr95_interval=_interval(metrics.fpr95_low, metrics.fpr95_high),
            auroc_interval=_interval(metrics.auroc_low, metrics.auroc_high),
        )
        for metrics in run.evaluation.of(convention)
    ]


def _ranked(rows: Sequence[RankedRow]) -> list[RankedRow]:
    areas = [row.ap for row in rows if row.ap is not None]
    return [row if row.ap is None else replace(row, rank=1 + sum(area > row.ap for area in areas)) for row in rows]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _interval(low: float | None, high: float | None) -> Interval | None:
    return None if low is None or high is None or math.isnan(low) or math.isnan(high) else (low, high)


def _names(runs: Sequence[Compared]) -> list[str]:
    """The folders' names; whole paths where two have one name."""
    names = [run.path.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _note(run: Compared, name: str, convention: Convention) -> str:
    evaluation = run.evaluation
    failed = f", {evaluation.failed} failed" if evaluation.failed else ""
    left = f", {evaluation.left} not done yet" if evaluation.left else ""
    setting = run.evaluation.rule
    how = f"K = {setting.k}, tau = {setting.tau}, T = {setting.ood_ratio}" if setting else "imported scores"
    text = f"{name}: {run.model + ', ' if run.model else ''}{how}; {evaluation.images} images{failed}{left}."
    empty = why_empty(evaluation, convention)
    return f"{text} {empty}" if empty else text


def _different(runs: Sequence[Compared], names: Sequence[str]) -> list[str]:
    """What is to be said where the numbers of runs are not of the same images."""
    if not all(run.image_ids == runs[0].image_ids for run in runs):
        return ["These runs are not of the same images: their numbers do not compare."]
    measured = frozenset[str]().union(*(run.measured for run in runs))
    lacking = [
        f"{name} lacks {examples(sorted(measured - run.measured))}"
        for run, name in zip(runs, names, strict=True)
        if run.measured != measured
    ]
    if not lacking:
        return []
    return [
        "Images that failed or are not done are in no number, so that these are of different images: "
        f"{'; '.join(lacking)}."
    ]
