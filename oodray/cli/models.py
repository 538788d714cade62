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


@app.command()
def inspect(
    model: Annotated[list[str], typer.Argument(metavar="MODEL...", help="As --model of a run; several are averaged.")],
    checkpoint: Annotated[list[str] | None, typer.Option(help="Weights for MODEL, as of a run.")] = None,
    feature_stage: Annotated[int | None, typer.Option(help="Map of the network to cluster, counted from 0.")] = None,
    features: Annotated[str | None, typer.Option(help="Cluster the features of another network.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU where torch has one.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the network's products; by default float32.")] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Average over an image and its mirror image.")] = False,
    mc_dropout: Annotated[int, typer.Option(help="Passes with active dropout.")] = 0,
    size: Annotated[str, typer.Option(metavar="WIDTHxHEIGHT", help="Of the image that it is tried on.")] = "1280x720",
) -> None:
    """What a network offers for which scores, and what one image costs; no dataset is needed."""
    from oodray.models.inspection import inspect_network
    from oodray.models.loading import load
    from oodray.report.networks import inspection_lines

    width, height = size_of(size)
    network = load(
        model,
        checkpoint=checkpoint,
        feature_stage=feature_stage,
        features=features,
        device=device,
        dtype=dtype,
        flip=flip,
        mc_dropout=mc_dropout,
    )
    for line in inspection_lines(inspect_network(network, (height, width))):
        typer.echo(line)


def size_of(text: str) -> tuple[int, int]:
    """Width and height, of `1280x720`.

    Raises:
        ConfigError: it is none.

    >>> size_of("1280x720")
    (1280, 720)
    """
    from oodray.errors import ConfigError

    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ConfigError(f"--size {text} is no size: write WIDTHxHEIGHT, for example 1280x720")
    return int(width), int(height)
