"""The rows of the results: one record for each image, as the Parquet files hold it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oodray.datasets.manifest import ListedImage
from oodray.metrics.id_quality import IdTally
from oodray.metrics.pixel_counts import Cells32, PixelKeys, cells_of_grid
from oodray.metrics.scales import Keys
from oodray.metrics.tally import IGNORE, IN_DISTRIBUTION, OOD, Tally
from oodray.records import (
    Float64List,
    Int8,
    Int16,
    Int32,
    Int64,
    Int64List,
    UInt8List,
    UInt16List,
    UInt32List,
    schema_of,
)
from oodray.results.packed_keys import pack

OK, ERROR = "ok", "error"

PIXELS_OF_A_CELL = 2
"""A tally whose cells have no more pixels than that, in the mean, is stored as a list of keys."""

TALLIES = ("clusters", "tallies")
"""Columns whose entries hold a tally each."""

KEYS_OF_LABELS = {"keys_id": IN_DISTRIBUTION, "keys_ood": OOD, "keys_ignored": IGNORE}
"""The fields that say how many keys of a tally have a label, in the order of the keys."""

STAGES = ("decode", "segment", "cluster", "finish")
"""Stages whose seconds are recorded for every image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterRow:
    """One cluster of one image.

    Attributes:
        k: the number of clusters asked for.
        cluster: its id.
        pixels: how many it has, ignored ones too.
        ratio: share of them whose confidence lies below tau (eq. 3).
        keys: of its tally, which counts pixels by (confidence key, label).
        labels: of its tally.
        counts: of its tally.
        keys_id: how many of the keys count in-distribution pixels: the first ones. Results of oodray before 0.2 lack
            this, and the next two.
        keys_ood: how many count OoD pixels: the next ones.
        keys_ignored: how many count ignored pixels: the last ones.
    """

    k: Int16
    cluster: Int16
    pixels: Int64
    ratio: float
    keys: UInt16List
    labels: UInt8List
    counts: Int64List
    keys_id: Int32
    keys_ood: Int32
    keys_ignored: Int32

    @classmethod
    def of(cls, k: int, cluster: int, tally: Tally, tau_key: int) -> ClusterRow:
        """The cluster whose confidences a tally counts; `tau_key` is that of tau, see `first_key_at_least`."""
        return cls(
            k=k,
            cluster=cluster,
            pixels=tally.pixels(),
            ratio=tally.share_below(tau_key),
            keys=tally.keys,
            labels=tally.labels,
            counts=tally.counts,
            **_keys_of_labels(tally.labels),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreTally:
    """One pixel score of one image: its tally counts pixels by (score key, label).

    Attributes:
        score: its name.
        scale: of its keys, see `oodray.metrics.scales`; results of oodray before 0.2 lack it: theirs are float16.
        keys: ascending by label, and in each label.
        labels: of each key.
        counts: pixels of each key and label.
        keys_id: how many of the keys count in-distribution pixels, as in a `ClusterRow`.
        keys_ood: how many count OoD pixels.
        keys_ignored: how many count ignored pixels.
        packed: in place of keys, labels and counts, where most scores of float32 differ: see
            `oodray.results.packed_keys`. Results of oodray before 0.2 lack it.
    """

    score: str
    scale: str
    keys: UInt32List
    labels: UInt8List
    counts: Int64List
    keys_id: Int32
    keys_ood: Int32
    keys_ignored: Int32
    packed: Annotated[bytes, pa.large_binary()] | None = None

    @classmethod
    def of(cls, score: str, scale: str, keys: Keys, labels: NDArray[np.uint8]) -> ScoreTally:
        """The tally of a score whose keys and labels are those of all pixels of an image, in arrays of one shape."""
        if keys.dtype == np.uint16:
            tally = Tally.of(keys.astype(np.uint16, copy=False), labels)
            return cls._of(score, scale, (tally.keys.astype(np.uint32), tally.labels, tally.counts))
        exact = keys.astype(np.uint32, copy=False)
        cells = cells_of_grid(exact, labels)
        if cells is not None and _are_few(len(cells[0]), keys.size):
            return cls._of(score, scale, cells)
        pixels = PixelKeys.of(exact, labels)
        if _are_few(pixels.count_of_cells, keys.size):
            return cls._of(score, scale, pixels.cells())
        return cls._of(score, scale, _NO_CELLS, pack(pixels))

    @classmethod
    def _of(cls, score: str, scale: str, cells: Cells32, packed: bytes | None = None) -> ScoreTally:
        keys, labels, counts = cells
        by_label = _keys_of_labels(labels)
        return cls(score=score, scale=scale, keys=keys, labels=labels, counts=counts, packed=packed, **by_label)


def _keys_of_labels(labels: NDArray[np.uint8]) -> dict[str, int]:
    """How many keys of a tally have each label."""
    return {name: int(np.count_nonzero(labels == label)) for name, label in KEYS_OF_LABELS.items()}


_NO_CELLS: Cells32 = (np.zeros(0, np.uint32), np.zeros(0, np.uint8), np.zeros(0, np.int64))


def _are_few(cells: int, pixels: int) -> bool:
    return PIXELS_OF_A_CELL * cells < pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptMap:
    """A map of an image that a run keeps, see `oodray.results.kept_maps`.

    Attributes:
        name: of the score, or `classes`.
        scale: of the score's keys; None of classes.
        data: the keys, or the classes.
    """

    name: str
    scale: str | None
    data: Annotated[bytes, pa.large_binary()]  # those of a row group may exceed the 2 GiB that 32-bit offsets reach


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassCounts:
    """What a network makes of the true classes of one image: an `oodray.metrics.id_quality.IdTally`.

    Attributes:
        count: of the network's classes, C.
        inside: of each cell of the confusion that has a pixel, whether it is in the mask.
        true: its true class; C for OoD pixels.
        predicted: its predicted class.
        counts: its pixels.
        pixels: by bin of confidence.
        correct: by bin of confidence.
        confidence: by bin of confidence.
        squares: their sum.
    """

    count: Int16
    inside: UInt8List
    true: UInt16List
    predicted: UInt16List
    counts: Int64List
    pixels: Int64List
    correct: Int64List
    confidence: Float64List
    squares: float

    @classmethod
    def of(cls, tally: IdTally) -> ClassCounts:
        """The counts of an image."""
        inside, true, predicted = np.nonzero(tally.confusion)
        return cls(
            count=tally.confusion.shape[2],
            inside=inside.astype(np.uint8),
            true=true.astype(np.uint16),
            predicted=predicted.astype(np.uint16),
            counts=tally.confusion[inside, true, predicted],
            pixels=tally.pixels,
            correct=tally.correct,
            confidence=tally.confidence,
            squares=tally.squares,
        )

    def tally(self) -> IdTally:
        """The counts that these columns hold."""
        confusion = np.zeros((2, self.count + 1, self.count), np.int64)
        confusion[self.inside, self.true, self.predicted] = self.counts
        return IdTally(confusion, self.pixels, self.correct, self.confidence, self.squares)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultRow(ListedImage):
    """What a run found in an image. Fields that a failed image lacks are None.

    Attributes:
        height: of the image, in pixels.
        width: of the image, in pixels.
        status: `OK` or `ERROR`.
        error: what went wrong.
        warning: what cannot be known about the image's orientation.
        orientation: the EXIF orientation that was applied.
        mask_png: 8-bit PNG, 255 in OoD clusters, else 0.
        clusters_png: 8-bit PNG of cluster ids.
        ood_fraction: share of the pixels that the mask holds.
        image_score: the largest ratio of a cluster.
        clusters: of every K.
        tallies: of every pixel score.
        maps: that `--keep-maps` asked for.
        classes: one where the run measures classes, of an image with a label.
        seconds_decode: that reading and decoding took, as the following for the other stages.
    """

    height: Int32 | None = None
    width: Int32 | None = None
    status: str
    error: str | None = None
    warning: str | None = None
    orientation: Int8 | None = None
    mask_png: bytes | None = None
    clusters_png: bytes | None = None
    ood_fraction: float | None = None
    image_score: float | None = None
    clusters: list[ClusterRow] | None = None
    tallies: list[ScoreTally] | None = None
    maps: list[KeptMap] | None = None
    classes: list[ClassCounts] | None = None
    seconds_decode: float | None = None
    seconds_segment: float | None = None
    seconds_cluster: float | None = None
    seconds_finish: float | None = None


RESULT_SCHEMA = schema_of(ResultRow)
"""One row per image. Every file is written with it: of error rows alone, columns would have the type null."""
