"""What Ray Data's driver takes for a block in three stages that do nothing: `python -m benchmarks.driver`.

However many workers there are, one driver hands out all blocks: so many a second, and no more, in a whole cluster.
"""

from __future__ import annotations

import time

import pyarrow as pa

from oodray.cluster.pool import Pool
from oodray.job.executors.ray_data import TASK_CPUS, actors

BLOCKS, BEFORE = 1000, 200
"""Blocks in all, and those after which it is timed, when all processes have started."""

WORKERS = Pool(fewest=4, most=4, cpus=1, gpus=1)


class Hand:
    """A worker that hands on what it gets."""

    def __call__(self, table: pa.Table) -> pa.Table:
        """The same table."""
        return table


def run() -> tuple[float, float]:
    """CPU seconds of the driver for a block, and blocks a second, all processes on this machine."""
    import ray
    import ray.data

    ray.init(address="local", num_cpus=WORKERS.most + 2, include_dashboard=False, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    in_batches = {"batch_size": 1, "batch_format": "pyarrow"}
    blocks = (
        ray.data.from_blocks([pa.table({"unit": [index]}) for index in range(BLOCKS)])
        .map_batches(_hand_on, num_cpus=TASK_CPUS, **in_batches)
        .map_batches(Hand, compute=actors(WORKERS), **in_batches)
        .map_batches(_hand_on, num_cpus=TASK_CPUS, **in_batches)
        .iter_batches(batch_size=None, batch_format="pyarrow")
    )
    for index, _ in enumerate(blocks, start=1):
        if index == BEFORE:
            start, cpu = time.monotonic(), time.process_time()
    seconds, cpu_seconds = time.monotonic() - start, time.process_time() - cpu
    ray.shutdown()
    return cpu_seconds / (BLOCKS - BEFORE), (BLOCKS - BEFORE) / seconds


def _hand_on(table: pa.Table) -> pa.Table:
    return table


if __name__ == "__main__":
    cpu, rate = run()
    print(f"{1000 * cpu:.1f} ms of CPU of the driver a block; {rate:.1f} blocks a second with {WORKERS.most} workers")
