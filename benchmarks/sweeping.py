"""The sweep of a run against recomputing settings pixel by pixel."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, roc_curve

from benchmarks.results_folders import method, segmented, write_folder
from oodray.analysis.sweep import make_request, sweep_run
from oodray.method.rule import exceeds, ood_mask, upsample_nearest
from oodray.ranges import decimal_range

IMAGES = 60
KS = tuple(range(3, 11))
TAUS = [index / 20 - 2 for index in range(200)]
OOD_RATIOS = decimal_range("0.01:1:0.01")
SAMPLED = ((5, 3.0, 0.3), (8, 4.5, 0.62))  # brute force takes a minute each


@dataclass(frozen=True)
class Swept:
    """Seconds of the sweep without and with mask-then-logit, of one setting by brute force, and how far they differ."""

    settings: int
    seconds: float
    seconds_with_mask_then_logit: float
    brute_seconds: float
    difference: float


def run() -> Swept:
    """Write the folder, sweep it twice, and recompute the sampled settings."""
    with tempfile.TemporaryDirectory() as path:
        folder = write_folder(Path(path), IMAGES, KS)
        found, seconds = {}, []
        for with_mask_then_logit in (False, True):
            start = time.perf_counter()
            request = make_request(folder, TAUS, OOD_RATIOS, with_mask_then_logit=with_mask_then_logit)
            table = sweep_run(folder, request).table
            seconds.append(time.perf_counter() - start)
        rows = table.to_pylist()
        found = {(row["k"], row["tau"], row["ood_ratio"]): row for row in rows}
    start = time.perf_counter()
    expected = [_brute_force(*setting) for setting in SAMPLED]
    brute_seconds = (time.perf_counter() - start) / len(SAMPLED)
    difference = max(
        abs(row[name] - found[setting][name]) for setting, row in zip(SAMPLED, expected, strict=True) for name in row
    )
    return Swept(len(rows), seconds[0], seconds[1], brute_seconds, difference)


def _brute_force(k: int, tau: float, ood_ratio: float) -> dict[str, float]:
    """One setting on the pixels of all images; making the maps anew is a few per cent of the time."""
    truths, ratios, logits = [], [], []
    asked = method(KS, ())
    for index in range(IMAGES):
        image = segmented(index, asked)
        label, confidence = image.label, image.confidence.astype(np.float64)
        ids = next(found.ids for found in image.cluster_maps if found.k == k)
        clusters = upsample_nearest(ids, *image.size)
        pixels = np.bincount(clusters.ravel(), minlength=k)
        unsure = np.bincount(clusters[confidence < tau], minlength=k)
        mask = ood_mask(clusters, np.flatnonzero(exceeds(unsure, pixels, ood_ratio)))
        labelled = label != 255
        truths.append(label[labelled] == 1)
        ratios.append((unsure / np.maximum(pixels, 1))[clusters][labelled])
        logits.append((np.where(mask, 1e6, 0) - confidence)[labelled])
    truth = np.concatenate(truths)
    row = {}
    for name, values in (("ratio", np.concatenate(ratios)), ("mask_then_logit", np.concatenate(logits))):
        fpr, tpr, _ = roc_curve(truth, values)
        row[f"{name}_ap"] = float(average_precision_score(truth, values))
        row[f"{name}_fpr95"] = float(fpr[np.argmax(tpr >= 0.95)])
    return row
