"""`oodray evaluate`."""

from __future__ import annotations

from oodray.cli.terminal import Out, print_evaluation


def evaluate(out: Out) -> None:
    """Compute the metrics of a run again, from its files alone."""
    from oodray.job.reduce import evaluate_run
    from oodray.job.results import ResultsFolder

    folder = ResultsFolder(out)
    print_evaluation(evaluate_run(folder), folder.path)
