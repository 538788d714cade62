"""AP and FPR95 of very many pixels: tallies against scikit-learn, torchmetrics and a sort in numpy.

Every way runs in a process of its own, so that its peak memory is its own: `python -m benchmarks.large_evaluation WAY
IMAGES` prints it as JSON. Making the scores is not timed. What works image by image never holds more than one image;
the others need all pixels at once, and their memory includes them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

IMAGE_PIXELS = 1280 * 720
BINS = 50  # of the binned way of torchmetrics, whose time grows with them
BINNED_UP_TO = 100e6  # pixels: a few minutes
BYTES_PER_PIXEL = {"scikit-learn": 75, "torchmetrics": 75, "torchmetrics, binned": 20, "numpy sort": 30, "tallies": 0}
"""Roughly what each needs: a way that this machine cannot hold is not tried."""


@dataclass(frozen=True)
class Measured:
    """One way: seconds, peak memory in GB, and the two numbers."""

    way: str
    pixels: int
    seconds: float
    gigabytes: float
    ap: float
    fpr95: float


def run(images: int) -> list[Measured]:
    """Every way that is installed and fits into memory."""
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    ways = [way for way, bytes_ in BYTES_PER_PIXEL.items() if bytes_ * images * IMAGE_PIXELS < available]
    if images * IMAGE_PIXELS > BINNED_UP_TO:
        ways = [way for way in ways if way != "torchmetrics, binned"]
    if importlib.util.find_spec("torchmetrics") is None:
        ways = [way for way in ways if not way.startswith("torchmetrics")]
    return [_in_own_process(way, images) for way in ways]


def _in_own_process(way: str, images: int) -> Measured:
    command = [sys.executable, "-m", "benchmarks.large_evaluation", way, str(images)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Measured(**json.loads(done.stdout))


def image(index: int) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """Scores and labels of an image, about a tenth of it OoD."""
    rng = np.random.default_rng(index)
    labels = (rng.random(IMAGE_PIXELS, np.float32) < 0.1).astype(np.uint8)
    return (rng.standard_normal(IMAGE_PIXELS, np.float32) * 3 - 8 + 2 * labels).astype(np.float16), labels


def tallies(images: int) -> tuple[float, float, float]:
    """Ours: image by image."""
    from oodray.metrics.curves import average_precision, fpr_at_tpr
    from oodray.metrics.score_counts import ScoreCounts
    from oodray.metrics.tally import RunningTally, Tally, score_keys

    total, seconds = RunningTally(), 0.0
    for index in range(images):
        scores, labels = image(index)
        start = time.perf_counter()
        total.add(Tally.of(score_keys(scores), labels))
        seconds += time.perf_counter() - start
    start = time.perf_counter()
    counts = ScoreCounts.of_tally(total.tally()).ranked()
    found = average_precision(*counts), fpr_at_tpr(*counts)
    return (seconds + time.perf_counter() - start, *found)


def _on_all_pixels(
    measure: Callable[[NDArray[np.float16], NDArray[np.uint8]], tuple[float, float]],
) -> Callable[[int], tuple[float, float, float]]:
    def run_it(images: int) -> tuple[float, float, float]:
        scores, labels = np.empty(images * IMAGE_PIXELS, np.float16), np.empty(images * IMAGE_PIXELS, np.uint8)
        for index in range(images):
            part = slice(index * IMAGE_PIXELS, (index + 1) * IMAGE_PIXELS)
            scores[part], labels[part] = image(index)
        start = time.perf_counter()
        found = measure(scores, labels)
        return (time.perf_counter() - start, *found)

    return run_it


def scikit_learn(scores: NDArray[np.float16], labels: NDArray[np.uint8]) -> tuple[float, float]:
    """As most evaluators do."""
    from sklearn.metrics import average_precision_score, roc_curve

    values = scores.astype(np.float32)
    fpr, tpr, _ = roc_curve(labels, values)
    return float(average_precision_score(labels, values)), float(fpr[np.argmax(tpr >= 0.95)])


def torchmetrics(
    scores: NDArray[np.float16], labels: NDArray[np.uint8], bins: int | None = None
) -> tuple[float, float]:
    """Exact, or on equal bins over the range of the scores, as its thresholds lie within 0..1."""
    import torch
    from torchmetrics.functional.classification import binary_average_precision, binary_roc

    values = scores.astype(np.float32)
    low, high = values.min(), values.max()
    # Within 0..1, or it takes a sigmoid of them.
    preds, target = torch.from_numpy((values - low) / (high - low)), torch.from_numpy(labels)
    fpr, tpr, _ = binary_roc(preds, target.long(), thresholds=bins)
    ap = binary_average_precision(preds, target.long(), thresholds=bins)
    return float(ap), float(fpr[torch.nonzero(tpr >= 0.95)[0, 0]])


def numpy_sort(scores: NDArray[np.float16], labels: NDArray[np.uint8]) -> tuple[float, float]:
    """The two classes sorted, and counted at every distinct score."""
    ood, ind = np.sort(-scores[labels == 1]), np.sort(-scores[labels == 0])
    distinct = np.unique(ood)
    true_positives = np.searchsorted(ood, distinct, side="right")
    false_positives = np.searchsorted(ind, distinct, side="right")
    precision = true_positives / (true_positives + false_positives)
    ap = float(np.sum(np.diff(true_positives, prepend=0) * precision) / len(ood))
    first = np.argmax(true_positives * 20 >= 19 * len(ood))
    return ap, float(false_positives[first] / len(ind))


WAYS: dict[str, Callable[[int], tuple[float, float, float]]] = {
    "tallies": tallies,
    "scikit-learn": _on_all_pixels(scikit_learn),
    "torchmetrics": _on_all_pixels(torchmetrics),
    "torchmetrics, binned": _on_all_pixels(lambda scores, labels: torchmetrics(scores, labels, BINS)),
    "numpy sort": _on_all_pixels(numpy_sort),
}


def main() -> None:
    """Measure the way named on the command line."""
    way, images = sys.argv[1], int(sys.argv[2])
    seconds, ap, fpr95 = WAYS[way](images)
    # Not getrusage, whose peak a process has from the one that started it.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e9
    pixels = images * IMAGE_PIXELS
    found = {"way": way, "pixels": pixels, "seconds": seconds, "gigabytes": peak, "ap": ap, "fpr95": fpr95}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
