"""Heat maps of a sweep: F1 of the mask over tau and T, one picture for each K."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oodray.storage.atomic import replacing

if TYPE_CHECKING:
    from oodray.analysis.sweep import Sweep
    from oodray.results.folder import ResultsFolder
    from oodray.storage.place import Place


def write_heat_maps(sweep: Sweep, folder: ResultsFolder) -> list[Place]:
    """Write `sweep/k-K.png` for each K; nothing where the grid is no plane, or nothing is labelled OoD.

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
    pictures = []
    for k, values in zip(request.ks, f1, strict=True):
        # No pyplot: it keeps figures, and asks for a screen.
        figure = Figure(figsize=(8, 5), layout="constrained")
        FigureCanvasAgg(figure)  # draws it when it is saved
        axes = figure.add_subplot()
        mesh = axes.pcolormesh(
            request.taus, request.ood_ratios, 100 * values.T, shading="nearest", vmin=0, vmax=100 * np.nanmax(f1)
        )
        figure.colorbar(mesh, label="F1 of the mask, %")
        tau, ood_ratio = np.unravel_index(np.nanargmax(values), values.shape)
        axes.plot(request.taus[tau], request.ood_ratios[ood_ratio], "o", mfc="none", mec="red", ms=10, mew=2)
        axes.set(
            xlabel="tau",
            ylabel="T (ood_ratio)",
            title=f"K = {k}: F1 {100 * values[tau, ood_ratio]:.2f} % at tau = {request.taus[tau]:g}, "
            f"T = {request.ood_ratios[ood_ratio]:g}",
        )
        picture = folder.heat_maps / f"k-{k}.png"
        with replacing(picture) as temporary:
            figure.savefig(temporary, format="png")
        pictures.append(picture)
    return pictures
