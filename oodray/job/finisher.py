"""The last stage: rule, mask, tallies and PNGs, and the file of the unit. It runs on CPUs, as tasks or in threads."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.datasets.images import encode_png
from oodray.errors import RunError
from oodray.job.attempts import Guard, unguarded
from oodray.job.telemetry import count_images
from oodray.job.units import SegmentedImage, UnitDone
from oodray.method.rule import is_ood, ood_mask, upsample_nearest
from oodray.method.settings import MethodSettings
from oodray.metrics.id_quality import IdTally, confusion_of
from oodray.metrics.tally import IGNORE, OOD, Tally, cluster_tallies, coarse_keys, first_key_at_least, score_keys
from oodray.records import extended
from oodray.results.folder import ResultsFolder
from oodray.results.kept_maps import CLASSES, encode_map
from oodray.results.parts import add_to_part, write_part
from oodray.results.rows import ERROR, OK, ClassCounts, ClusterRow, KeptMap, ResultRow, ScoreTally

HISTOGRAM_BITS = 8
"""Of the keys that scores of images without a label are counted by."""

Tallies = Mapping[int, Mapping[int, Tally]]
"""Of each K, the tally of each cluster's confidences."""


@dataclass(frozen=True)
class Finisher:
    """Makes rows of the results, writes them as the file of their unit, and says what it did.

    Attributes:
        settings: of the method.
        out: the results folder.
        guard: of the work on images.
        identity: of the run, as its folder has it. A process may outlive its killed driver: if another run has taken
            the folder by then, nothing is written. None skips the check.
        tried_again: units of which failed images alone are computed: their files keep the rows of the others.
    """

    settings: MethodSettings
    out: str
    guard: Guard = field(default_factory=unguarded)
    identity: Mapping[str, Any] | None = None
    tried_again: Collection[int] = ()

    def __call__(self, images: list[SegmentedImage]) -> UnitDone:
        """Finish the images of a unit."""
        rows = self.guard.run("finish", images, lambda batch: [self.finish(image) for image in batch], self._given_up)
        self._write(images[0].unit, rows)
        count_images(rows, self.out)
        return unit_done(rows)

    def finish(self, image: SegmentedImage) -> ResultRow:
        """The row of an image."""
        start = time.perf_counter()
        row = extended(ResultRow, image, status=OK if image.error is None else ERROR)
        # The first of two passes gives no results, see `oodray.job.passes`.
        if image.error is None and image.confidence is not None:
            row = self._with_results(row, image)
        return replace(row, seconds_finish=time.perf_counter() - start)

    def _with_results(self, row: ResultRow, image: SegmentedImage) -> ResultRow:
        settings = self.settings
        tau_key = first_key_at_least(settings.tau)
        maps = cluster_maps_at_image_size(image)
        clusters = maps[settings.k]
        tallies = tallies_of(maps, image, settings)
        mask = ood_mask(clusters, judged(tallies[settings.k], settings))
        return replace(
            row,
            mask_png=encode_png(mask),
            clusters_png=encode_png(clusters),
            ood_fraction=np.count_nonzero(mask) / mask.size,
            image_score=max(tally.share_below(tau_key) for tally in tallies[settings.k].values()),
            clusters=[
                ClusterRow.of(k, cluster, tally, tau_key)
                for k, of_k in tallies.items()
                for cluster, tally in of_k.items()
            ],
            tallies=[
                ScoreTally.of(found.score, found.scale, _counted(found.keys, image, settings), labels_of(image))
                for found in image.score_maps or ()
            ],
            maps=_kept(image, settings) if settings.keep_maps else None,
            classes=[_class_counts(image, mask) for _ in image.confidences] if image.confidences else None,
        )

    def _write(self, unit: int, rows: list[ResultRow]) -> None:
        folder = ResultsFolder(self.out)
        if self.identity is not None and folder.read_run()["identity"] != self.identity:
            raise RunError(f"another run was started in {folder.path}: nothing of this one is written there any more")
        if unit in self.tried_again:
            add_to_part(folder, unit, rows)
        else:
            write_part(folder, unit, rows)

    def _given_up(self, image: SegmentedImage, error: str) -> ResultRow:
        return self.finish(extended(SegmentedImage, image, error=error))


def cluster_maps_at_image_size(image: SegmentedImage) -> dict[int, NDArray[np.uint8]]:
    """Of each K, the cluster ids of every pixel: `(height, width)` uint8."""
    return {found.k: upsample_nearest(found.ids, *image.size) for found in image.cluster_maps or ()}


def labels_of(image: SegmentedImage) -> NDArray[np.uint8]:
    """The labels of an image, `(height, width)` uint8: all ignored where it has none."""
    return np.full(image.size, IGNORE, np.uint8) if image.label is None else image.label


def tallies_of(maps: Mapping[int, NDArray[np.uint8]], image: SegmentedImage, settings: MethodSettings) -> Tallies:
    """The tallies of the confidences of every cluster of every K, of maps at image size."""
    assert image.confidence is not None, "only a segmented image has confidences"
    exact = coarse_keys(score_keys(image.confidence), settings.confidence_bits)
    keys = _counted(exact, image, settings, edge=first_key_at_least(settings.tau))
    labels = labels_of(image)
    return {k: cluster_tallies(ids, keys, labels) for k, ids in maps.items()}


def _counted(
    keys: NDArray[np.uint16], image: SegmentedImage, settings: MethodSettings, edge: int | None = None
) -> NDArray[np.uint16]:
    """The keys that an image is counted by: its own, or of an image without a label the lower edges of 256 bins.

    Nothing is measured on such an image: what is left is a histogram. The bin that tau lies in is cut in two at `edge`,
    the key of tau, so that the rule stays exact.
    """
    if image.label is not None or settings.exact_counts:
        return keys
    binned = coarse_keys(keys, HISTOGRAM_BITS)
    return binned if edge is None else np.where((keys >= edge) & (binned < edge), np.uint16(min(edge, 65535)), binned)


def _kept(image: SegmentedImage, settings: MethodSettings) -> list[KeptMap]:
    """The maps of an image that the results keep."""
    kept = [
        KeptMap(name=found.score, scale=found.scale, data=encode_map(found.keys))
        for found in image.score_maps or ()
        if found.score in settings.keep_maps
    ]
    if image.classes is not None:
        kept.append(KeptMap(name=CLASSES, scale=None, data=encode_map(image.classes.astype(np.uint16))))
    return kept


def _class_counts(image: SegmentedImage, mask: NDArray[np.uint8]) -> ClassCounts:
    """What the network makes of the true classes of an image, with the mask of the rule."""
    assert image.confidences, "asked for where there are some"
    assert image.true_classes is not None, "classes are measured where labels name them"
    assert image.classes is not None, "they are predicted where they are measured"
    [found] = image.confidences
    true = np.where(labels_of(image) == OOD, found.count, image.true_classes.astype(np.int64))
    confusion = confusion_of(true, image.classes, mask > 0, found.count)
    return ClassCounts.of(IdTally(confusion, found.pixels, found.correct, found.confidence, found.squares))


def judged(tallies: Mapping[int, Tally], settings: MethodSettings) -> set[int]:
    """The clusters of one K that are OoD, from the tallies of their confidences (eq. 3)."""
    tau_key = first_key_at_least(settings.tau)
    return {
        cluster
        for cluster, tally in tallies.items()
        if is_ood(tally.below(tau_key), tally.pixels(), settings.ood_ratio)
    }


def unit_done(rows: list[ResultRow]) -> UnitDone:
    """What the driver hears of the rows of a unit."""
    errors = [f"{row.image_id}: {row.error}" for row in rows if row.status == ERROR]
    warnings = [f"{row.image_id}: {row.warning}" for row in rows if row.warning]
    return UnitDone(len(rows) - len(errors), len(errors), errors, warnings)
