"""A run in a process of its own, so that its start-up and memory are its own, printed as JSON.

`python -m benchmarks.one_run WAY SEGMENTER ROOT OUT WORKERS GPUS THREADS`. The way is an executor, `ray` or `local`, or
`loop`: a bare loop that calls the same functions one after the other and writes the same files.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.segmenters import EFFORT, NOTES, TAU, own_megabytes, read_notes
from oodray.cluster.session import LOCAL_CPUS
from oodray.job.attempts import AttemptLog
from oodray.job.executors import executor_of
from oodray.job.pipeline import Job, stages_of
from oodray.job.plan import make_plan
from oodray.job.process_memory import set_up_process
from oodray.job.run import prepare, run
from oodray.job.worker import Worker
from oodray.results.folder import ResultsFolder
from oodray.results.reading import read_rows

_TICK = os.sysconf("SC_CLK_TCK")

OnUnit = Callable[[], None]


@dataclass(frozen=True)
class Measured:
    """A run after its start-up: from when every worker has had its first image to the last file.

    Attributes:
        images: that reached a network in that time.
        seconds: that it was.
        cpu_seconds: of the process and all its children, of an image, between the first and the last file.
        busy_share: of the time of the workers, from each one's first image to its last, the share that segmenting and
            clustering took.
        worker_megabytes: the most that a worker had at the start of an image.
        driver_megabytes: the most that the driver had after a file; looked at once a second, as CPU is.
    """

    images: int
    seconds: float
    cpu_seconds: float
    busy_share: float
    worker_megabytes: float
    driver_megabytes: float

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds


def measure(
    way: str,
    segmenter: str,
    root: Path,
    *,
    effort: float,
    workers: int = 1,
    gpus: int = 0,
    threads: int = 1,
    cores: int | None = None,
) -> Measured:
    """One run, in a process of its own, on the first so many cores; `effort` is what an image takes, see `EFFORT`."""
    pinned = [] if cores is None else ["taskset", "-c", f"0-{cores - 1}"]
    with tempfile.TemporaryDirectory() as out, tempfile.TemporaryDirectory() as notes:
        numbers = map(str, (workers, gpus, threads))
        command = [sys.executable, "-m", "benchmarks.one_run", way, segmenter, str(root), out, *numbers]
        environment = os.environ | {NOTES: notes, EFFORT: str(effort)}
        done = subprocess.run([*pinned, *command], check=True, stdout=subprocess.PIPE, text=True, env=environment)
        found = Measured(**json.loads(done.stdout.splitlines()[-1]))  # Ray may have said something before
    print(f"{way}, {segmenter}, {workers} workers, {cores or 'all'} cores: {found}", file=sys.stderr, flush=True)
    return found


class Watch:
    """What the driver sees of a run at its files; no more than once a second, as it takes time to look."""

    def __init__(self) -> None:
        self.files = 0
        self.end = 0.0
        self.megabytes = 0.0
        self.looks: list[tuple[float, int, float]] = []
        """The time, the files that there were, and the CPU seconds that had been taken."""
        self._cpu_seconds: dict[int, float] = {}  # by process, of those too that have ended

    def __call__(self, *_: Any) -> None:
        """Note one more file."""
        self.files += 1
        self.end = time.monotonic()
        if not self.looks or self.end - self.looks[-1][0] > 1:
            self._cpu_seconds |= _cpu_seconds()
            self.looks.append((self.end, self.files, sum(self._cpu_seconds.values())))
            self.megabytes = max(self.megabytes, own_megabytes())

    def cpu_seconds_of_file(self) -> float:
        """CPU seconds of one file."""
        (_, first, before), (_, last, after) = self.looks[0], self.looks[-1]
        return (after - before) / (last - first)


def main() -> None:
    """Make the run that the command line describes, print what was measured."""
    way, segmenter, root, out, workers, gpus, threads = sys.argv[1:]
    set_up_process()
    folder, watch = ResultsFolder(out), Watch()
    plan = make_plan(
        {
            "dataset": "folder",
            "root": root,
            "model": f"benchmarks.segmenters:{segmenter}",
            "tau": TAU,
            "threads": int(threads),
            "executor": "local" if way == "local" else "ray",
            "workers": int(workers),
            "gpus_per_worker": 1 if int(gpus) else 0,
            "kmeans_backend": "torch",
        },
        None,
        folder,
    )
    job = prepare(plan, folder)
    if way == "loop":
        _loop(job, watch)
    else:
        with _declared(int(gpus), int(workers)), executor_of(plan.config) as executor:
            run(job, executor, watch)
    print(json.dumps(asdict(_measured(folder, watch))))


@contextlib.contextmanager
def _declared(gpus: int, workers: int) -> Iterator[None]:
    """A Ray with GPUs that exist on paper; without any, the run starts its own."""
    if not gpus:
        yield
        return
    import ray

    ray.init(
        address="local",
        num_cpus=max(LOCAL_CPUS, workers + 2),
        num_gpus=gpus,
        include_dashboard=False,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


def _loop(job: Job, on_unit: OnUnit) -> None:
    import torch

    stages = stages_of(job, AttemptLog(), 0)
    torch.set_num_threads(stages.threads)
    worker = Worker(stages.load(), stages.settings, stages.guard)
    for images in job.left.by_unit().values():
        stages.finisher(worker(stages.decoder(images)))
        on_unit()


def _measured(folder: ResultsFolder, watch: Watch) -> Measured:
    notes = read_notes(Path(os.environ[NOTES]))
    rows = read_rows(folder.parts(), ["status", "seconds_segment", "seconds_cluster"]).to_pydict()
    images = len(rows["status"])
    assert rows["status"] == ["ok"] * images
    busy = sum(rows["seconds_segment"]) + sum(rows["seconds_cluster"])
    spans = [[note.start for note in group] for _, group in groupby(notes, key=lambda note: note.process)]
    # A span ends where its last image starts, so an image of each worker is left out above and below the line.
    share = busy / images * (images - len(spans)) / sum(span[-1] - span[0] for span in spans)
    start = max(span[0] for span in spans)
    return Measured(
        images=sum(note.start >= start for note in notes),
        seconds=watch.end - start,
        cpu_seconds=watch.cpu_seconds_of_file() * watch.files / images,
        busy_share=share,
        worker_megabytes=max(note.megabytes for note in notes),
        driver_megabytes=watch.megabytes,
    )


def _cpu_seconds() -> dict[int, float]:
    """Of this process and of each below it."""
    seconds: dict[int, float] = {}
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name of a program, in brackets, may hold blanks.
            fields = path.read_text().rpartition(")")[2].split()
            process = int(path.parent.name)
            seconds[process] = sum(map(int, fields[11:13])) / _TICK
            children.setdefault(int(fields[1]), []).append(process)
    found, left = {}, [os.getpid()]
    while left:
        process = left.pop()
        found[process] = seconds.get(process, 0.0)
        left += children.get(process, [])
    return found


if __name__ == "__main__":
    main()
