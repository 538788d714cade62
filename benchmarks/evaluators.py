"""Importing 60 score maps and seven conventions of them, beside what other evaluators take for one.

Every way runs in a process of its own, `python -m benchmarks.evaluators WAY KIND DATA`, which prints CPU seconds, of
the user and of the system, from reading the maps to the numbers; loading packages is not counted. Maps are `.npy` files
of float32 of 1280x720, beside labels as PNG; `float16` are rounded to it, so that many are equal, `float32` are all
different. Packages that are not installed are left out.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

IMAGES = 60
SIZE = (720, 1280)
LIKE = ("smiyc", "fishyscapes", "ade-ood", "ood-metrics", "pebal", "bravo", "mask2anomaly")
KINDS = ("float16", "float32")
PACKAGES = {
    "scikit-learn": "sklearn",
    "ood-metrics": "ood_metrics",
    "torchmetrics": "torchmetrics",
    "pytorch-ood": "pytorch_ood",
}

Frame = tuple[NDArray[np.float32], NDArray[np.uint8]]


@dataclass(frozen=True)
class Measured:
    """One way: CPU seconds, the peak of its memory in GB, and the AP and FPR95 that it finds."""

    way: str
    kind: str
    cpu: float
    gigabytes: float
    ap: float
    fpr95: float


def run(data: Path) -> list[Measured]:
    """Every way that is installed, on both kinds of maps; these are written to `data` where they are not there yet."""
    found = []
    for kind in KINDS:
        write_maps(data, kind)
        for way in WAYS:
            if way in PACKAGES and importlib.util.find_spec(PACKAGES[way]) is None:
                continue
            command = [sys.executable, "-m", "benchmarks.evaluators", way, kind, str(data)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(Measured(**json.loads(done.stdout.splitlines()[-1])))
    return found


def write_maps(data: Path, kind: str) -> None:
    """Images, labels of which a tenth is OoD, and the maps of a method that is right more often than not."""
    for folder in ("images", "labels", kind):
        (data / folder).mkdir(parents=True, exist_ok=True)
    for index in range(IMAGES):
        target = data / kind / f"{index:03}.npy"
        if target.exists():
            continue
        random = np.random.default_rng(index)
        smooth = ndimage.gaussian_filter(random.standard_normal(SIZE, np.float32), 40)
        labels = (smooth > np.quantile(smooth, 0.9)).astype(np.uint8)
        noise = ndimage.gaussian_filter(random.standard_normal(SIZE, np.float32), 6) * 12
        scores = (noise + 0.8 * labels + 0.3 * random.standard_normal(SIZE, np.float32)).astype(np.float32)
        Image.fromarray(labels).save(data / "labels" / f"{index:03}.png")
        Image.new("RGB", SIZE[::-1]).save(data / "images" / f"{index:03}.jpg")
        np.save(target, scores.astype(np.float16).astype(np.float32) if kind == "float16" else scores)


def frames(data: Path, kind: str) -> Iterator[Frame]:
    """The maps and the labels, one after the other."""
    for path in sorted((data / kind).glob("*.npy")):
        yield np.load(path), np.asarray(Image.open(data / "labels" / f"{path.stem}.png"))


def oodray(data: Path, kind: str) -> tuple[float, float]:
    """Ours: import and evaluate, under the default convention and seven others."""
    from oodray.analysis.evaluation import evaluate_run
    from oodray.job.importing import import_scores, make_import
    from oodray.metrics.evaluators import LIKE as CONVENTIONS
    from oodray.results.folder import ResultsFolder

    with tempfile.TemporaryDirectory() as out:
        folder = ResultsFolder(Path(out) / "run")
        import_scores(make_import("folder", data, data / kind, score="s"), folder, lambda _: None)
        evaluation = evaluate_run(folder, [CONVENTIONS[name] for name in LIKE])
    first = evaluation.scores[0]
    return first.ap, first.fpr95


def smiyc(data: Path, kind: str) -> tuple[float, float]:
    """The pixel metric of SegmentMeIfYouCan as its code has it (commit 1c7804e), in numpy: 768 bins a frame."""
    thresholds, ood, ind = [], [], []
    for scores, labels in frames(data, kind):
        counted = labels < 255
        stored, truth = scores.astype(np.float16)[counted], labels[counted].astype(bool)
        of_ood, of_ind = stored[truth], stored[~truth]
        edges = [np.array([float(stored.min()) - 1, float(stored.max()) + 1])]
        edges += [np.quantile(part, np.linspace(0, 1, 384)) for part in (of_ood, of_ind)]
        bins = np.unique(np.concatenate(edges))
        ood.append(np.histogram(of_ood, bins)[0][::-1])
        ind.append(np.histogram(of_ind, bins)[0][::-1])
        thresholds.append(bins[::-1][1:])
    order = np.argsort(np.concatenate(thresholds))[::-1]
    found, called = (np.cumsum(np.concatenate(parts)[order]) for parts in (ood, ind))
    return _ap_and_fpr95(found, called)


def scikit_learn(data: Path, kind: str) -> tuple[float, float]:
    """`average_precision_score` and `roc_curve` of all pixels at once, as most evaluators do."""
    from sklearn.metrics import average_precision_score, roc_curve

    scores, labels = _all_pixels(data, kind)
    fpr, tpr, _ = roc_curve(labels, scores)
    return float(average_precision_score(labels, scores)), float(fpr[np.argmax(tpr >= 0.95)])


def ood_metrics(data: Path, kind: str) -> tuple[float, float]:
    """The package of that name, as Mask2Anomaly and SML take it."""
    from ood_metrics import aupr, fpr_at_95_tpr

    scores, labels = _all_pixels(data, kind)
    return float(aupr(scores, labels)), float(fpr_at_95_tpr(scores, labels))


def torchmetrics(data: Path, kind: str) -> tuple[float, float]:
    """Exact curves of all pixels at once, scores brought within 0..1."""
    import torch
    from torchmetrics.functional.classification import binary_average_precision, binary_roc

    scores, labels = _all_pixels(data, kind)
    low, high = scores.min(), scores.max()
    given, truth = torch.from_numpy((scores - low) / (high - low)), torch.from_numpy(labels).long()
    fpr, tpr, _ = binary_roc(given, truth)
    return float(binary_average_precision(given, truth)), float(fpr[torch.nonzero(tpr >= 0.95)[0, 0]])


def pytorch_ood(data: Path, kind: str) -> tuple[float, float]:
    """`OODPerImageSegmentationMetrics` of version 0.4, image by image: means over images."""
    import torch
    from pytorch_ood.metrics import OODPerImageSegmentationMetrics

    metrics = OODPerImageSegmentationMetrics(void_label=255)
    for scores, labels in frames(data, kind):
        truth = torch.from_numpy(np.where(labels == 255, 255, -labels.astype(np.int64)))
        metrics.update(torch.from_numpy(scores)[None], truth[None])
    found = metrics.compute()
    return float(found["AUPR-OUT"]), float(found["FPR95TPR"])


def _all_pixels(data: Path, kind: str) -> Frame:
    parts = [(scores[labels < 255], labels[labels < 255]) for scores, labels in frames(data, kind)]
    scores, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return scores, labels


def _ap_and_fpr95(found: NDArray[np.int64], called: NDArray[np.int64]) -> tuple[float, float]:
    recall, fpr = found / found[-1], called / called[-1]
    precision = found / np.maximum(found + called, 1)
    return float(np.sum(np.diff(recall, prepend=0) * precision)), float(fpr[np.searchsorted(recall, 0.95)])


WAYS: dict[str, Callable[[Path, str], tuple[float, float]]] = {
    "oodray": oodray,
    "smiyc": smiyc,
    "scikit-learn": scikit_learn,
    "ood-metrics": ood_metrics,
    "torchmetrics": torchmetrics,
    "pytorch-ood": pytorch_ood,
}


def main() -> None:
    """Measure the way named on the command line."""
    way, kind, data = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    _load(way)
    start = time.process_time()
    ap, fpr95 = WAYS[way](data, kind)
    cpu = time.process_time() - start
    # Not getrusage, whose peak a process has from the one that started it.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e9
    print(json.dumps({"way": way, "kind": kind, "cpu": cpu, "gigabytes": peak, "ap": ap, "fpr95": fpr95}))


def _load(way: str) -> None:
    """Import what a way needs, before the clock starts."""
    if way == "oodray":
        import pandas as pd  # noqa: F401 - pyarrow imports it where it is there

        import oodray.analysis.evaluation
        import oodray.job.importing
        import oodray.metrics.evaluators  # noqa: F401
    elif way in PACKAGES:
        __import__(PACKAGES[way])


if __name__ == "__main__":
    main()
