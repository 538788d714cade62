"""The Ray Data graph: the whole job on one screen."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from oodray.config import RunConfig
from oodray.errors import ConfigError, RunError
from oodray.job.attempts import ATTEMPTS, Guard, RemoteMemory
from oodray.job.cluster import gpu_count
from oodray.job.plan import Plan, worker_count
from oodray.job.results import ResultsFolder
from oodray.job.stages import Decoder, Finisher
from oodray.job.units import LISTED, pack, rows_by_unit
from oodray.job.worker import SegmentAndCluster

if TYPE_CHECKING:
    import ray.data

NO_PROGRESS_SECONDS = 1800

TASK_CPUS = 0.5
"""CPUs of a decoding or finishing task. Unlike any worker's, or Ray would fuse decoding into the workers."""


def stream(plan: Plan, units: set[int], folder: ResultsFolder) -> Iterator[dict[str, Any]]:
    """Compute and write the given units; yields one summary per unit, in the order in which they are done.

    Raises:
        RunError: if a stage fails as a whole.
    """
    from ray.exceptions import RayError

    try:
        for batch in _graph(plan, units, folder).iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from batch.to_pylist()
    except RayError as error:
        raise RunError(f"the run stopped: {_reason(error)}. Run the same command again to continue it") from error


def _reason(error: Exception) -> str:
    """What a task or actor failed of, without the advice on settings of its own that Ray adds."""
    cause = getattr(error, "cause", None) or error
    return str(cause).partition("\nFailed to apply UDF")[0].rstrip(".")


def _graph(plan: Plan, units: set[int], folder: ResultsFolder) -> ray.data.Dataset:
    import ray.data

    _configure(ray.data.DataContext.get_current(), plan.config)
    guard = Guard(RemoteMemory.start(), plan.config.image_timeout)
    workers, gpus = _workers(plan, len(units))
    # A one-row table per unit is a block per unit: Ray keeps it whole from here to the file.
    rows_of = rows_by_unit(plan.manifest, units)
    source = ray.data.from_arrow([pack(unit, rows, LISTED) for unit, rows in rows_of.items()])
    return (
        source.map_batches(
            Decoder(plan.layout.label_codes, guard), batch_size=1, batch_format="pyarrow", num_cpus=TASK_CPUS
        )
        .map_batches(
            SegmentAndCluster,
            fn_constructor_args=(plan.model, plan.device, plan.config.threads, plan.method(), guard),
            compute=ray.data.ActorPoolStrategy(size=workers),
            batch_size=1,
            batch_format="pyarrow",
            **({"num_gpus": gpus} if gpus else {"num_cpus": plan.config.threads}),
        )
        .map_batches(
            Finisher(plan.method(), str(folder.path), guard),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=TASK_CPUS,
        )
    )


def _workers(plan: Plan, units: int) -> tuple[int, float]:
    """Worker processes and the GPUs of each: one per GPU, or one on CPUs, and no more than there are units."""
    import ray

    available = gpu_count()
    gpus = plan.config.gpus_per_worker
    gpus = (1.0 if plan.device == "cuda" else 0.0) if gpus is None else gpus
    workers = plan.config.workers or (worker_count(available, gpus) if gpus else 1)
    if workers * gpus > available:
        raise ConfigError(
            f"{workers} workers with {gpus:g} GPUs each need {workers * gpus:g} GPUs, Ray has {available:g}: "
            "lower --workers or --gpus-per-worker (0 runs on the CPU)"
        )
    cpus = ray.cluster_resources().get("CPU", 0)
    needed = workers * (1 if gpus else plan.config.threads) + 1
    if needed > cpus:
        raise ConfigError(
            f"{workers} workers, and decoding and writing beside them, need {needed} CPUs, Ray has {cpus:g}: "
            "lower --workers or --threads"
        )
    return min(workers, units), gpus


def _configure(context: Any, config: RunConfig) -> None:
    for handler in logging.getLogger("ray.data").handlers:
        if not isinstance(handler, logging.FileHandler):
            # Its errors are tracebacks of what `stream` raises.
            handler.setLevel(logging.CRITICAL)
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Errors of images are rows; an error of a block is one of the program, and ends the run.
    context.max_errored_blocks = 0
    # A batch with an image that hangs is tried whole, in halves, in quarters: all told less than twice the whole.
    hanging = 2 * ATTEMPTS * config.batch_size * config.image_timeout
    context.execution_no_progress_timeout_s = NO_PROGRESS_SECONDS + hanging
    context.max_consecutive_actor_init_deaths = ATTEMPTS
