"""The Ray Data graph: the whole job on one screen."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from oodray.config import RunConfig
from oodray.datasets.manifest import LARGEST_UNIT
from oodray.errors import RunError
from oodray.job.attempts import ATTEMPTS, Guard, RemoteMemory
from oodray.job.plan import Plan
from oodray.job.pool import Pool
from oodray.job.results import ResultsFolder
from oodray.job.stages import Decoder, Finisher
from oodray.job.units import LISTED, pack, rows_by_unit
from oodray.job.worker import SegmentAndCluster
from oodray.models.precision import FLOAT32

if TYPE_CHECKING:
    import ray.data

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


def _reason(error: Exception) -> str:
    """What a task or actor failed of, without the advice on settings of its own that Ray adds."""
    cause = getattr(error, "cause", None) or error
    return str(cause).partition("\nFailed to apply UDF")[0].rstrip(".")


def _graph(plan: Plan, images: pa.Table, folder: ResultsFolder, pool: Pool) -> ray.data.Dataset:
    import ray.data

    _configure(ray.data.DataContext.get_current(), plan.config)
    guard = Guard(RemoteMemory.start(), plan.config.image_timeout)
    rows_of = rows_by_unit(images)
    units, size = [pack(unit, rows, LISTED) for unit, rows in rows_of.items()], pool.block_size(len(rows_of))
    blocks = [pa.concat_tables(units[start : start + size]) for start in range(0, len(units), size)]
    # Once decoded, blocks of more than 128 MiB are split, between units as ever. `from_arrow` would first run a task
    # for each block, to ask what is in it.
    source = ray.data.from_blocks(blocks)
    tasks = {
        "batch_size": 1,
        "batch_format": "pyarrow",
        "num_cpus": TASK_CPUS,
        # Ray warns of more than there are blocks.
        "compute": ray.data.TaskPoolStrategy(size=pool.tasks and min(pool.tasks, len(blocks))),
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
            compute=_strategy(pool),
            batch_size=1,
            batch_format="pyarrow",
            **({"num_gpus": pool.gpus} if pool.gpus else {"num_cpus": pool.cpus}),
        )
        .map_batches(finisher, **tasks)
    )


def _strategy(pool: Pool) -> ray.data.ActorPoolStrategy:
    import ray.data

    # While a worker is at a unit, it fetches the next one and hands over the last.
    calls = 2
    if pool.fewest == pool.most:
        return ray.data.ActorPoolStrategy(
            size=pool.most, max_concurrent_calls_per_actor=calls, max_tasks_in_flight_per_actor=calls
        )
    # Ray asks for more workers only where units wait that no call has been made for: twice as many as calls.
    return ray.data.ActorPoolStrategy(
        min_size=pool.fewest, max_size=pool.most, initial_size=pool.fewest, max_concurrent_calls_per_actor=calls
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
