"""`oodray datasets` and its subcommands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oodray.cli import options as shared
from oodray.config import SETTINGS
from oodray.errors import ConfigError, DatasetError
from oodray.report.terminal import console

if TYPE_CHECKING:
    from oodray.datasets.layout import Layout
    from oodray.storage.place import Place

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
    name: Annotated[str, typer.Argument(metavar="NAME|DIR", help="Name of the dataset, or a folder of several.")],
    root: Annotated[
        Path | None, typer.Option(help="The dataset's own folder, or a list of images; not with DIR.")
    ] = None,
    split: Annotated[str | None, shared.option(SETTINGS["split"])] = None,
    label_codes: Annotated[str | None, shared.option(SETTINGS["label_codes"])] = None,
    labels: Annotated[str | None, shared.option(SETTINGS["labels"])] = None,
    allow_outside_root: shared.AllowOutsideRoot = None,
) -> None:
    """Decode and count everything in a dataset's folder; exit code 1 if something is wrong.

    Of a folder that holds several known datasets, each in a folder that is called like it, all are checked.
    """
    from oodray.datasets.layouts import LAYOUTS, layout_of
    from oodray.storage.place import storage_path

    settings = {"split": split, "label_codes": label_codes, "labels": labels}
    if root is None and name in LAYOUTS:
        raise ConfigError(f"no --root DIR was given: it is the folder in which {name} lies")
    if root is None:
        given = next((key for key, value in settings.items() if value is not None), None)
        if given is not None:
            raise ConfigError(f"--{given.replace('_', '-')} belongs to one dataset: name it, and pass --root {name}")
        all_ok = _check_all(storage_path(name), allow_outside=bool(allow_outside_root))
    else:
        layout = layout_of({"dataset": name, **settings})
        all_ok = _check_one(layout, storage_path(root), allow_outside=bool(allow_outside_root))
    if not all_ok:
        raise typer.Exit(1)


def _check_one(layout: Layout, root: Place, *, allow_outside: bool) -> bool:
    from oodray.datasets.check import check_dataset
    from oodray.report.dataset_check import check_lines

    report = check_dataset(layout, root, allow_outside=allow_outside)
    for line in check_lines(report):
        typer.echo(line)
    return report.ok


def _check_all(folder: Place, *, allow_outside: bool) -> bool:
    """Check the known datasets that lie in a folder; one that cannot be read at all is wrong, and no end."""
    from oodray.datasets.layouts import LAYOUTS, recognised
    from oodray.spelling import did_you_mean

    if not folder.is_dir():
        hint = did_you_mean(folder.name.lower(), LAYOUTS, what="known datasets")
        raise DatasetError(f"{folder} is neither the name of a dataset nor a folder; {hint}")
    found = recognised(folder)
    if not found:
        raise DatasetError(
            f"no folder in {folder} is called like a known dataset and has its folders: `oodray datasets` lists them; "
            f"`oodray datasets check NAME --root {folder}` checks what is called otherwise"
        )
    all_ok = True
    for root, layout in found:
        try:
            all_ok &= _check_one(layout, root, allow_outside=allow_outside)
        except DatasetError as error:
            all_ok = False
            typer.echo(f"{layout.title} in {root}\nfindings     {error}")
        typer.echo(f"to run       --dataset {layout.name} --root {root}\n")
    return all_ok
