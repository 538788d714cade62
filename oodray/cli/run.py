"""`oodray run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oodray.cli.options import with_settings
from oodray.cli.terminal import note, print_evaluation, stream_plan
from oodray.settings import Settings


@with_settings
def run(
    settings: Settings,
    *,
    out: Annotated[Path | None, typer.Option(help="Results folder; by default runs/DATASET.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; options win over it.")] = None,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Try images with an error again.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew where OUT holds a run.")] = False,
) -> None:
    """Segment and cluster every image of a dataset, write masks and tallies, print AP and FPR95."""
    from oodray.config import read_settings
    from oodray.job.plan import make_plan
    from oodray.results.folder import ResultsFolder

    from_file = {} if config is None else read_settings(config)
    named = settings.get("dataset") or from_file.get("dataset")
    folder = ResultsFolder(out or Path("runs") / str(named))
    plan = make_plan(settings, from_file, folder, on_wait=note)
    print_evaluation(stream_plan(plan, folder, retry_errors=retry_errors, overwrite=overwrite), folder.path)
