"""The command line: parse, call, print."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

import oodray
from oodray.errors import OodrayError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    help="Find, in every image of a dataset, the regions that a trained segmentation network was never taught.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
datasets_app = typer.Typer(help="Known datasets, and whether a folder holds one.", invoke_without_command=True)
app.add_typer(datasets_app, name="datasets")

INTERRUPTED = 130  # the exit code of a program that Ctrl-C stopped

Out = Annotated[Path, typer.Argument(metavar="OUT", help="The results folder of a run.")]


def main() -> NoReturn:
    """Entry point: errors become one message and an exit code, tracebacks need --debug."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        # Where a command ends with `typer.Exit`, this is its code.
        exit_code = app(args=arguments, prog_name="oodray", standalone_mode=False)
        if exit_code == INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(exit_code)
    except (typer.Abort, KeyboardInterrupt):
        typer.echo("stopped. The same command continues a run.", err=True)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if debug:
            traceback.print_exc()
        _fail(*_message_and_code(error))


def _message_and_code(error: Exception) -> tuple[str, int]:
    if isinstance(error, OodrayError):
        return str(error), error.exit_code
    # typer carries click inside, where its exceptions have no public name.
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        command = getattr(getattr(error, "ctx", None), "command_path", "oodray")
        return f"{error.format_message().rstrip('.')}. See `{command} --help`.", error.exit_code
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


@app.command()
def run(
    dataset: Annotated[str | None, typer.Option(help="Name of the dataset, see `oodray datasets`.")] = None,
    root: Annotated[str | None, typer.Option(help="The dataset's own folder.")] = None,
    out: Annotated[Path | None, typer.Option(help="Results folder; by default runs/DATASET.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; options win over it.")] = None,
    model: Annotated[
        str | None, typer.Option(help="A model's name, an mmsegmentation config (.py), or package.module:factory.")
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Weights for --model.")] = None,
    k: Annotated[int | None, typer.Option("--k", help="Clusters per image.")] = None,
    tau: Annotated[float | None, typer.Option(help="Pixels with a smaller max-logit are unsure.")] = None,
    ood_ratio: Annotated[
        float | None, typer.Option(help="T: clusters with a larger share of unsure pixels are OoD.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the K-Means.")] = None,
    normalize_features: Annotated[
        bool | None, typer.Option("--normalize-features/--raw-features", help="L2-normalise before clustering.")
    ] = None,
    kmeans_backend: Annotated[str | None, typer.Option(help="auto, torch, cuml or sklearn.")] = None,
    n_init: Annotated[int | None, typer.Option(help="Restarts of the K-Means.")] = None,
    scores: Annotated[str | None, typer.Option(help="Scores to evaluate, comma-separated; by default all.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images of one size that the network sees at once.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of each worker.")] = None,
    workers: Annotated[int | None, typer.Option(help="Workers with a network; by default one per GPU.")] = None,
    gpus_per_worker: Annotated[float | None, typer.Option(help="GPUs of each worker; 0 is the CPU.")] = None,
    ray_address: Annotated[str | None, typer.Option(help="Ray cluster to join; RAY_ADDRESS does the same.")] = None,
) -> None:
    """Segment and cluster every image of a dataset, write masks and tallies, print AP and FPR95."""
    options: dict[str, Any] = {name: value for name, value in locals().items() if name not in ("out", "config")}
    if scores is not None:
        options["scores"] = tuple(name.strip() for name in scores.split(","))

    from oodray.config import read_settings
    from oodray.job.plan import make_plan
    from oodray.job.results import ResultsFolder
    from oodray.job.run import images_done, start_or_continue
    from oodray.job.run import run as run_plan
    from oodray.report.progress import Progress

    errors = _console(stderr=True)
    named = dataset or (read_settings(config).get("dataset") if config is not None else None)
    folder = ResultsFolder(out or Path("runs") / str(named))
    plan = make_plan(options, config, folder)
    for warning in plan.warnings:
        errors.print(f"warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    start_or_continue(plan, folder)
    with Progress(total=plan.manifest.num_rows, done=images_done(plan, folder), console=errors) as progress:
        evaluation = run_plan(plan, folder, progress.update)
    _print_evaluation(evaluation, folder.path)


@app.command()
def evaluate(out: Out) -> None:
    """Compute the metrics of a run again, from its files alone."""
    from oodray.job.reduce import evaluate_run
    from oodray.job.results import ResultsFolder

    folder = ResultsFolder(out)
    _print_evaluation(evaluate_run(folder), folder.path)


@app.command()
def status(out: Out) -> None:
    """How far a run is: done, failed and left, images per second, the most frequent errors."""
    from oodray.job.results import ResultsFolder
    from oodray.report.status import read_status
    from oodray.report.tables import status_table

    _console().print(status_table(read_status(ResultsFolder(out))))


@app.command()
def show(
    out: Out,
    image_id: Annotated[str | None, typer.Argument(metavar="[IMAGE_ID]", help="Without it: the extremes.")] = None,
) -> None:
    """Draw image, label, clusters, ratio and mask side by side, as PNG files under OUT/pictures."""
    from oodray.job.results import ResultsFolder
    from oodray.report.pictures import write_pictures

    for path in write_pictures(ResultsFolder(out), image_id):
        typer.echo(path)


@datasets_app.callback()
def datasets(context: typer.Context) -> None:
    """Names, images, layouts and sources of the known datasets."""
    if context.invoked_subcommand is not None:
        return
    from oodray.datasets.layouts import LAYOUTS
    from oodray.report.tables import datasets_table

    _console().print(datasets_table(LAYOUTS.values()))


@datasets_app.command()
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the dataset.")],
    root: Annotated[Path, typer.Option(help="The dataset's own folder.")],
) -> None:
    """Decode and count everything in a dataset's folder; exit code 1 if something is wrong."""
    from oodray.datasets.check import check_dataset
    from oodray.datasets.layouts import get_layout

    report = check_dataset(get_layout(name), root)
    for line in report.lines():
        typer.echo(line)
    if not report.ok:
        raise typer.Exit(1)


def _print_evaluation(evaluation: Any, path: Path) -> None:
    from oodray.report.tables import evaluation_tables

    console = _console()
    for table in evaluation_tables(evaluation):
        console.print(table)
    console.print(f"results in {path}", markup=False, highlight=False, soft_wrap=True)


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)


def _fail(message: str, exit_code: int) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
