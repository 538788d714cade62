"""A run of very many small images, watched: `python -m benchmarks.scale [IMAGES] [--to DIR]` writes RESULTS-SCALE.md.

Procedural images of 64x64 pixels in tar shards, without labels, and a network that costs next to nothing, so that what
is seen is what oodray and Ray take. The run is killed at 70 % of its images and started again by the same command.
Every few seconds it is noted how many images are done, what each kind of process holds in memory, and the CPU time of
the driver. Afterwards `status` and `evaluate` are timed. With 200,000 images about half an hour on two idle cores.

What was noted is kept in DIR/scale.json: `--write DIR` writes the page and the plot from it again.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import platform
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGES, SIDE, IMAGES_OF_A_SHARD = 200_000, 64, 5000

KILLED_AT = 0.7
"""Share of the images that are done when all processes of the run are killed."""

SECONDS_BETWEEN_LOOKS = 5.0

STEADY = (0.1, 0.65)
"""Between these shares of the images, rates are measured: all processes have started, and nothing was killed yet."""

OPTIONS = {
    "dataset": "webdataset",
    "model": "benchmarks.scale:cheap_network",
    "tau": "1.0",
    "threads": "1",
    "workers": "2",
    "batch-size": "64",
    "regions": "grid",
    "scores": "ratio,max-logit",
}

TICKS = os.sysconf("SC_CLK_TCK")


class CheapNetwork:
    """Two classes from the brightness, and colours as features, at a quarter of the size."""

    def segment(self, images: list[NDArray[np.uint8]]) -> list[Any]:
        """Of each image `(2, h/4, w/4)` logits and `(3, h/16, w/16)` features."""
        import torch

        from oodray import Segmentation

        found = []
        for image in images:
            height, width, _ = image.shape
            quarter = image.reshape(height // 4, 4, width // 4, 4, 3).mean((1, 3), dtype=np.float32) / 255
            coarse = quarter.reshape(height // 16, 4, width // 16, 4, 3).mean((1, 3))
            bright = quarter.mean(2)
            logits = np.stack([8 * bright - 4, 4 - 8 * bright]) + quarter[..., 0]
            found.append(Segmentation(torch.from_numpy(logits), torch.from_numpy(coarse.transpose(2, 0, 1).copy())))
        return found


def cheap_network() -> CheapNetwork:
    """The factory that `--model` names."""
    return CheapNetwork()


def image(index: int) -> NDArray[np.uint8]:
    """A gradient of noisy blocks with two rectangles, `(64, 64, 3)`, of a number."""
    rng = np.random.default_rng(index)
    start, end = rng.integers(40, 216, (2, 1, 1, 3))
    ramp = np.linspace(0, 1, SIDE // 4)[None, :, None]
    blocks = start * (1 - ramp) + end * ramp + rng.integers(-40, 40, (SIDE // 4, SIDE // 4, 3))
    pixels = blocks.astype(np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    for _ in range(2):
        top, left, height, width = rng.integers(4, 40, 4)
        pixels[top : top + height, left : left + width] = rng.integers(0, 256, 3)
    return np.asarray(pixels, np.uint8)


def write_images(root: Path, count: int) -> None:
    """Tar shards of images, unless they are there."""
    from PIL import Image

    root.mkdir(parents=True, exist_ok=True)
    for shard, first in enumerate(range(0, count, IMAGES_OF_A_SHARD)):
        target = root / f"{shard:05d}.tar"
        if target.exists():
            continue
        with tarfile.open(target.with_suffix(".part"), "w") as tar:
            for index in range(first, min(first + IMAGES_OF_A_SHARD, count)):
                content = io.BytesIO()
                Image.fromarray(image(index)).save(content, "png", compress_level=1)
                entry = tarfile.TarInfo(f"{index:09d}.png")
                entry.size = content.tell()
                content.seek(0)
                tar.addfile(entry, content)
        target.with_suffix(".part").replace(target)


@dataclass(frozen=True)
class Look:
    """What was seen at a moment.

    Attributes:
        seconds: since the first start, without the time between the kill and the second start.
        images: done.
        driver: MB of memory of its own.
        workers: the same of all workers together.
        ray: the same of Ray's own processes.
        driver_cpu: seconds, of this start.
        ray_cpu: the same of Ray's own processes.
        files: of results, hidden ones included.
        load: of the machine.
    """

    seconds: float
    images: int
    driver: float
    workers: float
    ray: float
    driver_cpu: float
    ray_cpu: float
    files: int
    load: float


@dataclass
class Story:
    """All that was noted of a run."""

    images: int
    machine: str
    looks: list[Look] = field(default_factory=list)
    killed_at: int = 0
    resumed_seconds: float = 0.0
    run_seconds: float = 0.0
    files: int = 0
    bytes: int = 0
    status_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    evaluate_megabytes: float = 0.0


def watch(command: list[str], out: Path, story: Story, until: float, before: float) -> float:
    """Start a command, look at it until so many images are done or it ends; gives its seconds.

    It is killed, with all its processes, where so many images are fewer than all.
    """
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    done = images_done(out)
    first_done = done
    while process.poll() is None:
        time.sleep(SECONDS_BETWEEN_LOOKS if done > first_done or not first_done else 0.2)
        done = images_done(out)
        seconds = time.monotonic() - started
        if first_done and not story.resumed_seconds and done > first_done:
            story.resumed_seconds = seconds
        if not story.looks or before + seconds - story.looks[-1].seconds >= SECONDS_BETWEEN_LOOKS:
            story.looks.append(look(process.pid, before + seconds, done, out))
        if done >= until * story.images:
            story.killed_at = done
            for pid in [process.pid, *descendants(process.pid)]:
                with_pid_killed(pid)
            process.wait()
            return time.monotonic() - started
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return time.monotonic() - started


def images_done(out: Path) -> int:
    """Images that have rows, by the names of files and the manifest."""
    from oodray.datasets.manifest import read_manifest
    from oodray.errors import OodrayError
    from oodray.results.folder import ResultsFolder
    from oodray.results.reading import finished_units

    folder = ResultsFolder(out)
    try:
        units = finished_units(folder)
        sizes = np.bincount(read_manifest(folder.manifest)["unit"].to_numpy()) if units else np.zeros(0, int)
    except OodrayError:  # it is being written
        return 0
    return int(sizes[sorted(units)].sum()) if units else 0


def look(driver: int, seconds: float, done: int, out: Path) -> Look:
    """See `Look`."""
    workers: list[int] = []
    rays: list[int] = []
    for pid in descendants(driver):
        (workers if command_line(pid).startswith("ray::") else rays).append(pid)
    return Look(
        seconds=round(seconds, 1),
        images=done,
        driver=own_megabytes(driver),
        workers=sum(map(own_megabytes, workers)),
        ray=sum(map(own_megabytes, rays)),
        driver_cpu=cpu_seconds(driver),
        ray_cpu=sum(map(cpu_seconds, rays)),
        files=sum(1 for path in (out / "results").rglob("*.parquet") if path.is_file()),
        load=os.getloadavg()[0],
    )


def descendants(pid: int) -> list[int]:
    """All processes that a process has started, directly or not; Ray's own are detached, so their group counts."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            stat = _stat(int(entry.name))
            if stat:
                parents[int(entry.name)] = int(stat[1])
    found: set[int] = set()
    more = {pid}
    while more:
        more = {child for child, parent in parents.items() if parent in more} - found
        found |= more
    return sorted(found)


def with_pid_killed(pid: int) -> None:
    """Kill a process, if it is there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []


def cpu_seconds(pid: int) -> float:
    """CPU time of a process."""
    stat = _stat(pid)
    return (int(stat[11]) + int(stat[12])) / TICKS if stat else 0.0


def own_megabytes(pid: int) -> float:
    """Memory that a process shares with no other, in MB."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1000


def command_line(pid: int) -> str:
    """With which a process was started."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").replace("\0", " ")
    except OSError:
        return ""


def measure(folder: Path, count: int) -> Story:
    """Make the images, run, kill, run, and time what reads the result."""
    write_images(folder / "images", count)
    out = folder / "out"
    options = [text for name, value in OPTIONS.items() for text in (f"--{name}", value)]
    command = [sys.executable, "-m", "oodray", "run", *options, "--root", str(folder / "images"), "--out", str(out)]
    story = Story(count, f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    first = watch(command, out, story, KILLED_AT, 0.0)
    _keep(folder, story)
    story.run_seconds = first + watch(command, out, story, math.inf, first)
    _keep(folder, story)
    parts = [path for path in (out / "results").rglob("*.parquet") if path.is_file()]
    story.files, story.bytes = len(parts), sum(path.stat().st_size for path in parts)
    story.status_seconds, _ = timed([sys.executable, "-m", "oodray", "status", str(out)])
    story.evaluate_seconds, story.evaluate_megabytes = timed([sys.executable, "-m", "oodray", "evaluate", str(out)])
    _keep(folder, story)
    return story


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds of a command, and the most memory of its own process, in MB."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, own_megabytes(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return time.monotonic() - start, peak


def _keep(folder: Path, story: Story) -> None:
    (folder / "scale.json").write_text(json.dumps(asdict(story)), encoding="utf-8")


def main() -> None:
    """Measure, or write the page of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="?", type=int, default=IMAGES)
    parser.add_argument("--to", type=Path, default=Path("runs/scale"))
    parser.add_argument("--write", type=Path, help="Write the page from DIR/scale.json.")
    asked = parser.parse_args()
    from benchmarks.scale_page import write_page

    if asked.write is None:
        measure(asked.to, asked.images)
    write_page(json.loads((asked.write or asked.to).joinpath("scale.json").read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
