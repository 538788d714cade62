"""`oodray run`; its settings are declared in `oodray.config.RunConfig`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oodray.cli.options import with_settings
from oodray.cli.terminal import print_evaluation
from oodray.settings import Settings

if TYPE_CHECKING:
    from oodray.results.folder import ResultsFolder


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
    from oodray.api.start import start

    done = start(
        settings,
        out=out,
        config=config,
        retry_errors=retry_errors,
        overwrite=overwrite,
        confirm=_confirm_removal,
        own_process=True,
    )
    print_evaluation(done.evaluation, done.out)


def _confirm_removal(folder: ResultsFolder) -> None:
    """Where somebody can answer, ask before results are removed."""
    files = len(folder.parts())
    if files and sys.stdin.isatty():
        typer.confirm(f"Remove the run in {folder.path}, {files} files?", abort=True, err=True)
