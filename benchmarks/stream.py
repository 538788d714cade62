"""The stream against a bare loop over the same functions: `python -m benchmarks.stream`, about half an hour.

Both ways in turn, each run in a process of its own. What is compared is the time after start-up, see `Measured`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Protocol

from PIL import Image

from benchmarks import startup
from benchmarks.one_run import Measured, measure
from benchmarks.segmenters import SLEEP_SECONDS, rounds_of
from oodray.datasets.scenes import render_scene

PAIRS = 3
IMAGES, SLEPT_IMAGES, FEW, MANY = 300, 1200, 60, 600
SCENES = 12
BURNT_SECONDS = 0.3
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

    def speedup(self) -> float:
        """How many times as fast ours is: the median of the pairs' ratios."""
        return median(their.seconds / our.seconds for our, their in zip(self.ours, self.theirs, strict=True))


def run(pairs: int = PAIRS, images: int = IMAGES, slept: int = SLEPT_IMAGES, many: int = MANY) -> str:
    """Measure everything; gives the section of the results, as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        comparisons = [*_burning(place / "large", images, pairs), _sleeping(place / "small", slept, pairs)]
        memory = _memory(place, many)
    return "\n".join([*_heading(), *comparisons, *memory, "", *startup.run()])


def _heading() -> list[str]:
    return [
        "## The stream",
        "",
        f"Segmenters that take time alone: one burns {BURNT_SECONDS} s of CPU an image, in products of matrices on one "
        f"thread, images of {LARGE[1]}x{LARGE[0]}; one sleeps {SLEEP_SECONDS * 1000:.0f} ms, images of "
        f"{SMALL[1]}x{SMALL[0]}. The loop calls the stream's own functions (decode, segment, cluster, tallies, PNG, "
        "file) one after the other in one process, and writes the same files. After start-up: from when a first image "
        "reaches a network to the last file; in the stream the first units have been decoded by then. Each run in a "
        "process of its own, both ways in turn, medians; the ratio is the median of the pairs' ratios. CPU is that of "
        "the process and all its children, Ray's too. Busy: the share of the workers' time in which they segment or "
        "cluster. "
        f"At a load of {os.getloadavg()[0]:.1f} in the end, {os.cpu_count()} cores.",
        "",
        "| what | ours | against | ratio | goal | CPU an image | busy |",
        "|---|---|---|---|---|---|---|",
    ]


def _burning(root: Path, images: int, pairs: int) -> list[str]:
    _write_images(root, images, LARGE)
    way = partial(measure, segmenter="burning", root=root, rounds=rounds_of(BURNT_SECONDS))
    two = _in_turn(partial(way, "stream", workers=2, cores=2), partial(way, "loop", cores=2), pairs)
    one_of_two = _in_turn(partial(way, "stream", cores=2), partial(way, "loop", cores=2), pairs)
    one = _in_turn(partial(way, "stream", cores=1), partial(way, "loop", cores=1), pairs)
    return [
        _row(f"{images} images, 2 workers on 2 cores", "loop", two, f"{two.speedup():.2f}x", "at least 1.6x"),
        _row(f"{images} images, 1 worker on 2 cores", "loop", one_of_two, f"{one_of_two.speedup():.2f}x", "busy 95 %"),
        _row(
            f"{images} images, 1 worker on 1 core", "loop", one, f"{1 / one.speedup():.2f} of the time", "at most 1.08"
        ),
    ]


def _sleeping(root: Path, images: int, pairs: int) -> str:
    _write_images(root, images, SMALL)
    way = partial(measure, "stream", "sleeping", root)
    found = _in_turn(partial(way, workers=4, gpus=4), partial(way, workers=1, gpus=1), pairs)
    what = f"{images} images, 4 declared GPUs"
    return _row(what, "1 declared GPU", found, f"{found.speedup():.2f}x", "at least 3.6x")


def _memory(place: Path, many: int) -> list[str]:
    """Of the worker and of the driver, for few images and for many."""
    found = []
    for images in (FEW, many):
        root = place / f"memory-{images}"
        _write_images(root, images, LARGE)
        found.append(measure("stream", "sleeping", root))
    few, most = found
    parts = [
        ("worker", few.worker_megabytes, most.worker_megabytes),
        ("driver", few.driver_megabytes, most.driver_megabytes),
    ]
    return [
        "",
        f"Memory of its own of the process, the most there was, images of {LARGE[1]}x{LARGE[0]}:",
        "",
        f"| process | {FEW} images | {many} images | ratio | goal |",
        "|---|---|---|---|---|",
        *(f"| {name} | {a:.0f} MB | {b:.0f} MB | **{b / a:.3f}** | at most 1.1 |" for name, a, b in parts),
    ]


def _in_turn(ours: Way, theirs: Way, pairs: int) -> Pairs:
    found = [(ours(), theirs()) for _ in range(pairs)]
    return Pairs([our for our, _ in found], [their for _, their in found])


def _row(what: str, against: str, pairs: Pairs, ratio: str, goal: str) -> str:
    ours, theirs = (median(each.seconds for each in runs) for runs in (pairs.ours, pairs.theirs))
    cpus = (median(each.cpu_seconds for each in runs) * 1000 for runs in (pairs.ours, pairs.theirs))
    busy = median(each.busy_share for each in pairs.ours)
    cpu = " / ".join(f"{each:.0f} ms" for each in cpus)
    return f"| {what} | {ours:.1f} s | {against}: {theirs:.1f} s | **{ratio}** | {goal} | {cpu} | {busy:.1%} |"


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
    print(run())
