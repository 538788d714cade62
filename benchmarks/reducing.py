"""The reducer on very many images: time, and memory that does not grow with them.

`python -m benchmarks.reducing FOLDER IMAGES` writes a folder of results, unless it is there, and adds it up.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.results_folders import write_large_folder
from oodray.analysis.files import CountedFiles
from oodray.analysis.totals import total
from oodray.cluster.session import connected
from oodray.results.folder import ResultsFolder

HERE, RAY = "threads", "Ray"


@dataclass(frozen=True)
class Reduced:
    """What one way took: seconds, CPU seconds of this process, and memory in GB.

    Memory is the largest that any of Ray's processes had, and what this process had in addition to that at the start.
    """

    way: str
    images: int
    megabytes: float
    seconds: float
    cpu: float
    worker_gigabytes: float
    driver_gigabytes: float


def run(images: int) -> list[Reduced]:
    """Write a folder of so many images, and add them up in threads, then with Ray."""
    with tempfile.TemporaryDirectory() as path:
        folder = write_large_folder(Path(path), images, (5,))
        return [measure(folder, way) for way in (HERE, RAY)]


def measure(folder: ResultsFolder, way: str) -> Reduced:
    """Add up a folder."""
    megabytes = sum(part.stat().st_size for part in folder.parts()) / 1e6
    with connected() if way == RAY else contextlib.nullcontext():
        # The peak from here on: whatever this process did before does not count.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before, start, cpu = _peak(Path("/proc/self")), time.perf_counter(), time.process_time()
        totals = total(CountedFiles.of(folder), folder.rule(), on_ray=way == RAY)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        workers = [_peak(process) for process in Path("/proc").glob("[0-9]*") if _is_worker(process)]
        driver = _peak(Path("/proc/self")) - before
        return Reduced(way, totals.images, megabytes, seconds, cpu, max(workers, default=0.0), driver)


def main() -> None:
    """Add up a folder that is written before, or lies there from the last time: a JSON line for each way."""
    path, images = Path(sys.argv[1]), int(sys.argv[2])
    folder = ResultsFolder(path) if path.exists() else write_large_folder(path, images, (5,))
    for way in sys.argv[3:] or (HERE, RAY):
        load = os.getloadavg()[0]
        print(json.dumps(asdict(measure(folder, way)) | {"load": [load, os.getloadavg()[0]]}), flush=True)


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


if __name__ == "__main__":
    main()
