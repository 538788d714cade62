"""How a unit travels through Ray: as one row.

A unit is computed, written and resumed as a whole. Ray Data splits and merges blocks between rows, never
inside one, so a unit that is a single row, its images a list of structs, arrives in every stage complete.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oodray.datasets.manifest import MANIFEST_SCHEMA

Row = dict[str, Any]
Rows = list[Row]

# Pixels of many images can exceed the 2 GiB that 32-bit offsets reach.
_PIXELS = pa.large_binary()

LISTED = pa.struct(list(MANIFEST_SCHEMA))
"""An image as the manifest lists it."""

DECODED = pa.struct(
    [
        *MANIFEST_SCHEMA,
        ("error", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("orientation", pa.int8()),
        ("warning", pa.string()),
        ("image", _PIXELS),
        ("label", _PIXELS),
        ("seconds_decode", pa.float64()),
    ]
)
"""An image in memory: RGB bytes, and one label byte per pixel; label is null where the dataset has none.

The EXIF orientation is the one that was applied; the warning is what cannot be known about it."""

CLUSTER_MAP = pa.struct([("k", pa.int16()), ("height", pa.int32()), ("width", pa.int32()), ("ids", _PIXELS)])
"""Cluster ids at the resolution of the features, for one K."""

SCORE_MAP = pa.struct([("score", pa.string()), ("values", _PIXELS)])
"""A pixel score at image size, float16."""

SEGMENTED = pa.struct(
    [
        *(field for field in DECODED if field.name != "image"),
        ("confidence", _PIXELS),
        ("cluster_maps", pa.list_(CLUSTER_MAP)),
        ("score_maps", pa.list_(SCORE_MAP)),
        ("seconds_segment", pa.float64()),
        ("seconds_cluster", pa.float64()),
    ]
)
"""What leaves the actor: no logits and no features."""


def rows_by_unit(images: pa.Table) -> dict[int, Rows]:
    """Rows of a manifest by their unit, in their order."""
    rows_of: dict[int, Rows] = {}
    for row in images.to_pylist():
        rows_of.setdefault(row["unit"], []).append(row)
    return rows_of


def pack(unit: int, rows: Rows, image_type: pa.StructType) -> pa.Table:
    """The one-row table of a unit; `image_type` is the type of its images."""
    images = pa.array([rows], type=pa.list_(image_type))
    return pa.table({"unit": pa.array([unit], pa.int32()), "images": images})


def unpack(table: pa.Table) -> tuple[int, Rows]:
    """The unit of a one-row table, and its images."""
    [row] = table.to_pylist()
    return row["unit"], row["images"]


def pixels(row: Row, name: str, dtype: type[np.generic], channels: int | None = None) -> NDArray[Any]:
    """The bytes in a column of an image as an array `(H, W)` or `(H, W, channels)`, read-only."""
    shape = (row["height"], row["width"]) if channels is None else (row["height"], row["width"], channels)
    return np.frombuffer(row[name], dtype).reshape(shape)


def image_size(row: Row) -> tuple[int, int]:
    """Height and width of an image that was decoded."""
    return row["height"], row["width"]
