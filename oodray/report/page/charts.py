"""The charts of a report: curves, histograms, and heat maps over tau and T."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from oodray.metrics.points import CurvePoints, Histogram
from oodray.report.page.svg import INK, PAPER, QUIET, SERIES, colour, new_figure, style_axes, svg_of

if TYPE_CHECKING:
    from oodray.method.rule import Rule

LINE_STYLES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)), (0, (10, 3)), (0, (1, 1)))
"""Of the curves in turn, so that they differ without colour, too."""

_WIDTH = 2  # of a curve; dashes are in widths of their line
_SIZE = (470.0, 340.0)
_LEAST_RATE = 1e-4


@dataclass(frozen=True)
class Chart:
    """A chart in one or two forms of its axes.

    Attributes:
        name: its id in the page.
        title: its heading.
        linear: SVG.
        logarithmic: SVG with a logarithmic axis; None where it has but one form.
        note: a line below it.
    """

    name: str
    title: str
    linear: str
    logarithmic: str | None = None
    note: str = ""


def curve_charts(curves: Mapping[str, CurvePoints], base_rate: float) -> list[Chart]:
    """Precision over recall and TPR over FPR, a line for each score; none where there is no curve.

    `base_rate` is the share of OoD pixels, which the precision of a random score has.
    """
    if not curves:
        return []
    return [_precision_recall(curves, base_rate), _roc(curves)]


def histogram_chart(index: int, score: str, histogram: Histogram) -> Chart:
    """Pixels by score, as shares of their kind: OoD, in-distribution, all; `index` is that of the score on the page."""
    described = f"Histogram of {score}: shares of pixels by score, for OoD, in-distribution and all pixels."
    forms = [
        _histogram(score, histogram, f"hist-{index}-{'log' if log else 'lin'}", described, log) for log in (False, True)
    ]
    return Chart(f"hist-{index}", score, *forms)


@dataclass(frozen=True, eq=False)
class Plane:
    """Numbers over tau and T at one K.

    Attributes:
        what: what they are.
        taus: `(m,)`, ascending.
        ood_ratios: `(n,)`, ascending.
        shares: `(m, n)`.
    """

    what: str
    taus: Sequence[float]
    ood_ratios: Sequence[float]
    shares: NDArray[np.float64]


def heat_map_chart(name: str, title: str, plane: Plane, rule: Rule | None) -> Chart:
    """A plane of numbers; the setting of a `rule` is marked, where it is the run's own K."""
    what, taus, ood_ratios, grid = plane.what, plane.taus, plane.ood_ratios, plane.shares
    figure = new_figure(*_SIZE)
    axes = figure.add_subplot()
    extent = (taus[0], taus[-1], ood_ratios[0], ood_ratios[-1])
    picture = axes.imshow(
        100 * grid.T, origin="lower", aspect="auto", extent=extent, cmap="cividis", interpolation="nearest"
    )
    bar = figure.colorbar(picture, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=colour(QUIET), labelsize=11)
    bar.set_label(f"{what}, %", color=colour(INK), size=12)
    note = ""
    if rule is not None:
        note = "The diamond is the setting of this run. "
        axes.plot(rule.tau, rule.ood_ratio, "D", ms=10, mfc="white", mec="black", mew=2, clip_on=False, zorder=5)
        axes.annotate("this run", (rule.tau, rule.ood_ratio), xytext=(9, 7), textcoords="offset points", **_halo())
    style_axes(axes)
    axes.grid(visible=False)
    axes.set(xlabel="tau", ylabel="T")
    at_tau, at_ratio = map(int, np.unravel_index(int(np.argmax(grid)), grid.shape))
    described = (
        f"{title}: {what} over tau and T. Largest, {grid.max():.1%}, at tau = {taus[at_tau]:g} and "
        f"T = {ood_ratios[at_ratio]:g}."
    )
    best = f"Largest: {grid.max():.1%} at tau = {taus[at_tau]:g}, T = {ood_ratios[at_ratio]:g}."
    return Chart(name, title, svg_of(figure, name, described), note=note + best)


def line_of(index: int) -> tuple[str, Any]:
    """Colour and line style of the curve of a score."""
    return f"series-{index % SERIES}", LINE_STYLES[index % len(LINE_STYLES)]


def legend_line(index: int) -> tuple[str, str]:
    """Colour of the curve of a score, and its dashes as SVG writes them; nothing for a line without gaps.

    >>> legend_line(0), legend_line(1)
    (('series-0', ''), ('series-1', '12 4'))
    """
    name, style = line_of(index)
    return name, "" if style == "-" else " ".join(f"{_WIDTH * length:g}" for length in style[1])


def _halo() -> dict[str, Any]:
    from matplotlib.patheffects import withStroke

    return {
        "fontsize": 11,
        "color": "white",
        "path_effects": [withStroke(linewidth=3, foreground="black")],
        "zorder": 6,
    }


def _precision_recall(curves: Mapping[str, CurvePoints], base_rate: float) -> Chart:
    described = f"Precision over recall of {', '.join(curves)}. A random score has precision {base_rate:.1%}."

    def form(log: bool) -> str:
        figure = new_figure(*_SIZE)
        axes = figure.add_subplot()
        axes.axhline(base_rate, color=colour(QUIET), linewidth=1, linestyle=(0, (3, 3)))
        for index, points in enumerate(curves.values()):
            name, style = line_of(index)
            axes.plot(
                points.recall,
                points.precision,
                color=colour(name),
                linestyle=style,
                linewidth=_WIDTH,
                drawstyle="steps-pre",
                gid=f"curve-{index}",
            )
        axes.set(xlabel="recall (TPR)", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        if log:
            axes.set(yscale="log", ylim=(max(base_rate / 3, 1e-5), 1.05))
        style_axes(axes)
        return svg_of(figure, "pr-log" if log else "pr-lin", described)

    note = f"The dotted line is a random score: its precision is the share of OoD pixels, {base_rate:.2%}."
    return Chart("pr", "Precision and recall", form(False), form(True), note)


def _roc(curves: Mapping[str, CurvePoints]) -> Chart:
    described = f"True positive rate over false positive rate of {', '.join(curves)}."

    def form(log: bool) -> str:
        figure = new_figure(*_SIZE)
        axes = figure.add_subplot()
        chance = np.geomspace(_LEAST_RATE, 1, 50)
        axes.plot(chance, chance, color=colour(QUIET), linewidth=1, linestyle=(0, (3, 3)))
        axes.axhline(0.95, color=colour(QUIET), linewidth=1)
        for index, points in enumerate(curves.values()):
            name, style = line_of(index)
            fpr, tpr = np.concatenate([[0], points.fpr]), np.concatenate([[0], points.recall])
            axes.plot(
                fpr.clip(_LEAST_RATE / 10) if log else fpr,
                tpr,
                color=colour(name),
                linestyle=style,
                linewidth=_WIDTH,
                gid=f"curve-{index}",
            )
        axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.02))
        if log:
            axes.set(xscale="log", xlim=(_LEAST_RATE, 1))
        style_axes(axes)
        return svg_of(figure, "roc-log" if log else "roc-lin", described)

    return Chart(
        "roc", "ROC", form(False), form(True), "The dotted line is a random score. FPR95 is read at the line at 0.95."
    )


def _histogram(score: str, histogram: Histogram, name: str, described: str, log: bool) -> str:
    figure = new_figure(350, 250)
    axes = figure.add_subplot()
    edges = histogram.edges
    kinds: list[tuple[str, Any, str, dict[str, Any]]] = [
        ("all", histogram.all, QUIET, {"linestyle": (0, (3, 2)), "linewidth": 1.5})
    ]
    if histogram.ind.any() or histogram.ood.any():
        kinds.append(("in-distribution", histogram.ind, "known", {"linewidth": 1.8}))
        kinds.append(("OoD", histogram.ood, "ood", {"linewidth": 1.8, "fill": True, "hatch": "////"}))
    for kind, counts, hue, look in kinds:
        if counts.any():
            shares = counts / counts.sum()
            patches = axes.stairs(shares, edges, color=colour(hue), gid=f"hist-{kind}", **look)
            if look.get("fill"):
                patches.set(facecolor="none", edgecolor=colour(hue))
    if log:
        axes.set(yscale="log")
    axes.set(ylabel="share of pixels", xlim=(edges[0], edges[-1]))
    axes.set_xlabel(score, parse_math=False)  # a name may hold dollars
    if not log:
        axes.set_ylim(bottom=0)
    style_axes(axes)
    axes.patch.set(color=colour(PAPER))
    axes.patch.set_visible(False)
    return svg_of(figure, name, described)
