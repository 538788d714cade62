"""`oodray sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oodray.cli.terminal import Out
from oodray.ranges import SWEPT_OOD_RATIOS
from oodray.report.terminal import console, note, warn

SHOWN = 10


def sweep(
    out: Out,
    tau: Annotated[
        str | None,
        typer.Option(
            help="Values of tau: a:b:step, both ends included, or numbers a,b,c; by default where the confidences lie."
        ),
    ] = None,
    ood_ratio: Annotated[str, typer.Option(help="Values of T, written the same way.")] = SWEPT_OOD_RATIOS,
    with_mask_then_logit: Annotated[
        bool, typer.Option("--with-mask-then-logit", help="AP and FPR95 of that score, too, at every setting.")
    ] = False,
    select_on: Annotated[
        Path | None,
        typer.Option(metavar="OTHER_OUT", help="Choose the setting on another run, and report on this one."),
    ] = None,
) -> None:
    """Metrics of every K, tau and T of a finished run, from its tallies: no image is read, no network runs."""
    from oodray.analysis.labels import refuse_without_labels
    from oodray.analysis.sweep import NOTHING_FOUND, edges, make_request, sweep_run, usual_taus
    from oodray.ranges import decimal_range
    from oodray.report.heat_map import write_heat_maps
    from oodray.report.tables import selection_table, sweep_table
    from oodray.results.folder import ResultsFolder, write_table

    folder, terminal = ResultsFolder(out), console()
    refuse_without_labels(folder, "there is no setting to choose")
    if tau is None:
        tau = usual_taus(folder if select_on is None else ResultsFolder(select_on))
        note(terminal, f"tau {tau}, where the confidences lie; --tau sweeps others")
    taus, ood_ratios = decimal_range(tau), decimal_range(ood_ratio)
    request = make_request(folder, taus, ood_ratios, with_mask_then_logit=with_mask_then_logit)
    if select_on is None:
        result = sweep_run(folder, request)
        chosen = result
        if not result.finds_any:
            warn(terminal, f"{NOTHING_FOUND}: none is better than another; `oodray calibrate` shows their false alarms")
        else:
            terminal.print(sweep_table(result, result.best(SHOWN)))
            note(
                terminal,
                f"Chosen on {folder.path} itself, so better than on images that it has not seen; "
                "--select-on OTHER_OUT chooses on another run.",
            )
    else:
        other = ResultsFolder(select_on)
        chosen = elsewhere = sweep_run(other, make_request(other, taus, ood_ratios))
        result = sweep_run(folder, request)
        terminal.print(selection_table(result, elsewhere, other.path))
    for option in edges(chosen.request, chosen.setting(chosen.chosen())) if chosen.finds_any else ():
        note(
            terminal, f"The best setting lies at an end of the grid: there may be a better one beyond, widen {option}."
        )
    write_table(result.table, folder.sweep)
    pictures = write_heat_maps(result, folder)
    for line in (f"settings in {folder.sweep}", *(f"heat map in {picture}" for picture in pictures)):
        note(terminal, line)
