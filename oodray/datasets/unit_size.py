"""How many images make a unit: more where they are small, as each unit costs a run the same, whatever is in it."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from oodray.datasets.images import read_bytes
from oodray.datasets.manifest import LARGEST_UNIT, units_of, with_units
from oodray.errors import ImageError

LARGEST_UNIT_OF_SMALL_IMAGES = 128
"""Images; of a unit that is lost with its process, all are computed again."""

PIXELS_OF_A_UNIT = 2**23
"""Of small images a unit has about as many as 8 images of a megapixel."""

SAMPLED_IMAGES = 16
"""Images that are looked at. Large ones that are missed are few, and a unit of small ones has place for some."""


def cut_by_size(table: pa.Table) -> pa.Table:
    """A manifest in units of `units_of`, larger ones where its images are many and small.

    The largest of some images, taken at even distances, decides. A run that is continued keeps the units that it has.
    """
    units = units_of(table.num_rows)
    if np.array_equal(units_of(table.num_rows, LARGEST_UNIT_OF_SMALL_IMAGES), units):
        return with_units(table, units)
    return with_units(table, units_of(table.num_rows, _largest_unit(_sampled_pixels(table))))


def _largest_unit(pixels: int | None) -> int:
    """Images of a unit, at most, where an image has so many pixels; None where that is unknown.

    >>> [_largest_unit(pixels) for pixels in (64 * 64, 512 * 512, 2048 * 1024, None)]
    [128, 32, 8, 8]
    """
    if pixels is None:
        return LARGEST_UNIT
    return min(max(LARGEST_UNIT, PIXELS_OF_A_UNIT // max(1, pixels)), LARGEST_UNIT_OF_SMALL_IMAGES)


def _sampled_pixels(table: pa.Table) -> int | None:
    """Pixels of the largest image of a sample; None where none of them says its size."""
    rows = np.unique(np.linspace(0, table.num_rows - 1, SAMPLED_IMAGES).astype(int))
    with ThreadPoolExecutor(SAMPLED_IMAGES) as threads:
        found = [*threads.map(_pixels, table["image_uri"].take(rows).to_pylist())]
    return max((pixels for pixels in found if pixels is not None), default=None)


def _pixels(uri: str) -> int | None:
    """Pixels of an image by what its file begins with; None where it cannot be read, which the run will tell."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(read_bytes(uri))) as image:
            return image.width * image.height
    except (ImageError, OSError, ValueError, Image.DecompressionBombError):
        return None
