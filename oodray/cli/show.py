"""`oodray show`."""

from __future__ import annotations

from typing import Annotated

import typer

from oodray.cli.terminal import Out


def show(
    out: Out,
    image_id: Annotated[
        str | None, typer.Argument(metavar="[IMAGE_ID]", help="Without it, and without options: the extremes.")
    ] = None,
    top: Annotated[int, typer.Option(min=0, help="So many images with the highest image score.")] = 0,
    bottom: Annotated[int, typer.Option(min=0, help="So many with the lowest.")] = 0,
    worst: Annotated[
        bool, typer.Option("--worst", help="The images with the most missed pixels and with the most false alarms.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="All images.")] = False,
    recompute: Annotated[
        bool,
        typer.Option("--recompute", help="Run the network again on these images, to draw confidence and classes, too."),
    ] = False,
) -> None:
    """Draw image, mask, label, clusters and ratio, as PNG files under OUT/pictures.

    Confidence and classes are drawn, too, where the run has kept its maps, or with --recompute.
    """
    from oodray.api.maps import kept_maps, recomputed_maps
    from oodray.errors import ConfigError
    from oodray.report.pictures import EITHER_END, Choice, write_pictures
    from oodray.results.folder import ResultsFolder
    from oodray.results.one_image import read_image

    choice = Choice(top=top, bottom=bottom, worst=worst, every=every)
    if image_id is not None and choice != Choice():
        raise ConfigError("name an image, or choose some with --top, --bottom, --worst or --all, not both")
    folder = ResultsFolder(out)
    folder.read_run()
    if image_id is not None:
        read_image(folder, image_id, ["unit"])  # before a network is loaded for it
    maps = recomputed_maps(folder) if recompute else kept_maps(folder)
    write_pictures(folder, image_id, EITHER_END if choice == Choice() else choice, on_picture=typer.echo, maps=maps)
