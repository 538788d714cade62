"""`oodray doctor`."""

from __future__ import annotations

import typer


def doctor() -> None:
    """What is on this machine, and what to install for what is missing; exit code 1 if oodray cannot run."""
    from oodray.doctor import look_around

    broken = False
    for finding in look_around():
        broken |= finding.broken
        typer.echo(f"{finding.name:<16}{finding.found or 'missing'}")
        if finding.remedy is not None:
            typer.echo(f"{'':<16}{finding.remedy}")
    if broken:
        raise typer.Exit(1)
