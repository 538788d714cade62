"""The Ray Data graph: the whole job on one screen."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from oodray.cluster.pool import Pool
from oodray.config import RunConfig
from oodray.datasets.manifest import LARGEST_UNIT
from oodray.errors import OodrayError, RunError
from oodray.job.attempts import ATTEMPTS, Guard, RemoteMemory
from oodray.job.plan import Plan
from oodray.job.stages import Decoder, Finisher
from oodray.job.units import LISTED, pack, rows_by_unit
from oodray.job.worker import SegmentAndCluster
from oodray.models.dtype import FLOAT32
from oodray.results.folder import ResultsFolder

if TYPE_CHECKING:
    import ray.data
    from ray.exceptions import RayError

NO_PROGRESS_SECONDS, NEVER = 1800, -1
"""After how long without a finished unit, beside what images may hang, a run ends; and Ray's number for never."""

TASK_CPUS = 0.5
"""CPUs of a decoding or finishing task. Unlike any worker's, or Ray would fuse decoding into the workers."""


def stream(plan: Plan, images: pa.Table, folder: ResultsFolder, pool: Pool) -> Iterator[dict[str, Any]]:
    """Compute and write some rows of the manifest; yields one summary per unit, in the order in which they are done.

    Raises:
        RunError: if a stage fails as a whole.
    """
    from ray.exceptions import RayError

    # What is left of a run that failed in this process holds its workers, by the frames of its error, until collected.
    gc.collect()
    try:
        for batch in _graph(plan, images, folder, pool).iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from batch.to_pylist()
    except RayError as error:
        raise RunError(f"the run stopped: {_reason(error)}. Run the same command again to continue it") from error


def _reason(error: RayError) -> str:
    """What a task or actor failed of: for an error of ours its message, for any other its name too."""
    cause = getattr(error, "cause", None)
    known = cause is None or isinstance(cause, OodrayError)
    text = str(cause or error) if known else f"{type(cause).__name__}: {cause}"
    # To every message Ray adds advice on settings of its own.
    return text.partition("\nFailed to apply UDF")[0].rstrip(".")


def _graph(plan: Plan, images: pa.Table, folder: ResultsFolder, pool: Pool) -> ray.data.Dataset:
    import ray.data

    _configure(ray.data.DataContext.get_current(), plan.config)
    guard = Guard(RemoteMemory.start(), plan.config.image_timeout)
    # A one-row table per unit is a block per unit: Ray keeps it whole from here to the file. `from_arrow` would first
    # run a task for each of them, to ask what is in it.
    rows_of = rows_by_unit(images)
    source = ray.data.from_blocks([pack(unit, rows, LISTED) for unit, rows in rows_of.items()])
    tasks = {
        "batch_size": 1,
        "batch_format": "pyarrow",
        "num_cpus": TASK_CPUS,
        "compute": ray.data.TaskPoolStrategy(size=pool.tasks),
    }
    finisher = Finisher(
        plan.method(),
        str(folder.path),
        guard,
        identity=folder.read_run()["identity"],
        tried_again=frozenset(rows_of.keys() & folder.finished_units()),
    )
    return (
        source.map_batches(Decoder(plan.layout.label_codes, guard), **tasks)
        .map_batches(
            SegmentAndCluster,
            fn_constructor_args=(plan.model, plan.device, plan.config.threads, plan.method()),
            fn_constructor_kwargs={"dtype": plan.config.dtype or FLOAT32, "guard": guard},
            compute=actors(pool),
            batch_size=1,
            batch_format="pyarrow",
            **({"num_gpus": pool.gpus} if pool.gpus else {"num_cpus": pool.cpus}),
        )
        .map_batches(finisher, **tasks)
    )


def actors(pool: Pool) -> ray.data.ActorPoolStrategy:
    """The workers of a pool, and how Ray hands units to them."""
    import ray.data

    # Ray makes one call at a time all the same. To a worker with a GPU it hands the next unit over while that one is at
    # work, in another thread. On a CPU the main thread works, as freed memory is kept in its heap alone.
    calls = 2 if pool.gpus else 1
    return ray.data.ActorPoolStrategy(
        min_size=pool.fewest,
        max_size=pool.most,
        initial_size=pool.fewest,
        max_concurrent_calls_per_actor=calls,
        enable_true_multi_threading=not pool.gpus,
        # Ray adds workers where 1.75 times as many units are in flight as there are calls.
        max_tasks_in_flight_per_actor=2 if pool.fewest == pool.most else 2 * calls,
    )


def _configure(context: Any, config: RunConfig) -> None:
    for handler in logging.getLogger("ray.data").handlers:
        if not isinstance(handler, logging.FileHandler):
            # Its errors are tracebacks of what `stream` raises.
            handler.setLevel(logging.CRITICAL)
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Errors of images are rows; an error of a block is one of the program, and ends the run, as what it is.
    context.max_errored_blocks = 0
    context.raise_original_map_exception = True
    # As long as images may hang and keep their unit from moving: all of them in batches of one, one in larger batches.
    hanging = 2 * ATTEMPTS * LARGEST_UNIT * config.image_timeout
    context.execution_no_progress_timeout_s = NO_PROGRESS_SECONDS + hanging if hanging else NEVER
    context.max_consecutive_actor_init_deaths = ATTEMPTS
