"""The reducer on very many images: time, and memory that does not grow with them."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results_folders import write_large_folder
from oodray.analysis.files import CountedFiles
from oodray.analysis.totals import total
from oodray.cluster.session import connected


@dataclass(frozen=True)
class Reduced:
    """Images, megabytes on disk, seconds, and the largest memory of any of Ray's processes and of the driver, in GB."""

    images: int
    megabytes: float
    seconds: float
    worker_gigabytes: float
    driver_gigabytes: float


def run(images: int) -> Reduced:
    """Write a folder of so many images, and add them up with Ray."""
    with tempfile.TemporaryDirectory() as path:
        folder = write_large_folder(Path(path), images, (5,))
        megabytes = sum(part.stat().st_size for part in folder.parts()) / 1e6
        with connected():
            # The peak from here on: whatever this process did before does not count.
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            before = _peak(Path("/proc/self"))
            start = time.perf_counter()
            totals = total(CountedFiles.of(folder), folder.rule(), on_ray=True)
            seconds = time.perf_counter() - start
            assert totals.images == images
            workers = [_peak(process) for process in Path("/proc").glob("[0-9]*") if _is_worker(process)]
        return Reduced(images, megabytes, seconds, max(workers, default=0.0), _peak(Path("/proc/self")) - before)


def _is_worker(process: Path) -> bool:
    """Whether a process is a worker of the Ray that this one has started: its raylet's child."""
    try:
        ours = _parent(Path("/proc") / _parent(process)) == str(os.getpid())
        return ours and (process / "cmdline").read_bytes().startswith(b"ray::")
    except OSError:
        return False


def _parent(process: Path) -> str:
    # The name of a program, in brackets, may hold blanks.
    return (process / "stat").read_text().rpartition(")")[2].split()[1]


def _peak(process: Path) -> float:
    """The largest memory that a process has had, in GB."""
    try:
        lines = (process / "status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("VmHWM")), 0.0)
