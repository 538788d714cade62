"""Where novelty breaks: `python -m benchmarks.research.breaks SET NETWORK`, after `benchmarks.research.features`.

few        random subsets of so many images
dominant   images with one kind of object, which is in a growing share of the run (a `pasted` set)
copies     images that are each there ten times, with noise, and with a gap that leaves the copies out
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.research.candidates import Maps, added, z
from benchmarks.research.measures import Measured, measure
from benchmarks.research.neighbours import search

KINDS, COPIES, DRAWS = 8, 10, 3


class Small:
    """A set at the size of its feature grid times four: enough for what is asked here."""

    def __init__(self, path: Path, bank: int) -> None:
        of = np.load(path)
        self.features, self.bank = of["features"].astype(np.float32), bank
        height, width = self.features.shape[2] * 4, self.features.shape[3] * 4
        rows = (2 * np.arange(height) + 1) * of["label"].shape[1] // (2 * height)
        columns = (2 * np.arange(width) + 1) * of["label"].shape[2] // (2 * width)
        self.labels = of["label"][:, rows][:, :, columns]
        logits = [torch.from_numpy(logit.astype(np.float32))[None] for logit in of["logits"]]
        self.unsure = np.stack([-self._resized(logit)[0].amax(0).numpy() for logit in logits])

    def _resized(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(maps, self.labels.shape[1:], mode="bilinear")

    def novelty(self, images: NDArray[np.intp], features: NDArray[np.float32] | None = None, gap: int = 0) -> Maps:
        """Of some images, compared with each other alone."""
        chosen = self.features[images] if features is None else features
        distance = torch.from_numpy(search(chosen, self.bank, gap).mean())[:, None]
        return added(z(list(self.unsure[images])), z(list(self._resized(distance)[:, 0].numpy())))

    def measured(self, images: NDArray[np.intp], maps: Maps, of: NDArray[np.bool_] | None = None) -> Measured:
        """Over all images, or over some of them."""
        labels = self.labels[images]
        counted = np.ones(len(images), np.bool_) if of is None else of
        return measure([maps[at] for at in np.flatnonzero(counted)], list(labels[counted]))

    def both(self, what: str, images: NDArray[np.intp], of: NDArray[np.bool_] | None = None) -> None:
        """Print max-logit and novelty."""
        plain = self.measured(images, list(self.unsure[images]), of)
        print(f"{what:34} max-logit {plain}  novelty {self.measured(images, self.novelty(images), of)}", flush=True)


def few(of: Small) -> None:
    """Random subsets."""
    for count in (3, 5, 10, 20, 40, len(of.labels)):
        for draw in range(DRAWS if count < len(of.labels) else 1):
            images = np.sort(np.random.default_rng([count, draw]).permutation(len(of.labels))[:count])
            of.both(f"few: {count} images, draw {draw}", images)


def dominant(of: Small) -> None:
    """The images of the first kind, among ever more of the others."""
    everything = np.arange(len(of.labels))
    ours, others = everything[everything % KINDS == 0], everything[everything % KINDS != 0]
    for share in (1.0, 0.5, 0.25, len(ours) / len(everything)):
        images = np.sort(np.concatenate([ours, others[: round(len(ours) / share) - len(ours)]]))
        of.both(f"dominant: in {share:.0%} of the images", images, images % KINDS == 0)


def copies(of: Small) -> None:
    """Five images, each ten times, among forty others."""
    random = np.random.default_rng(0)
    chosen = np.arange(5) * (len(of.labels) // 5)
    others = np.setdiff1d(np.arange(len(of.labels)), chosen)[:40]
    images = np.concatenate([np.repeat(chosen, COPIES), others])
    features = of.features[images]
    noise = random.normal(0, 0.05, features.shape).astype(np.float32) * features.std((0, 2, 3), keepdims=True)
    copied = np.isin(images, chosen)
    of.both("copies: each once", np.concatenate([chosen, others]), np.isin(np.concatenate([chosen, others]), chosen))
    for gap in (0, COPIES):
        maps = of.novelty(images, features + noise, gap)
        print(f"copies: ten times, gap {gap:<12} novelty {of.measured(images, maps, copied)}", flush=True)


def main() -> None:
    """Print all three."""
    parser = argparse.ArgumentParser()
    parser.add_argument("set")
    parser.add_argument("network")
    parser.add_argument("--bank", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path("work_dirs/novelty"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    of = Small(arguments.out / f"{arguments.set}.{arguments.network}.npz", arguments.bank)
    few(of)
    if arguments.set.startswith("pasted"):
        dominant(of)
    copies(of)


if __name__ == "__main__":
    main()
