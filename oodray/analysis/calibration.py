"""Tau from images that hold nothing unknown, and how many false alarms each T would give there.

Section 4.2 of the paper estimates tau from the logits of the training set. Here it is a low quantile of the
confidence of in-distribution pixels, exact on the tallies of a run over such images.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.analysis.files import CountedFiles
from oodray.datasets.layouts import LAYOUTS, Layout
from oodray.errors import DatasetError
from oodray.method.rule import Rule
from oodray.metrics.tally import IGNORE, IN_DISTRIBUTION, OOD, Tally, first_key_at_least
from oodray.results.cells import Clusters, clusters_of
from oodray.results.folder import ResultsFolder
from oodray.results.rows import OK
from oodray.storage.atomic import replacing

OOD_RATIOS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The values of T whose false alarms are told."""

PROVISIONAL_TAU = 0.0
"""The tau of the run that a calibration makes: the tallies, which answer everything, do not depend on it."""


@dataclass(frozen=True)
class FalseAlarms:
    """What a T would call OoD although nothing is, as shares within 0..1.

    Attributes:
        ood_ratio: T.
        clusters: share of the clusters.
        pixels: share of the pixels that count.
        images: share of the images, any cluster of which is called OoD.
    """

    ood_ratio: float
    clusters: float
    pixels: float
    images: float


@dataclass(frozen=True)
class Calibration:
    """A tau, where it is from, and what follows from it.

    Attributes:
        tau: the largest float16 with at most `quantile` of the pixels that count strictly below it.
        quantile: share of in-distribution pixels that may be unsure.
        unsure: share of them that is: at most `quantile`.
        images: images that the numbers are of.
        failed: images that could not be processed.
        pixels: pixels that count.
        false_alarms: by T, ascending.
    """

    tau: float
    quantile: float
    unsure: float
    images: int
    failed: int
    pixels: int
    false_alarms: list[FalseAlarms]


def check_in_distribution(layout: Layout) -> None:
    """Refuse a dataset that is known for what it holds of the unknown, before any work is done.

    Raises:
        DatasetError: it is such a one.
    """
    if layout.label_codes.ood and layout.images is not None:
        known = ", ".join(name for name, other in LAYOUTS.items() if not other.label_codes.ood)
        raise DatasetError(
            f"{layout.title} holds OoD pixels: tau comes from images that hold nothing unknown. "
            f"Known sets of such images: {known}; of your own: --dataset folder"
        )


def calibrate(folder: ResultsFolder, quantile: float) -> Calibration:
    """Calibrate on the finished files of a run over in-distribution images.

    The pixels that count are those labelled in-distribution; where no image has a label, all pixels. What is found
    is noted in the folder's `run.json`, too, so that nobody takes it for a run at the provisional tau.

    Raises:
        DatasetError: if pixels are labelled OoD, or none counts.
        ResultsError: if the folder holds no results.
    """
    k = folder.clustering_rule().k
    files = CountedFiles.of(folder)
    known, images, failed = known_confidence(folder, files)
    counting = int(known.labels[0])
    tau = known.quantile(quantile)
    calibration = Calibration(
        tau=tau,
        quantile=quantile,
        unsure=known.share_below(first_key_at_least(tau)),
        images=images,
        failed=failed,
        pixels=known.pixels(),
        false_alarms=_false_alarms(files, k, tau, counting),
    )
    folder.write_run(folder.read_run() | {"calibration": asdict(calibration)})
    return calibration


def known_confidence(folder: ResultsFolder, files: CountedFiles | None = None) -> tuple[Tally, int, int]:
    """The confidences of the pixels that count, of how many images they are, and how many failed.

    Raises:
        DatasetError: if pixels are labelled OoD, or none counts.
        ResultsError: if the folder holds no results.
    """
    confidence, images, failed = run_confidence(files or CountedFiles.of(folder), folder.clustering_rule().k)
    if confidence.pixels(OOD):
        share = confidence.pixels(OOD) / confidence.pixels()
        raise DatasetError(
            f"{share:.2%} of the pixels are labelled OoD: tau comes from images that hold nothing unknown, "
            "such as the validation images of what the network was trained on"
        )
    counting = IN_DISTRIBUTION if confidence.pixels(IN_DISTRIBUTION) else IGNORE
    chosen = confidence.labels == counting
    known = Tally.from_arrays(confidence.keys[chosen], confidence.labels[chosen], confidence.counts[chosen])
    if not known.pixels():
        raise DatasetError(f"{folder.path} holds no image to calibrate on: all {failed} failed")
    return known, images, failed


def write_config(
    path: Path, calibration: Calibration, *, settings: Mapping[str, Any], model_sha256: str | None, dataset: str
) -> None:
    """Write model and tau as a file for `oodray run --config`, with where they are from as comments.

    `settings` says which network it is: its `model`, its `checkpoint` where it has one of its own, and so on.

    Raises:
        RunError: if it cannot be written.
    """
    keys = {**settings, "tau": calibration.tau}
    weights = "" if model_sha256 is None else f", weights sha256 {model_sha256}"
    lines = [
        f"# tau: {100 * calibration.quantile:g} % quantile of the max-logit of {settings['model']}{weights},",
        f"# on {calibration.pixels:,} in-distribution pixels of {calibration.images} images of {dataset}.",
        *(f"{name}: {json.dumps(value)}" for name, value in keys.items() if value is not None),
    ]
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run_confidence(files: CountedFiles, k: int) -> tuple[Tally, int, int]:
    """The tally of confidence of all images, how many they are, and how many failed."""
    confidence, images, failed = Tally.sum(()), 0, 0
    for rows, clusters in _clusters(files):
        ok = int(np.count_nonzero(rows == OK))
        images, failed = images + ok, failed + len(rows) - ok
        confidence += clusters.cells.tally((clusters.k == k)[clusters.cells.owner])
    return confidence, images, failed


def _false_alarms(files: CountedFiles, k: int, tau: float, counting: int) -> list[FalseAlarms]:
    """What each T calls OoD at this tau."""
    called = np.zeros((len(OOD_RATIOS), 3), np.int64)
    total = np.zeros(3, np.int64)
    for rows, clusters in _clusters(files):
        ours = clusters.k == k
        pixels = clusters.labelled(counting)
        total += (np.count_nonzero(ours), pixels[ours].sum(), np.count_nonzero(rows == OK))
        for index, ood_ratio in enumerate(OOD_RATIOS):
            ood = ours & clusters.ood(Rule(k, tau, ood_ratio))
            called[index] += (np.count_nonzero(ood), pixels[ood].sum(), len(np.unique(clusters.row[ood])))
    shares = called / total
    return [FalseAlarms(ood_ratio, *map(float, row)) for ood_ratio, row in zip(OOD_RATIOS, shares, strict=True)]


def _clusters(files: CountedFiles) -> Iterator[tuple[NDArray[np.object_], Clusters]]:
    """The status of the images and the clusters of each file."""
    for table in files.tables(["status", "clusters"]):
        yield table["status"].to_numpy(), clusters_of(table["clusters"])
