"""The numbers of a page: metrics with intervals, and the charts of its scores and of its settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.analysis.evaluation import Evaluation, measure_run
from oodray.analysis.files import CountedFiles
from oodray.analysis.sweep import make_request, sweep_run
from oodray.analysis.totals import total
from oodray.method.rule import Rule, as_decimals, exceeded
from oodray.metrics.evaluation import Totals
from oodray.metrics.points import CurvePoints, curve_points, ratio_histogram, score_histogram
from oodray.metrics.tally import Tally, first_key_at_least
from oodray.report.page.charts import Chart, Plane, curve_charts, heat_map_chart, histogram_chart
from oodray.results.cells import clusters_of
from oodray.results.folder import ResultsFolder

RESAMPLES = 200
"""Resamples of the bootstrap behind the intervals."""

MOST_RESAMPLED = 1000
"""Images above which no intervals are drawn where nobody asked for them: all counts of all images are held at once."""

BEST = 8
"""Settings that are listed."""

_TAUS, _RATIOS = 41, 41


@dataclass(frozen=True, eq=False)
class Numbers:
    """What a page says of a run in numbers.

    Attributes:
        evaluation: metrics of the scores and of the mask.
        resamples: of the bootstrap; 0 without intervals.
        base_rate: share of OoD pixels among labelled ones; 0 where nothing is labelled.
        curves: by score, in the order of the table.
        curve_charts: precision-recall and ROC; none without both classes.
        histograms: one for each score with values.
        settings: heat maps over tau and T, one for each K.
        best: the settings with the best F1, as rows of a sweep; none without labels.
    """

    evaluation: Evaluation
    resamples: int
    base_rate: float
    curves: dict[str, CurvePoints]
    curve_charts: list[Chart]
    histograms: list[Chart]
    settings: list[Chart]
    best: list[dict[str, Any]]


def numbers_of(folder: ResultsFolder, images: int, resamples: int | None) -> Numbers:
    """The numbers of a run with finished files.

    Args:
        folder: of the run.
        images: how many are done.
        resamples: of the bootstrap; None is `RESAMPLES`, and none for more than `MOST_RESAMPLED` images.

    Raises:
        ResultsError: a file cannot be read.
    """
    if resamples is None:
        resamples = RESAMPLES if images <= MOST_RESAMPLED else 0
    rule, files = folder.rule(), CountedFiles.of(folder)
    totals = total(files, rule, on_ray=False)
    scores = folder.read_run()["config"]["scores"] if totals.images else []
    labelled = bool(scores) and all(totals.labelled(scores[0]))
    resamples = resamples if labelled and images > 1 else 0
    evaluation = measure_run(folder, resamples=resamples, on_ray=False)
    found = {score: curve_points(*totals.counts(score)) for score in scores} if labelled else {}
    curves = {score: points for score, points in found.items() if points is not None}
    base_rate = _base_rate(evaluation)
    settings, best = ([], []) if rule is None else _settings(folder, files, totals, rule, labelled=labelled)
    return Numbers(
        evaluation=evaluation,
        resamples=resamples,
        base_rate=base_rate,
        curves=curves,
        curve_charts=curve_charts(curves, base_rate),
        histograms=_histograms(totals, scores),
        settings=settings,
        best=best,
    )


def _base_rate(evaluation: Evaluation) -> float:
    for metrics in evaluation.scores:
        if metrics.pixels_ood + metrics.pixels_id:
            return metrics.pixels_ood / (metrics.pixels_ood + metrics.pixels_id)
    return 0.0


def _histograms(totals: Totals, scores: Sequence[str]) -> list[Chart]:
    found = {
        score: ratio_histogram(totals.clusters) if score == "ratio" else score_histogram(totals.scores[score])
        for score in scores
        if score == "ratio" or score in totals.scores
    }
    drawn = ((score, histogram) for score, histogram in found.items() if histogram is not None)
    return [histogram_chart(index, score, histogram) for index, (score, histogram) in enumerate(drawn)]


def _settings(
    folder: ResultsFolder, files: CountedFiles, totals: Totals, rule: Rule, *, labelled: bool
) -> tuple[list[Chart], list[dict[str, Any]]]:
    """A heat map for each K: F1 of the mask with labels, without them the share of the pixels that is called OoD.

    With labels, the settings with the best F1, too.
    """
    confidences = Tally.sum([totals.inside, totals.outside])
    if not confidences.counts.size:
        return [], []
    best: list[dict[str, Any]] = []
    taus, ood_ratios = _taus(confidences, rule), np.linspace(0, 1, _RATIOS).round(3).tolist()
    request = make_request(folder, taus, ood_ratios)
    if labelled:
        found = sweep_run(folder, request, on_ray=False)
        best = [found.setting(row) for row in found.best(BEST)]
        f1 = found.table["f1"].to_numpy().reshape(request.shape)
        what, grids = "F1 of the mask", dict(zip(request.ks, np.nan_to_num(f1), strict=True))
    else:
        what, grids = "pixels called OoD", {k: _area(files, k, request.taus_used(), ood_ratios) for k in request.ks}
    charts = [
        heat_map_chart(
            f"settings-{k}", f"K = {k}", Plane(what, taus, ood_ratios, values), rule if k == rule.k else None
        )
        for k, values in sorted(grids.items(), key=lambda item: (item[0] != rule.k, item[0]))
    ]
    return charts, best


def _taus(confidences: Tally, rule: Rule) -> list[float]:
    """Values of tau over all confidences but the largest, where every pixel is unsure, and around the run's own."""
    low, high = confidences.quantile(0.001), confidences.quantile(0.95)
    low, high = min(low, rule.tau), max(high, rule.tau)
    margin = 0.02 * (high - low or 1.0)
    return as_decimals(np.linspace(low - margin, high + margin, _TAUS).round(4).tolist())


def _area(files: CountedFiles, k: int, taus: Sequence[float], ood_ratios: Sequence[float]) -> NDArray[np.float64]:
    """The share of all pixels that is called OoD, `(taus, ood_ratios)`."""
    area, pixels = np.zeros((len(taus), len(ood_ratios) + 1), np.int64), 0
    keys = [first_key_at_least(tau) for tau in taus]
    for table in files.tables(["clusters"]):
        clusters = clusters_of(table["clusters"])
        own = clusters.k == k
        pixels += int(clusters.pixels[own].sum())
        for row, unsure in enumerate(clusters.cells.below(keys)[:, own]):
            np.add.at(area[row], exceeded(unsure, clusters.pixels[own], ood_ratios), clusters.pixels[own])
    # A cluster that exceeds the first so many values of T counts at each of them.
    called: Any = np.cumsum(area[:, ::-1], axis=1)[:, ::-1][:, 1:]
    shares: NDArray[np.float64] = called / max(pixels, 1)
    return shares
