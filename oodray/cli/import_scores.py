"""`oodray import-scores`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oodray.cli.options import AllowOutsideRoot, option
from oodray.cli.terminal import confirm_removal, print_evaluation
from oodray.config import SETTINGS
from oodray.report.terminal import console, note, warn


def import_scores(
    scores: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of score maps, named after the images, or a tar of it.")
    ],
    dataset: Annotated[str, typer.Option(help="Name of the dataset, see `oodray datasets`.")],
    root: Annotated[Path, typer.Option(help="The dataset's own folder.")],
    out: Annotated[Path, typer.Option(help="Results folder.")],
    name: Annotated[str | None, typer.Option(help="Name of the score; by default the method's, from DIR.")] = None,
    resize: Annotated[
        str | None, typer.Option(help="Bring maps of another size to that of the label: nearest or bilinear.")
    ] = None,
    negate: Annotated[
        bool, typer.Option("--negate", help="Scores are higher where pixels are known: turn them.")
    ] = False,
    blur: Annotated[bool, typer.Option("--blur", help="Blur maps as PEBAL does: Gaussian, 7x7, sigma 1.")] = False,
    split: Annotated[str | None, option(SETTINGS["split"])] = None,
    label_codes: Annotated[str | None, option(SETTINGS["label_codes"])] = None,
    labels: Annotated[str | None, option(SETTINGS["labels"])] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew where OUT holds results.")] = False,
    allow_outside_root: AllowOutsideRoot = None,
) -> None:
    """Make a results folder of another method's score maps, and measure them as a run's."""
    from oodray.analysis.evaluation import evaluate_run
    from oodray.job.imported_maps import Reading, unpacked
    from oodray.job.importing import begin_import, import_left, make_import, warnings_of
    from oodray.report.progress import Progress
    from oodray.results.continuing import start_anew
    from oodray.results.folder import ResultsFolder
    from oodray.results.lease import Lease

    folder, errors = ResultsFolder(out), console(stderr=True)
    if scores.is_file():
        scores = unpacked(scores, out.absolute().parent / f"{out.name}-maps")
        note(errors, f"unpacked to {scores}")
    reading = Reading(resize=resize, negate=negate, blur=blur)
    request = make_import(
        dataset,
        root,
        scores,
        score=name,
        reading=reading,
        labels={"split": split, "label_codes": label_codes, "labels": labels},
        allow_outside=bool(allow_outside_root),
    )
    for warning in warnings_of(request):
        warn(errors, warning)
    if overwrite:
        confirm_removal(folder)
    with Lease(folder, on_wait=lambda line: note(errors, line)):
        if overwrite:
            start_anew(folder)
        (manifest, left), total = begin_import(request, folder), request.manifest.num_rows
        with Progress(total=total, done=total - left.images.num_rows, console=errors) as progress:
            import_left(request, folder, manifest, left, progress.update)
    evaluation = evaluate_run(folder)
    print_evaluation(evaluation, folder.path)
    if not evaluation.images:
        raise typer.Exit(1)
