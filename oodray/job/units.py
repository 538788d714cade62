"""What travels between the stages: images as records, and a unit of them as one row of Ray's.

A unit is computed, written and resumed as a whole. Ray Data splits and merges blocks between rows, never inside one. So
a unit that is a single row, its images a list of structs, arrives in every stage complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa

from oodray.datasets.manifest import ListedImage, unit_starts
from oodray.records import (
    BytePixels,
    Float16Pixels,
    Float64List,
    Int8,
    Int16,
    Int16Pixels,
    Int32,
    Int64List,
    IsRecord,
    RgbPixels,
    UInt16Pixels,
    from_arrow,
    table_of,
    to_arrow,
)

Record = TypeVar("Record", bound=IsRecord)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageInTheStream(ListedImage):
    """What every stage after the first knows of an image.

    Attributes:
        error: why it cannot be processed; such an image passes the stages that are left.
        height: in pixels; None if it could not be decoded, as the following.
        width: in pixels.
        orientation: the EXIF orientation that was applied.
        warning: what is wrong with the file although it could be read, or cannot be known about its orientation.
        label: a label for every pixel; None where the dataset has none.
        true_classes: the class of every in-distribution pixel, 255 elsewhere; None unless the run measures classes.
        seconds_decode: that reading and decoding took.
    """

    error: str | None = None
    height: Int32 | None = None
    width: Int32 | None = None
    orientation: Int8 | None = None
    warning: str | None = None
    label: BytePixels | None = None
    true_classes: BytePixels | None = None
    seconds_decode: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image that was decoded."""
        assert self.height is not None, "only a decoded image has a size"
        assert self.width is not None, "only a decoded image has a size"
        return self.height, self.width


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedImage(ImageInTheStream):
    """An image in memory; `image` is None beside an error."""

    image: RgbPixels | None = None

    @property
    def rgb(self) -> RgbPixels:
        """The pixels of an image that was decoded: `(height, width, 3)`, which may be read-only."""
        assert self.image is not None, "only a decoded image has pixels"
        return self.image


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterMap:
    """Cluster ids for one K, at the resolution of the features."""

    k: Int16
    height: Int32
    width: Int32
    ids: BytePixels


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreMap:
    """A pixel score at image size, as the keys of its scale, see `oodray.metrics.scales`."""

    score: str
    scale: str
    height: Int32
    width: Int32
    keys: UInt16Pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class Confidences:
    """How a network's probabilities fit the true classes of an image, see `oodray.metrics.id_quality.ConfidenceTally`.

    Attributes:
        count: of the network's classes.
    """

    count: Int16
    pixels: Int64List
    correct: Int64List
    confidence: Float64List
    squares: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentedImage(ImageInTheStream):
    """What leaves a worker: no logits and no features.

    Attributes:
        confidence: at image size; None beside an error, as the following.
        cluster_maps: one for each K.
        score_maps: one for each pixel score.
        classes: the likeliest class of each pixel, where maps are kept or classes measured.
        confidences: one where classes are measured, of an image with a label.
        seconds_segment: that the network took, for each image of the batch.
        seconds_cluster: that clustering and scores took, for each image of the batch.
    """

    confidence: Float16Pixels | None = None
    cluster_maps: list[ClusterMap] | None = None
    score_maps: list[ScoreMap] | None = None
    classes: Int16Pixels | None = None
    confidences: list[Confidences] | None = None
    seconds_segment: float | None = None
    seconds_cluster: float | None = None


@dataclass(frozen=True)
class UnitDone:
    """What the driver hears of a finished unit.

    Attributes:
        ok: images with results.
        failed: images with an error.
        errors: of each failed image, `image_id: message`.
        warnings: the same of images with a warning.
    """

    ok: Int32
    failed: Int32
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def pack(images: Sequence[Record], kind: type[Record]) -> pa.Table:
    """The one-row table of a unit, whose images are of a kind."""
    structs = to_arrow(kind, images)
    return pa.table({"images": pa.ListArray.from_arrays(pa.array([0, len(images)], pa.int32()), structs)})


def pack_listed(images: pa.Table) -> pa.Table:
    """The table of some units of a manifest, a row for each; no image becomes an object."""
    structs = images.combine_chunks().to_struct_array().combine_chunks()
    return pa.table({"images": pa.ListArray.from_arrays(pa.array(unit_starts(images), pa.int32()), structs)})


def unpack(table: pa.Table, kind: type[Record]) -> list[Record]:
    """The images of a one-row table, or of several rows, one after the other.

    Pixels are views of its memory, and cannot be written to.
    """
    units: Iterator[Any] = table["images"].iterchunks()
    return [image for unit in units for image in from_arrow(kind, unit.flatten())]


def pack_done(done: UnitDone) -> pa.Table:
    """The one-row table of what the driver hears."""
    return table_of(UnitDone, [done])


def unpack_done(table: pa.Table) -> list[UnitDone]:
    """What the driver hears, from the rows of a table."""
    return [done for batch in table.to_batches() for done in from_arrow(UnitDone, batch.to_struct_array())]
