"""The command line: one module a command, which parses, calls and prints."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, NoReturn

import typer

import oodray
from oodray.cli import datasets, models
from oodray.cli.calibrate import calibrate
from oodray.cli.compare import compare, leaderboard
from oodray.cli.doctor import doctor
from oodray.cli.evaluate import evaluate
from oodray.cli.export import export
from oodray.cli.fit import fit
from oodray.cli.import_scores import import_scores
from oodray.cli.merge import merge
from oodray.cli.options import with_values
from oodray.cli.report import report
from oodray.cli.run import EXAMPLES, run
from oodray.cli.show import show
from oodray.cli.status import status
from oodray.cli.sweep import sweep
from oodray.cluster.signals import stoppable
from oodray.errors import ConfigError, OodrayError

app = typer.Typer(
    help="Find, in every image of a dataset, the regions that a trained segmentation network was never taught.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=EXAMPLES)(run)
for command in (
    calibrate,
    fit,
    evaluate,
    sweep,
    import_scores,
    merge,
    compare,
    leaderboard,
    status,
    show,
    report,
    export,
    doctor,
):
    app.command()(command)
app.add_typer(datasets.app, name="datasets")
app.add_typer(models.app, name="models")

INTERRUPTED = 130  # what typer makes of KeyboardInterrupt
_OF_A_SIGNAL = 128  # and its number: the exit code of a program that it stopped


def main() -> NoReturn:
    """Entry point: errors become one message and an exit code, tracebacks need --debug."""
    arguments = with_values([argument for argument in sys.argv[1:] if argument != "--debug"])
    debug = len(arguments) < len(sys.argv) - 1
    _open_closed_streams()
    # At its end Python looks through all objects for garbage, which takes most of a second beside torch; but for these.
    atexit.register(gc.freeze)
    with stoppable() as stop:
        try:
            _require_working_folder()
            # Where a command ends with `typer.Exit`, this is its code.
            exit_code = app(args=arguments, prog_name="oodray", standalone_mode=False)
            if exit_code == INTERRUPTED:
                raise KeyboardInterrupt
            sys.exit(exit_code)
        except (typer.Abort, KeyboardInterrupt):
            with contextlib.suppress(OSError):  # the terminal may be what is gone
                typer.echo("stopped. The same command continues a run.", err=True)
            sys.exit(_OF_A_SIGNAL + stop.number)
        except Exception as error:
            if debug:
                traceback.print_exc()
            _fail(*_message_and_code(error))


def _open_closed_streams() -> None:
    """Have standard streams that are closed, as some schedulers leave them, lead nowhere.

    Otherwise the next file that is opened takes their number, and what is meant for a terminal goes into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def _require_working_folder() -> None:
    """Refuse to work in a folder that was removed: torch would end the process without a word on why."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise ConfigError(
            "the working folder is gone: it was removed or replaced. Change to it again with cd"
        ) from None


def _message_and_code(error: Exception) -> tuple[str, int]:
    if isinstance(error, OodrayError):
        return str(error), error.exit_code
    # typer carries click inside, where its exceptions have no public name.
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        command = getattr(getattr(error, "ctx", None), "command_path", "oodray")
        message = error.format_message().rstrip(".")
        if "unexpected extra argument" in message:  # as of a pattern that the shell has written out
            message += ". A pattern of files needs quotes: --root 'photos/*.jpg'"
        end = "" if message.endswith("?") else "."  # as of "Did you mean ...?"
        return f"{message}{end} See `{command} --help`.", error.exit_code
    return f"internal error, {type(error).__name__}: {error}\nRun it again with --debug to see where.", 1


@app.callback()
def _oodray(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if version:
        typer.echo(oodray.__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _fail(message: str, exit_code: int) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    sys.exit(exit_code)
