"""The executors against a bare loop over the same functions: `python -m benchmarks.stream` writes RESULTS-STREAM.md.

About forty minutes; `python -m benchmarks.stream DIR` also compares whole commands with those of another checkout. Ways
are taken in turn, each run in a process of its own. What is compared is the time after start-up, see `Measured`.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Protocol

from PIL import Image

from benchmarks import startup
from benchmarks.one_run import Measured, measure
from benchmarks.segmenters import rounds_of
from benchmarks.timing import machine
from oodray.datasets.demo.scenes import render_scene

RESULTS = Path(__file__).parent / "RESULTS-STREAM.md"

PAIRS, PAIRS_OF_SLEEP = 5, 2
IMAGES, FEW, MANY = 40, 60, 600
SCENES = 12
BURNT_SECONDS = 0.3
SLEPT_SECONDS = 0.05
SLEPT = {SLEPT_SECONDS: (1200, "at least 3.6x"), 0.2: (400, "")}
"""By the seconds that an image sleeps: how many images, and the goal."""

LARGE, SMALL = (320, 640), (96, 128)  # height, width


class Way(Protocol):
    """A run of a dataset."""

    def __call__(self) -> Measured:
        """Make it."""
        ...


@dataclass(frozen=True)
class Pairs:
    """Runs of two ways, in turn."""

    ours: list[Measured]
    theirs: list[Measured]

    def speedups(self) -> list[float]:
        """How many times as fast ours is, for each pair."""
        return [our.rate / their.rate for our, their in zip(self.ours, self.theirs, strict=True)]


def run(pairs: int = PAIRS, images: int = IMAGES, many: int = MANY, before: Path | None = None) -> str:
    """Measure everything; gives the results, as Markdown. `before` is a checkout to compare whole commands with."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        comparisons = [*_burning(place / "large", images, pairs), *_sleeping(place, PAIRS_OF_SLEEP)]
        memory = _memory(place, many)
    return "\n".join([*_heading(), *comparisons, *memory, "", *startup.run(), "", *startup.commands(before)])


def _heading() -> list[str]:
    return [
        "# The stream",
        "",
        f"Written by `make bench-stream`, {machine()}.",
        "",
        f"Segmenters that take time alone: one burns {BURNT_SECONDS} s of CPU an image, in products of matrices on one "
        f"thread, images of {LARGE[1]}x{LARGE[0]}; one sleeps, images of "
        f"{SMALL[1]}x{SMALL[0]}. The loop calls the stages, with one thread (decode, segment, cluster, tallies, PNG, "
        "file) one after the other in one process, and writes the same files. Measured after start-up: from when every "
        "worker has had a first image to the last file; in the stream the first units have been decoded by then. Each "
        "run in a process of its own, both ways in turn, medians; the ratio is the median of the pairs' ratios, in "
        "brackets the least and the greatest. CPU is that of the process and all its children, Ray's too, which go on "
        "starting for some seconds. Busy: the share of the workers' time in which they segment or cluster.",
        "",
        "| what | ours | against | ratio | goal | CPU an image | busy |",
        "|---|---|---|---|---|---|---|",
    ]


def _burning(root: Path, images: int, pairs: int) -> list[str]:
    _write_images(root, images, LARGE)
    way = partial(measure, segmenter="burning", root=root, effort=rounds_of(BURNT_SECONDS))
    loop = partial(way, "loop")
    two = _in_turn(partial(way, "ray", workers=2, cores=2), partial(loop, cores=2), pairs)
    one = _in_turn(partial(way, "ray", cores=1), partial(loop, cores=1), pairs)
    local_two = _in_turn(partial(way, "local", threads=2, cores=2), partial(loop, cores=2), pairs)
    local_one = _in_turn(partial(way, "local", cores=1), partial(loop, cores=1), pairs)
    return [
        _row(f"`local`: {images} images, 2 threads on 2 cores", "loop", local_two, "at least 1.6x"),
        _row(f"`local`: {images} images, 1 thread on 1 core", "loop", local_one, "at least 0.93x"),
        _row(f"`ray`: {images} images, 2 workers on 2 cores", "loop", two, "at least 1.6x"),
        _row(f"`ray`: {images} images, 1 worker on 1 core", "loop", one, "at least 0.93x"),
    ]


def _sleeping(place: Path, pairs: int) -> list[str]:
    rows = []
    for seconds, (images, goal) in SLEPT.items():
        root = place / f"small-{images}"
        _write_images(root, images, SMALL)
        way = partial(measure, "ray", "sleeping", root, effort=seconds)
        found = _in_turn(partial(way, workers=4, gpus=4), partial(way, workers=1, gpus=1), pairs)
        what = f"{images} images, {seconds * 1000:.0f} ms of sleep, 4 declared GPUs"
        rows.append(_row(what, "1 declared GPU", found, goal))
    return rows


def _memory(place: Path, many: int) -> list[str]:
    """Of the worker and of the driver, for few images and for many."""
    rows = []
    for height, width in (SMALL, LARGE):
        found = []
        for images in (FEW, many):
            root = place / f"memory-{width}-{images}"
            _write_images(root, images, (height, width))
            found.append(measure("ray", "sleeping", root, effort=SLEPT_SECONDS))
        few, most = found
        rows += [
            (f"worker, images of {width}x{height}", few.worker_megabytes, most.worker_megabytes),
            (f"driver, images of {width}x{height}", few.driver_megabytes, most.driver_megabytes),
        ]
    return [
        "",
        f"Memory of its own of the process, the most there was; {many} images lie in units of 8, {FEW} in units of 1:",
        "",
        f"| process | {FEW} images | {many} images | ratio | goal |",
        "|---|---|---|---|---|",
        *(f"| {name} | {a:.0f} MB | {b:.0f} MB | **{b / a:.3f}** | at most 1.1 |" for name, a, b in rows),
    ]


def _in_turn(ours: Way, theirs: Way, pairs: int) -> Pairs:
    found = [(ours(), theirs()) for _ in range(pairs)]
    return Pairs([our for our, _ in found], [their for _, their in found])


def _row(what: str, against: str, pairs: Pairs, goal: str) -> str:
    speedups = sorted(pairs.speedups())
    ours, theirs = (median(each.rate for each in runs) for runs in (pairs.ours, pairs.theirs))
    cpus = (median(each.cpu_seconds for each in runs) * 1000 for runs in (pairs.ours, pairs.theirs))
    busy = median(each.busy_share for each in pairs.ours)
    cpu = " / ".join(f"{each:.0f} ms" for each in cpus)
    rates = f"{ours:.2f} images/s | {against}: {theirs:.2f} images/s"
    ratio = f"**{median(speedups):.2f}x** ({speedups[0]:.2f} to {speedups[-1]:.2f})"
    return f"| {what} | {rates} | {ratio} | {goal} | {cpu} | {busy:.1%} |"


def _write_images(root: Path, images: int, size: tuple[int, int]) -> None:
    """A dataset in the layout `folder`: the first scenes of the demo, over and over."""
    height, width = size
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for index in range(min(images, SCENES)):
        scene = render_scene(index, split="demo", height=height, width=width)
        Image.fromarray(scene.image).save(root / f"images/{index:04}.png")
        Image.fromarray(scene.label).save(root / f"labels/{index:04}.png")
    for index in range(SCENES, images):
        for kind in ("images", "labels"):
            shutil.copy(root / f"{kind}/{index % SCENES:04}.png", root / f"{kind}/{index:04}.png")


if __name__ == "__main__":
    text = run(before=Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    RESULTS.write_text(text + "\n", encoding="utf-8")
    print(text)
