"""Where the time from command to first result goes: `python -m benchmarks.startup`.

A process does what `oodray run --dataset demo` does, step by step, and notes when each was done; so does the worker,
whose network is that of the demo, made by the factory here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from oodray import Segmentation, Segmenter

RUNS = 3
NOTES = "OODRAY_BENCH_NOTES"
COMMANDS = 5
STEPS = (
    ("the command line is imported", "driver"),
    ("the request is checked", "driver"),
    ("24 scenes are drawn, the plan is made, Ray is started", "driver"),
    ("a worker has been started, with torch", "worker"),
    ("the network is loaded", "worker"),
    ("the first image has reached it", "worker"),
    ("the first image is segmented", "worker"),
    ("clustered, finished, written, heard of", "driver"),
)
"""What is done at the end of each step, and where."""


def run() -> list[str]:
    """The lines of a table: each step, the seconds that it takes, and the seconds since the command."""
    runs = [_timeline() for _ in range(RUNS)]
    ends = [0.0, *(median(times) for times in zip(*runs, strict=True))]
    return [
        f"From command to first result, `oodray run --dataset demo`, medians of {RUNS} runs, numba's cache filled:",
        "",
        "| until | where | takes | since the command |",
        "|---|---|---|---|",
        *(
            f"| {what} | {where} | {end - start:.1f} s | {end:.1f} s |"
            for (what, where), (start, end) in zip(STEPS, pairwise(ends), strict=True)
        ),
    ]


def commands(before: Path | None) -> list[str]:
    """The lines of a table: from command to table, the demo by each executor, and as another checkout has it."""
    ways = {
        "`--executor local`": partial(_seconds, Path.cwd(), "--executor", "local"),
        "`--executor ray`": partial(_seconds, Path.cwd()),
    }
    if before is not None:
        ways["before there was an executor to choose"] = partial(_seconds, before)
    # In turn, so that what else the machine does falls on all of them.
    runs = [[way() for way in ways.values()] for _ in range(COMMANDS)]
    of_way = dict(zip(ways, zip(*runs, strict=True), strict=True))
    last = list(of_way)[-1]
    return [
        f"From command to table, `oodray run --dataset demo`, medians of {COMMANDS} runs in turn, numba's cache warm:",
        "",
        f"| | seconds (least to greatest) | of the time of {last} |",
        "|---|---|---|",
        *(
            f"| {name} | {median(times):.1f} ({min(times):.1f} to {max(times):.1f}) "
            f"| **{median(time / other for time, other in zip(times, of_way[last], strict=True)):.2f}** |"
            for name, times in of_way.items()
        ),
    ]


def _seconds(checkout: Path, *options: str) -> float:
    """How long the demo takes in a checkout, as a command."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "oodray.cli", "run", "--dataset", "demo", *options, "--out", f"{out}/demo"]
        start = time.monotonic()
        subprocess.run(command, check=True, cwd=checkout, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.monotonic() - start


def _timeline() -> list[float]:
    """When each step had ended, in seconds since the command."""
    with tempfile.TemporaryDirectory() as out, tempfile.NamedTemporaryFile("r", encoding="ascii") as notes:
        command = [sys.executable, "-m", "benchmarks.startup", out]
        start = time.monotonic()
        subprocess.run(command, check=True, env=os.environ | {NOTES: notes.name}, stdout=subprocess.DEVNULL)
        return [float(line) - start for line in notes.read().splitlines()[: len(STEPS)]]


def _note() -> None:
    """One more step has ended."""
    with Path(os.environ[NOTES]).open("a", encoding="ascii") as notes:
        notes.write(f"{time.monotonic()}\n")


def network() -> Segmenter:
    """The demo's network, which says when it is there and when it has seen an image."""
    from oodray.models.loading import load_segmenter
    from oodray.models.source import resolve_model

    _note()
    noted = Noted(load_segmenter(resolve_model("internimage-n-demo")))
    _note()
    return noted


class Noted:
    """A segmenter that notes its first image."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.first = True

    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        """See `oodray.Segmenter`."""
        if not self.first:
            return self.segmenter.segment(images)
        self.first = False
        _note()
        found = self.segmenter.segment(images)
        _note()
        return found


def main(out: str) -> None:
    """What the command does."""
    import_module("oodray.cli")
    _note()
    from oodray.job.executors import executor_of
    from oodray.job.layers import read_layers
    from oodray.job.plan import complete, make_request
    from oodray.job.run import prepare, run
    from oodray.results.folder import ResultsFolder

    folder = ResultsFolder(out)
    layers = read_layers({"dataset": "demo", "model": "benchmarks.startup:network", "tau": 3.5})
    request = make_request(layers, folder)
    _note()
    with executor_of(layers.config) as executor:
        job = prepare(executor.start_beside(lambda: complete(request)), folder)
        _note()
        run(job, executor, lambda _: _note(), lambda _: _note())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        print("\n".join(run()))
