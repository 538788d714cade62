"""`oodray run`; its settings are declared in `oodray.config.RunConfig`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oodray.cli.options import with_settings
from oodray.cli.terminal import confirm_removal, print_evaluation
from oodray.settings import Settings


@with_settings
def run(
    settings: Settings,
    *,
    out: Annotated[Path | None, typer.Option(help="Results folder; by default runs/DATASET.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; options win over it.")] = None,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Try images with an error again.")] = False,
    append: Annotated[
        bool, typer.Option("--append", help="Take images that were added to the dataset since the run began.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew where OUT holds a run.")] = False,
) -> None:
    """Segment and cluster every image of a dataset, write masks and tallies, print AP and FPR95."""
    from oodray.api.start import start

    done = start(
        settings,
        out=out,
        config=config,
        retry_errors=retry_errors,
        append=append,
        overwrite=overwrite,
        confirm=confirm_removal,
        own_process=True,
    )
    print_evaluation(done.evaluation, done.out)
