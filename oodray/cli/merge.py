"""`oodray merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oodray.cli.terminal import print_evaluation


def merge(
    outs: Annotated[list[Path], typer.Argument(metavar="OUT1 OUT2 ...", help="The results folders of all shares.")],
    out: Annotated[Path, typer.Option(help="Results folder of the whole run.")],
) -> None:
    """Join the shares of a run, which `oodray run --shard I/N` has computed. The same command continues."""
    from oodray.api.merge import merge as join

    done = join(outs, out=out)
    print_evaluation(done.evaluation, done.out)
