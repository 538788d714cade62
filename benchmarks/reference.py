"""A run with and without a reference of its own: `python -m benchmarks.reference` writes RESULTS-REFERENCE.md.

Procedural images, small, and a network that costs next to nothing, so that what is added shows. Each run is a command
in a process of its own.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from benchmarks.segmenters import own_megabytes
from benchmarks.timing import machine
from oodray import Segmentation
from oodray.datasets.demo.scenes import render_scene

RESULTS = Path(__file__).parent / "RESULTS-REFERENCE.md"
NOTES = "OODRAY_BENCH_MEMORY"
IMAGES, SCENES, HEIGHT, WIDTH = 2000, 48, 96, 192
CLASSES, FEATURES, STRIDE = 19, 128, 8


class Cheap:
    """Logits and features linear in the colours; it notes the memory of its process."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.to_logits = 4 * torch.randn(CLASSES, 3, generator=generator)
        self.to_features = torch.randn(FEATURES, 3 * STRIDE * STRIDE, generator=generator)
        self.note = Path(os.environ[NOTES]) / str(os.getpid())

    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        """See `oodray.Segmenter`."""
        self.note.write_text(str(own_megabytes()), encoding="ascii")
        return [self._segment(image) for image in images]

    def _segment(self, image: NDArray[np.uint8]) -> Segmentation:
        colours = torch.from_numpy(image).permute(2, 0, 1) / 255
        size = image.shape[0] // STRIDE, image.shape[1] // STRIDE
        patches = F.unfold(colours[None], STRIDE, stride=STRIDE)[0]
        logits = torch.einsum("kc,chw->khw", self.to_logits, F.adaptive_avg_pool2d(colours, size))
        return Segmentation(logits, (self.to_features @ patches).view(FEATURES, *size))


def cheap() -> Cheap:
    """For `--model benchmarks.reference:cheap`."""
    return Cheap()


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        seconds: from start to end.
        cpu_seconds: of all its processes.
        worker: MB of its own that a process with the network had at the start of its last image, the most.
    """

    seconds: float
    cpu_seconds: float
    worker: float


def measure(root: Path, out: Path, *options: str) -> Cost:
    """Run a command."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with tempfile.TemporaryDirectory() as notes:
        command = [sys.executable, "-m", "oodray", "run", "--dataset", "folder", "--root", str(root / "images")]
        command += [
            "--model",
            "benchmarks.reference:cheap",
            "--tau",
            "1",
            "--threads",
            "1",
            "--out",
            str(out),
            *options,
        ]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {NOTES: notes})
        worker = max(float(path.read_text()) for path in Path(notes).iterdir())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(time.monotonic() - start, cpu, worker)


def run(images: int = IMAGES) -> str:
    """Measure; gives the results, as Markdown."""
    lines = [
        "# A reference of the run's own",
        "",
        f"Written by `python -m benchmarks.reference`, {machine()}. {images} procedural images of {WIDTH}x{HEIGHT}, a "
        f"network that costs next to nothing, {FEATURES} features on {images * HEIGHT * WIDTH // STRIDE**2:,} "
        "positions, of which the bank holds 100,000. Whole commands, start included; CPU is that of all their "
        "processes. Memory is that of a worker's own: what lies in Ray's object store is there once for a node.",
        "",
        "| executor | --fit | images/s | CPU an image | a worker's memory |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root / "images", images)
        for executor in ("local", "ray"):
            for name, options in WAYS.items():
                workers = ("--workers", "2") if executor == "ray" else ()
                found = measure(root, root / "out", "--executor", executor, *workers, *options)
                shutil.rmtree(root / "out")
                of_image = f"{images / found.seconds:.1f} | {1000 * found.cpu_seconds / images:.0f} ms"
                lines.append(f"| {executor} | {name} | {of_image} | {found.worker:.0f} MB |")
                print(lines[-1], flush=True)
    return "\n".join(lines)


WAYS = {
    "none": (),
    "self, features kept": ("--fit", "self"),
    "self, features computed again": ("--fit", "self", "--keep-features-gb", "0"),
}


def write_images(root: Path, images: int) -> None:
    """The first scenes of the demo, small, each many times with another noise."""
    root.mkdir()
    random = np.random.default_rng(0)
    scenes = [render_scene(index, split="demo", height=HEIGHT, width=WIDTH).image for index in range(SCENES)]
    for index in range(images):
        noisy = scenes[index % SCENES] + random.normal(0, 6, (HEIGHT, WIDTH, 3))
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(root / f"{index:05}.png", compress_level=1)


if __name__ == "__main__":
    RESULTS.write_text(run() + "\n", encoding="utf-8")
