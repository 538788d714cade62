"""Networks that only take time, for `--model benchmarks.segmenters:burning`; they note when they were called.

The notes go to the folder `OODRAY_BENCH_NOTES`: a file per process, a line per image.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from oodray import Segmentation

NOTES, EFFORT = "OODRAY_BENCH_NOTES", "OODRAY_BENCH_EFFORT"
"""Environment variables: where notes go, and what an image takes: so many products of matrices, or seconds of sleep."""

TAU = 1.0
CLASSES, CHANNELS, SIDE = 19, 64, 384


@dataclass(frozen=True)
class Note:
    """A process of the segmenter at the start of an image: the time, and its memory in MB."""

    process: str
    start: float
    megabytes: float


class Projection:
    """Logits and features linear in the colours, at a quarter and a sixteenth of the size."""

    def __init__(self) -> None:
        self.effort = float(os.environ[EFFORT])
        generator = torch.Generator().manual_seed(0)
        self.to_logits = torch.randn(CLASSES, 3, generator=generator) * 4
        self.to_features = torch.randn(CHANNELS, 3, generator=generator)
        self.notes = (Path(os.environ[NOTES]) / str(os.getpid())).open("a", encoding="ascii", buffering=1)

    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        """See `oodray.Segmenter`."""
        return [self._segment(image) for image in images]

    def _segment(self, image: NDArray[np.uint8]) -> Segmentation:
        self.notes.write(f"{time.monotonic()} {own_megabytes()}\n")
        self.take_time()
        colours = torch.from_numpy(image).permute(2, 0, 1) / 255
        maps = (
            torch.einsum("kc,chw->khw", weights, F.adaptive_avg_pool2d(colours, _size(image, stride)))
            for weights, stride in ((self.to_logits, 4), (self.to_features, 16))
        )
        return Segmentation(*maps)

    def take_time(self) -> None:
        """What a network would do here."""
        raise NotImplementedError


class Burning(Projection):
    """The same work for every image, on one thread: so many products of matrices."""

    def take_time(self) -> None:
        """Burn CPU."""
        multiply(round(self.effort))


class Sleeping(Projection):
    """Waits, as a process does for its GPU."""

    def take_time(self) -> None:
        """Sleep."""
        time.sleep(self.effort)


burning, sleeping = Burning, Sleeping


def multiply(rounds: int) -> None:
    """So many products of two matrices."""
    matrix = torch.full((SIDE, SIDE), 1 / SIDE)
    product = matrix
    for _ in range(rounds):
        product = product @ matrix


def rounds_of(seconds: float) -> int:
    """The rounds of `multiply` that take so many seconds of CPU on one thread here."""
    threads, tried = torch.get_num_threads(), 200
    torch.set_num_threads(1)
    multiply(tried)
    start = time.process_time()
    multiply(tried)
    took = time.process_time() - start
    torch.set_num_threads(threads)
    return round(seconds / took * tried)


def read_notes(folder: Path) -> list[Note]:
    """The notes of all processes, in the order of each."""
    return [
        Note(path.name, *map(float, line.split()))
        for path in sorted(folder.iterdir())
        for line in path.read_text(encoding="ascii").splitlines()
    ]


def own_megabytes() -> float:
    """Memory of this process that is its own: neither files that it has mapped, nor Ray's shared store."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("RssAnon"))


def _size(image: NDArray[np.uint8], stride: int) -> tuple[int, int]:
    height, width, _ = image.shape
    return math.ceil(height / stride), math.ceil(width / stride)
