"""`oodray models` and its subcommands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oodray.report.terminal import console

app = typer.Typer(help="The networks known by name, and their weights.", invoke_without_command=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the network, see `oodray models`.")]


@app.callback()
def models(context: typer.Context) -> None:
    """List the known networks: a table in a terminal, else a line each, its fields parted by tabs."""
    if context.invoked_subcommand is not None:
        return
    from oodray.models.weights.zoo import get_model, model_names
    from oodray.report.networks import network_line, networks_tables

    known = [get_model(name) for name in model_names()]
    terminal = console()
    if terminal.is_terminal:
        for table in networks_tables(known):
            terminal.print(table)
        return
    for model in known:
        typer.echo(network_line(model))


@app.command()
def fetch(
    name: Name,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="A file at hand, to be checked and copied.")
    ] = None,
) -> None:
    """Download the published weights of a network, or take them from a file, to where runs look for them."""
    from oodray.models.weights.fetch import fetch as fetch_weights
    from oodray.models.weights.zoo import get_model
    from oodray.report.download_progress import DownloadProgress

    model = get_model(name)
    with DownloadProgress(model.file, console=console(stderr=True)) as progress:
        path = fetch_weights(model, source, progress.update)
    typer.echo(path)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The weights.")],
    model: Annotated[str, typer.Option(help="Name of the network, see `oodray models`.")],
) -> None:
    """Whether a file has the keys and shapes of a network; another sha256 than the published one is a note."""
    from oodray.models.weights.verify import verify as verify_weights
    from oodray.models.weights.zoo import get_model

    for line in verify_weights(file, get_model(model)).lines():
        typer.echo(line)
