"""`oodray import-scores`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oodray.cli.options import AllowOutsideRoot
from oodray.cli.terminal import print_evaluation
from oodray.report.terminal import console, note, warn


def import_scores(
    scores: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of score maps, named after the images.")],
    dataset: Annotated[str, typer.Option(help="Name of the dataset, see `oodray datasets`.")],
    root: Annotated[Path, typer.Option(help="The dataset's own folder.")],
    out: Annotated[Path, typer.Option(help="Results folder.")],
    name: Annotated[str | None, typer.Option(help="Name of the score; by default that of DIR.")] = None,
    resize: Annotated[
        str | None, typer.Option(help="Bring maps of another size to that of the label: nearest or bilinear.")
    ] = None,
    allow_outside_root: AllowOutsideRoot = None,
) -> None:
    """Make a results folder of another method's score maps, and measure them as a run's."""
    from oodray.analysis.evaluation import evaluate_run
    from oodray.job.importing import import_scores as import_maps
    from oodray.job.importing import make_import, missing_warning
    from oodray.report.progress import Progress
    from oodray.results.folder import ResultsFolder
    from oodray.results.lease import Lease

    folder, errors = ResultsFolder(out), console(stderr=True)
    request = make_import(dataset, root, scores, score=name, resize=resize, allow_outside=bool(allow_outside_root))
    warning = missing_warning(request)
    if warning:
        warn(errors, warning)
    with (
        Lease(folder, on_wait=lambda line: note(errors, line)),
        Progress(total=request.manifest.num_rows, done=0, console=errors) as progress,
    ):
        import_maps(request, folder, progress.update)
    print_evaluation(evaluate_run(folder), folder.path)
