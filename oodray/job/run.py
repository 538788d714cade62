"""A run from plan to metrics: start or continue, stream, evaluate."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from oodray.analysis.evaluation import Evaluation, evaluate_run
from oodray.cluster.signals import noted
from oodray.config import SELF
from oodray.errors import ConfigError, RunError
from oodray.job.passes import SecondPass, remove_kept
from oodray.job.pipeline import Executor, Job
from oodray.job.plan import Plan
from oodray.job.units import UnitDone
from oodray.models.class_names import class_names_of
from oodray.phases import phase
from oodray.ranges import shard_of
from oodray.results.continuing import finish, remove_measured, start_or_continue, what_is_left
from oodray.results.folder import ResultsFolder
from oodray.results.numbering import numbered
from oodray.results.waves import Closing, close_waves, open_waves, remove_closed_parts


def prepare(plan: Plan, folder: ResultsFolder, *, retry_errors: bool = False, append: bool = False) -> Job:
    """Prepare a folder for a run, a new one or the one that it holds; gives what is left to do.

    With `retry_errors`, images that are there with an error count as not there. With `append`, images that were added
    to the dataset are added to the run.

    Raises:
        ConfigError: images cannot be appended to a share of a run.
        ResultsError: the folder holds another run; the message names what is different.
    """
    share = None if plan.config.shard is None else shard_of(plan.config.shard)
    if append and share is not None:
        raise ConfigError(
            "--append takes a whole run, and --shard a share of one: join the shares with `oodray merge`, then append"
        )
    manifest = numbered(folder, plan.manifest, share, append=append)
    if not manifest.num_rows:
        raise ConfigError(f"--shard {plan.config.shard} has no images: the run has fewer units than shares")
    finished = start_or_continue(folder, manifest, plan.identity(), description(plan), append=append)
    left = what_is_left(folder, manifest, finished, retry_errors=retry_errors)
    return Job(plan, folder, left, manifest, SecondPass.of(folder) if plan.config.fit == SELF else None)


def run(
    job: Job,
    executor: Executor,
    on_unit: Callable[[UnitDone], None] = lambda _: None,
    on_start: Callable[[str], None] = lambda _: None,
    *,
    since: float | None = None,
) -> Evaluation:
    """Compute what is left, then evaluate everything.

    Args:
        job: what is left.
        executor: where it is computed, entered by the caller.
        on_unit: hears of every finished unit.
        on_start: hears how the run is scheduled.
        since: when the executor began to start, by `time.monotonic`; None for now.

    Raises:
        ConfigError: the cluster cannot have the workers, or a machine does not see a file.
        RunError: the run fails, all images failing included.
    """
    left, folder = job.left.images.num_rows, job.folder
    started = time.monotonic() if since is None else since
    if left:
        try:
            remove_measured(folder)
        except OSError as error:
            raise RunError(f"cannot remove {error.filename}: {error.strerror}") from error
        open_waves(folder, job.manifest, job.left.units)
        with noted() as stopped, Closing(folder, job.left.tried_again) as closing:
            for done in executor.stream(job, on_start):
                closing.unit_done()
                on_unit(done)
                if stopped.is_set():
                    raise KeyboardInterrupt
    else:
        close_waves(folder)
    remove_kept(folder)
    with phase("computing the metrics"):
        evaluation = evaluate_run(folder, on_ray=executor.uses_ray)
    remove_closed_parts(folder)
    # A run may have been killed after its last unit.
    if left or "finished" not in folder.read_run():
        finish(folder, evaluation.images, evaluation.failed, time.monotonic() - started)
    if evaluation.images == 0:
        raise RunError(
            f"all {evaluation.failed} images failed; `oodray status {folder.path}` shows the most frequent errors"
        )
    return evaluation


def description(plan: Plan) -> dict[str, Any]:
    """What `run.json` says of a run beside its identity."""
    return {
        "dataset": {"name": plan.layout.name, "root": str(plan.root), "images": plan.manifest.num_rows},
        "model": plan.model.name,
        "class_names": list(class_names_of(plan.model)),
        "config": asdict(plan.config),
        "scores": list(plan.score_names()),
    }
