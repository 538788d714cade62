"""Heat maps of a sweep: F1 of the mask over tau and T, one picture for each K, in the look of the HTML report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oodray.storage.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from oodray.analysis.sweep import Sweep
    from oodray.results.folder import ResultsFolder
    from oodray.storage.place import Place


def write_heat_maps(sweep: Sweep, folder: ResultsFolder) -> list[Place]:
    """Write `sweep/k-K.png` for each K; nothing where the grid is no plane, or nothing is labelled OoD.

    A circle marks the best setting, a diamond that of the run, in the picture of its own K.

    Raises:
        RunError: if they cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    request = sweep.request
    f1 = sweep.table["f1"].to_numpy().reshape(request.shape)
    if min(request.shape[1:]) < 2 or np.isnan(f1).all():
        return []
    folder.heat_maps.mkdir(exist_ok=True)
    rule, largest = folder.rule(), 100 * float(np.nanmax(f1))
    pictures = []
    for k, values in zip(request.ks, f1, strict=True):
        # No pyplot: it keeps figures, and asks for a screen.
        figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)  # draws it when it is saved
        axes = figure.add_subplot()
        mesh = axes.pcolormesh(
            request.taus, request.ood_ratios, 100 * values.T, shading="nearest", vmin=0, vmax=largest, cmap="cividis"
        )
        bar = figure.colorbar(mesh, label="F1 of the mask, %", pad=0.02)
        for frame in (*axes.spines.values(), bar.outline):
            frame.set_visible(False)
        tau, ood_ratio = np.unravel_index(np.nanargmax(values), values.shape)
        best = request.taus[tau], request.ood_ratios[ood_ratio]
        if rule is not None and rule.k == k:
            _mark(axes, (rule.tau, rule.ood_ratio), "D", "this run", below=rule.ood_ratio < best[1])
        _mark(axes, best, "o", "best", below=rule is not None and rule.ood_ratio >= best[1])
        axes.set(xlabel="tau", ylabel="T")
        axes.set_title(
            f"K = {k}: best F1 {100 * values[tau, ood_ratio]:.2f} % at tau = {best[0]:g}, T = {best[1]:g}", loc="left"
        )
        picture = folder.heat_maps / f"k-{k}.png"
        with replacing(picture) as temporary:
            figure.savefig(temporary, format="png")
        pictures.append(picture)
    return pictures


def _mark(axes: Axes, at: tuple[float, float], shape: str, text: str, *, below: bool) -> None:
    """A white mark with a dark edge, seen on every colour, and its name; nothing outside of the grid."""
    from matplotlib.patheffects import withStroke

    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    if not (left <= at[0] <= right and bottom <= at[1] <= top):
        return
    axes.plot(*at, shape, ms=9, mfc="white", mec="black", mew=2, clip_on=False, zorder=5)
    axes.annotate(
        text,
        at,
        xytext=(10, -16 if below else 8),
        textcoords="offset points",
        color="white",
        path_effects=[withStroke(linewidth=3, foreground="black")],
        zorder=6,
    )
