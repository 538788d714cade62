"""The stages as a Ray Data graph: decoding and finishing as tasks, workers as actors, each in a process of its own."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, cast

import pyarrow as pa

from oodray.cluster.failures import next_step
from oodray.cluster.nodes import nodes
from oodray.cluster.pool import Pool, choose_pool, describe, local_cpus
from oodray.cluster.session import Session, cluster_address
from oodray.cluster.shared_storage import check_shared_storage
from oodray.config import RunConfig
from oodray.datasets.manifest import LARGEST_UNIT, ListedImage
from oodray.errors import OodrayError, RequestError, RunError
from oodray.job.attempts import ATTEMPTS, Guard, RemoteAttemptLog
from oodray.job.decoder import Decoder
from oodray.job.finisher import Finisher
from oodray.job.gathering import Gathering
from oodray.job.passes import FirstPass, SecondPass, worker_of
from oodray.job.pipeline import Job, Result, Stages, stages_of
from oodray.job.plan import LoadNetwork
from oodray.job.process_memory import leave_out_of_collections, set_up_process
from oodray.job.telemetry import BusyShare, Labels
from oodray.job.units import (
    DecodedImage,
    SegmentedImage,
    UnitDone,
    pack,
    pack_done,
    pack_listed,
    unpack,
    unpack_done,
)
from oodray.job.worker import Worker
from oodray.method.settings import MethodSettings
from oodray.models.segmenter import Segmenter
from oodray.scores.fitted.folder import Fit

if TYPE_CHECKING:
    import ray.data
    from ray.exceptions import RayError

    from oodray.scores.fitted.bank import Bank

NO_PROGRESS_SECONDS = 1800
"""Seconds without a finished unit after which a run ends, beside the time that its images may hang."""

NEVER = -1
"""Ray's value for no such limit."""

UNITS_OF_A_GRAPH = 16384
"""Units that a graph of Ray Data holds at most: what a driver takes for them, in memory and time, does not grow with a
run. Between two graphs the workers start anew, once in 131,072 images or more."""

BLOCKS_OF_A_WORKER = 64
"""Blocks that a worker that does all stages has at least, so that all end at about the same time."""

MOST_UNITS_OF_A_BLOCK = 8
"""Of such a worker: beyond this a driver gains little, and it hears of a unit once the others of its block are done."""

TASK_CPUS = 0.5
"""CPUs of a decoding or finishing task. Unlike any worker's, or Ray would fuse decoding into the workers."""


class RayExecutor:
    """Runs the stages on a Ray cluster, or on a Ray of its own on this machine."""

    uses_ray = True

    def __init__(self, config: RunConfig) -> None:
        self._session = Session(config.ray_address, local_cpus(config))

    def __enter__(self) -> Self:
        self._session.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._session.__exit__(*error)

    def start_beside(self, work: Callable[[], Result]) -> Result:
        """See `oodray.job.pipeline.Executor`."""
        if not self._session.starts_its_own():
            self._session.begin()
            return work()
        # Linux ends the processes of a Ray with the thread that started them, so this one starts it.
        with ThreadPoolExecutor(1, "beside Ray's start") as thread:
            result = thread.submit(copy_context().run, work)
            self._session.begin()
            return result.result()

    def expect(self, load: LoadNetwork) -> None:
        """Its workers load the network."""

    def stream(self, job: Job, on_start: Callable[[str], None]) -> Iterator[UnitDone]:
        """See `oodray.job.pipeline.Executor`."""
        self._session.begin()
        from ray.exceptions import RayError

        # What is left of a run that failed in this process holds its workers, by the frames of its error, until then.
        gc.collect()
        pool = _scheduled(job, on_start)
        try:
            stages = stages_of(job, RemoteAttemptLog.start(), job.plan.config.image_timeout)
            bank = shared_bank(stages.settings, job.gathering)
            for images in job.tables(UNITS_OF_A_GRAPH):
                graph = _graph(images, stages, job.plan.config, pool, bank)
                for batch in graph.iter_batches(batch_size=None, batch_format="pyarrow"):
                    yield from unpack_done(cast("pa.Table", batch))
        except RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, RequestError):
                # What keeps the network from starting is the same error in every process.
                raise type(cause)(_without_advice(str(cause))) from error
            raise RunError(f"the run stopped: {_reason(error)}. {next_step(error)}") from error


@dataclass(frozen=True)
class DecodeTask:
    """The first stage as a task of Ray's."""

    decoder: Decoder

    def __call__(self, table: pa.Table) -> pa.Table:
        """A unit of `ListedImage` to one of `DecodedImage`."""
        return pack(self.decoder(unpack(table, ListedImage)), DecodedImage)


class WorkerActor:
    """The second stage as an actor of Ray's, which loads the network when it starts."""

    def __init__(  # noqa: PLR0917 - Ray hands over positional arguments
        self,
        load: Callable[[], Segmenter],
        threads: int,
        settings: MethodSettings,
        guard: Guard,
        gathering: Gathering | FirstPass | SecondPass | None = None,
        bank: ray.ObjectRef[Bank] | None = None,
        labels: Labels | None = None,
    ) -> None:
        set_up_process()
        import torch

        # Ray sets OMP_NUM_THREADS=1 in its workers; a run repeats to the last bit with the same number.
        torch.set_num_threads(threads)
        self.busy = BusyShare(labels)
        self.worker: Worker | None = None
        self.failure: Exception | None = None
        try:
            self.worker = worker_of(load(), with_bank(settings, bank), guard, gathering)
        except Exception as error:
            # Ray makes a text with a traceback of an error here, and hands over one of a call as it is.
            self.failure = error
        leave_out_of_collections()

    def __call__(self, table: pa.Table) -> pa.Table:
        """A unit of `DecodedImage` to one of `SegmentedImage`; raises what kept the network from starting.

        It is no generator on purpose: Ray would run several of them at once where it hands over the next unit early.
        """
        return pack(self.segmented(unpack(table, DecodedImage)), SegmentedImage)

    def segmented(self, images: list[DecodedImage]) -> list[SegmentedImage]:
        """The images of a unit, segmented; raises what kept the network from starting."""
        if self.worker is None:
            raise self.failure or AssertionError("a worker without a network has a failure")
        with self.busy:
            return self.worker(images)


class WholeActor:
    """All stages as an actor of Ray's, where workers take all cores: nothing but the manifest travels.

    What its process loses, where an image ends it, is computed again: units that were written already are the same.
    """

    def __init__(self, stages: Stages, bank: ray.ObjectRef[Bank] | None = None) -> None:
        worker = (stages.load, stages.threads, stages.settings, stages.guard, stages.gathering, bank, stages.labels)
        self._decoder, self._worker, self._finisher = stages.decoder, WorkerActor(*worker), stages.finisher

    def __call__(self, table: pa.Table) -> pa.Table:
        """Units of `ListedImage`, a row each, to what the driver hears of them; raises as `WorkerActor` does."""
        return pa.concat_tables([pack_done(self._unit(table.slice(row, 1))) for row in range(table.num_rows)])

    def _unit(self, table: pa.Table) -> UnitDone:
        return self._finisher(self._worker.segmented(self._decoder(unpack(table, ListedImage))))


@dataclass(frozen=True)
class FinishTask:
    """The last stage as a task of Ray's."""

    finisher: Finisher

    def __call__(self, table: pa.Table) -> pa.Table:
        """A unit of `SegmentedImage` to what the driver hears of it."""
        return pack_done(self.finisher(unpack(table, SegmentedImage)))


def shared_bank(settings: MethodSettings, gathering: Gathering | FirstPass | SecondPass | None) -> Any:
    """The bank of a fit in Ray's object store, which every node holds once for all its workers; None without a fit."""
    import ray

    needed = settings.fit is not None and not isinstance(gathering, FirstPass)
    return ray.put(Fit(settings.fit.path).bank) if needed and settings.fit is not None else None


def with_bank(settings: MethodSettings, bank: Any) -> MethodSettings:
    """Settings whose fit has its bank, from the object store of this node: it is not copied."""
    import ray

    if bank is None or settings.fit is None:
        return settings
    return replace(settings, fit=replace(settings.fit, bank=ray.get(bank)))


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


def _scheduled(job: Job, on_start: Callable[[str], None]) -> Pool:
    """The workers for a job, of which `on_start` hears; every machine has been asked whether it sees the files."""
    plan, units, machines = job.plan, job.units(), nodes()
    pool = choose_pool(plan.config, plan.device, units, machines)
    check_shared_storage(plan.places(), job.folder.path, job.folder.run, machines)
    batch_size, weights_bytes = plan.config.batch_size, plan.weights_bytes()
    of_its_own = len(machines) == 1 and cluster_address(plan.config.ray_address) is None
    on_start(describe(pool, units, machines, batch_size=batch_size, weights_bytes=weights_bytes, of_its_own=of_its_own))
    return pool


def _graph(
    images: pa.Table, stages: Stages, config: RunConfig, pool: Pool, bank: ray.ObjectRef[Bank] | None
) -> ray.data.Dataset:
    import ray.data

    _configure(ray.data.DataContext.get_current(), config)
    units = pack_listed(images)
    size = units_of_block(units.num_rows, pool)
    # A one-row table per unit is a block per unit: Ray keeps it whole from here to the file. `from_arrow` would first
    # run a task for each of them, to ask what is in it.
    source = ray.data.from_blocks([units.slice(row, size) for row in range(0, units.num_rows, size)])
    one_each = {"batch_size": 1, "batch_format": "pyarrow"}
    tasks = one_each | {"num_cpus": TASK_CPUS, "compute": ray.data.TaskPoolStrategy(size=pool.tasks)}
    resources = {"num_gpus": pool.gpus} if pool.gpus else {"num_cpus": pool.cpus}
    if pool.whole:
        whole: ray.data.Dataset = source.map_batches(
            WholeActor,
            fn_constructor_args=(stages, bank),
            compute=actors(pool),
            batch_size=None,
            batch_format="pyarrow",
            **resources,
        )
        return whole
    of_workers = (stages.load, stages.threads, stages.settings, stages.guard, stages.gathering, bank, stages.labels)
    graph: ray.data.Dataset = (
        source.map_batches(DecodeTask(stages.decoder), **tasks)
        .map_batches(WorkerActor, fn_constructor_args=of_workers, compute=actors(pool), **one_each, **resources)
        .map_batches(FinishTask(stages.finisher), **tasks)
    )
    return graph


def units_of_block(units: int, pool: Pool) -> int:
    """Units that travel together: several where a worker does all stages, and has many to do.

    >>> pool = Pool(fewest=2, most=2, cpus=1, gpus=0, whole=True)
    >>> units_of_block(64, pool), units_of_block(1600, pool), units_of_block(16384, pool)
    (1, 8, 8)
    """
    if not pool.whole:
        return 1
    return max(1, min(units // (pool.most * BLOCKS_OF_A_WORKER), MOST_UNITS_OF_A_BLOCK))


def _reason(error: RayError) -> str:
    """What a task or actor failed of: for an error of ours its message, for any other its name too."""
    cause = getattr(error, "cause", None)
    known = cause is None or isinstance(cause, OodrayError)
    text = str(cause or error) if known else f"{type(cause).__name__}: {cause}"
    return _without_advice(text).rstrip(".")


def _without_advice(message: str) -> str:
    """Without what Ray adds to every message: advice on settings of its own."""
    return message.partition("\nFailed to apply UDF")[0]


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
