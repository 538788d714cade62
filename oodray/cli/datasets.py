"""`oodray datasets` and its subcommands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oodray.cli import options as shared
from oodray.config import SETTINGS
from oodray.report.terminal import console

app = typer.Typer(help="Known datasets, and whether a folder holds one.", invoke_without_command=True)


@app.callback()
def datasets(context: typer.Context) -> None:
    """Names, images, layouts and sources of the known datasets."""
    if context.invoked_subcommand is not None:
        return
    from oodray.datasets.layouts import LAYOUTS
    from oodray.report.tables import datasets_table

    console().print(datasets_table(LAYOUTS.values()))
    typer.echo("Images may have any of the suffixes that `folder` lists, whatever stands here, in any case.")


@app.command()
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the dataset.")],
    root: Annotated[Path, typer.Option(help="The dataset's own folder, or a list of images.")],
    split: Annotated[str | None, shared.option(SETTINGS["split"])] = None,
    allow_outside_root: shared.AllowOutsideRoot = None,
) -> None:
    """Decode and count everything in a dataset's folder; exit code 1 if something is wrong."""
    from oodray.datasets.check import check_dataset
    from oodray.datasets.layouts import get_layout
    from oodray.report.dataset_check import check_lines
    from oodray.storage.place import storage_path

    layout = get_layout(name) if split is None else get_layout(name).of_split(split)
    report = check_dataset(layout, storage_path(root), allow_outside=bool(allow_outside_root))
    for line in check_lines(report):
        typer.echo(line)
    if not report.ok:
        raise typer.Exit(1)
