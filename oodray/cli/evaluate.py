"""`oodray evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from oodray.cli.terminal import Out, print_evaluation


def evaluate(
    out: Out,
    like: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure as an evaluator does, too: smiyc, fishyscapes, ade-ood, ood-metrics, pebal or bravo. "
            "Can be repeated."
        ),
    ] = None,
    pooling: Annotated[str | None, typer.Option(help="dataset: pool all pixels; image: mean over images.")] = None,
    ap_rule: Annotated[str | None, typer.Option(help="Area of the AP: step or trapezoid.")] = None,
    fpr_rule: Annotated[str | None, typer.Option(help="Where the FPR is read: >=, >, nearest or linear.")] = None,
    tpr: Annotated[float | None, typer.Option(help="Read the FPR at this TPR, too.")] = None,
    lacking: Annotated[
        str | None, typer.Option(help="Images without OoD or without in-distribution pixels: keep, drop or refuse.")
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Draw the images anew so many times, for confidence intervals.")
    ] = 0,
) -> None:
    """Compute the metrics of a run again, from its files alone; with options, under further conventions."""
    from oodray.analysis.evaluation import evaluate_run
    from oodray.api.run import conventions
    from oodray.results.folder import ResultsFolder

    rules = {"pooling": pooling, "ap_rule": ap_rule, "fpr_rule": fpr_rule, "tpr": tpr, "lacking": lacking}
    folder = ResultsFolder(out)
    print_evaluation(evaluate_run(folder, conventions(like, rules), bootstrap), folder.path)
