"""The known networks, as a table for a terminal and as lines for other programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from oodray.models.inspection import Inspection
    from oodray.models.weights.zoo import ZooModel


_CAPTION = (
    "Parameters: without the auxiliary head. mIoU: single scale, as published; ours as measured. "
    "Input: the image's own size, or its short side in pixels, then up to multiples of 32."
)


def networks_tables(models: Iterable[ZooModel]) -> list[Table]:
    """What the networks are, and their files in the same order: one table of both is too wide for 80 characters."""
    networks = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=_CAPTION, caption_justify="left")
    networks.add_column("network", no_wrap=True)
    for heading in ("parameters", "mIoU %", "MB", "input"):
        networks.add_column(heading, justify="right", no_wrap=True)
    networks.add_column("here", no_wrap=True)
    files = Table(box=box.SIMPLE_HEAD)
    files.add_column("file, sha256", overflow="fold")
    for model in models:
        numbers = (f"{model.parameters / 1e6:.1f} M", f"{model.miou:.2f}", str(model.megabytes))
        rule = "native" if model.input_rule is None else f"short {model.input_rule.short}"
        here = "yes" if model.checkpoint.is_file() else "no"
        networks.add_row(Text(model.name, style="bold"), *numbers, rule, here)
        files.add_row(Group(Text(model.file), Text(model.sha256, style="dim")))
    return [networks, files]


def network_line(model: ZooModel) -> str:
    """Name, parameters, file, size, sha256, mIoU in percent, input, and whether the file is here, parted by tabs."""
    fields = (
        model.name,
        model.parameters,
        model.file,
        f"{model.megabytes} MB",
        model.sha256,
        f"{model.miou:.2f}",
        _input(model),
        "cached" if model.checkpoint.is_file() else "not cached",
    )
    return "\t".join(map(str, fields))


def _input(model: ZooModel) -> str:
    return "native size" if model.input_rule is None else str(model.input_rule)


def inspection_lines(found: Inspection) -> Iterator[str]:
    """What a network offers, a line each: name and value, parted by a tab."""
    network = found.network
    height, width = found.size
    yield f"network\t{network.name}"
    yield f"device\t{network.device}" + (f", {network.dtype}" if network.dtype else "")
    if found.parameters is not None:
        yield f"parameters\t{found.parameters / 1e6:.1f} M"
    yield f"image\t{width}x{height}"
    for name, what in found.offers().items():
        yield f"{name}\t{what}"
    if network.class_names:
        yield f"class names\t{', '.join(network.class_names)}"
    yield f"seconds\t{found.seconds:.2f} for an image"
    yield f"memory\t{found.memory:.0f} MiB at most"
    yield f"tau\t{'not known, see oodray calibrate' if network.tau is None else network.tau}"
    scores = list(found.scores())
    yield "scores\t" + ", ".join(name for name, lacking in scores if lacking is None)
    for name, lacking in scores:
        if lacking is not None:
            yield f"not\t{name}: it needs {lacking}"
