"""The stages in this process: the network in the thread of the caller, decoding, clustering and finishing beside it.

Nothing has to start, so a small run is done before a Ray would be up. What only other processes can give is missing: an
image that crashes or hangs this process ends the run. The same command continues it, with either executor.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Self

from oodray.ahead import map_ahead
from oodray.cluster.shares import usable_cores
from oodray.job.attempts import AttemptLog
from oodray.job.passes import worker_of
from oodray.job.pipeline import Job, Result, Stages, stages_of
from oodray.job.plan import LoadNetwork
from oodray.job.units import UnitDone
from oodray.job.worker import Pending
from oodray.models.segmenter import Segmenter
from oodray.phases import phase

MOST_THREADS = 4
"""Threads that decode, and that finish, at most: four do more than a network takes, and each holds a unit in memory."""

UNITS_AHEAD = 2
"""Units that are decoded, or being decoded, beyond one for each thread. So memory does not grow with the run."""

NO_TIMEOUT = 0.0
"""A watchdog would end the process of the caller."""


class LocalExecutor:
    """Runs the stages in this process."""

    uses_ray = False

    def __init__(self) -> None:
        self._network: Segmenter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing was started."""

    def start_beside(self, work: Callable[[], Result]) -> Result:
        """Nothing has to start."""
        return work()

    def expect(self, load: LoadNetwork) -> None:
        """Load the network while the images are drawn; what keeps it from starting is raised where it is needed."""
        with contextlib.suppress(Exception), phase("loading the network"):
            self._network = load()

    def stream(self, job: Job, on_start: Callable[[str], None]) -> Iterator[UnitDone]:
        """See `oodray.job.pipeline.Executor`."""
        import torch

        stages = stages_of(job, AttemptLog(), NO_TIMEOUT)
        units = job.units()
        on_start(f"this process, {stages.threads} CPU threads for the network; {units} units of images left")
        threads = torch.get_num_threads()
        torch.set_num_threads(stages.threads)
        try:
            yield from _stream(job, stages, self._network or stages.load())
        finally:
            torch.set_num_threads(threads)


def _stream(job: Job, stages: Stages, network: Segmenter) -> Iterator[UnitDone]:
    cores = min(usable_cores(), MOST_THREADS)
    finishing: deque[Future[UnitDone]] = deque()

    def finish(images: list[Pending]) -> UnitDone:
        return stages.finisher([image.get() for image in images])

    with (
        ThreadPoolExecutor(cores, "decode") as decoders,
        ThreadPoolExecutor(1, "cluster") as clusterer,
        ThreadPoolExecutor(cores, "finish") as finishers,
    ):
        worker = worker_of(network, stages.settings, stages.guard, stages.gathering, beside=clusterer)
        try:
            units = chain.from_iterable(job.slices())
            for images in map_ahead(decoders, stages.decoder, units, cores + UNITS_AHEAD):
                finishing.append(finishers.submit(finish, worker.begin(images)))
                # The oldest is waited for where there are many, so that no more than these lie in memory.
                while finishing and (finishing[0].done() or len(finishing) > cores + UNITS_AHEAD):
                    yield finishing.popleft().result()
            while finishing:
                yield finishing.popleft().result()
        finally:
            # After an error, or where the caller stops: what has not begun is not begun any more.
            decoders.shutdown(wait=False, cancel_futures=True)
            finishers.shutdown(wait=False, cancel_futures=True)
