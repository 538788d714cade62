"""`oodray run`; its settings are declared in `oodray.config.RunConfig`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oodray.cli.options import WHERE, with_settings
from oodray.cli.terminal import confirm_removal, print_evaluation
from oodray.settings import Settings

EXAMPLES = """Examples:

oodray run --dataset demo

oodray run --dataset folder --root photos --model internimage-l-cityscapes

oodray run --dataset road-anomaly --root RoadAnomaly_jpg --model internimage-l-cityscapes --out runs/ra --sweep-k 3:10
"""
"""A text between blank lines is a line of the help."""


@with_settings
def run(
    settings: Settings,
    *,
    out: Annotated[
        Path | None, typer.Option(help="Results folder; by default runs/DATASET-ROOT.", rich_help_panel=WHERE)
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings; options win over it.", rich_help_panel=WHERE)
    ] = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Try images with an error again.", rich_help_panel=WHERE)
    ] = False,
    append: Annotated[
        bool,
        typer.Option(
            "--append", help="Take images that were added to the dataset since the run began.", rich_help_panel=WHERE
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew where OUT holds a run.", rich_help_panel=WHERE)
    ] = False,
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
