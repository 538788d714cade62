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
STEPS = (
    ("the command line is imported", "driver"),
    ("what a plan needs is imported: torch, Arrow", "driver"),
    ("the plan is made, 24 scenes are drawn", "driver"),
    ("Ray is started", "driver"),
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
    from oodray.job.plan import make_plan
    from oodray.job.run import run, start_or_continue
    from oodray.results.folder import ResultsFolder

    _note()
    folder = ResultsFolder(out)
    plan = make_plan({"dataset": "demo", "model": "benchmarks.startup:network", "tau": 3.5}, None, folder)
    start_or_continue(plan, folder)
    _note()
    run(plan, folder, lambda _: _note(), on_start=lambda _: _note())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        print("\n".join(run()))
