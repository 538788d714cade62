"""The manifest: the table that a run starts from, one row per image, cut into units of work."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from oodray.datasets.layout import Layout
from oodray.datasets.listing import AT_ONCE
from oodray.errors import ResultsError
from oodray.records import Int32, from_arrow, schema_of
from oodray.storage.atomic import replacing
from oodray.storage.place import Place, open_seekable


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedImage:
    """An image as the manifest lists it.

    Attributes:
        unit: the unit of work that it belongs to.
        image_id: its name in the dataset, unique there.
        dataset: the name of the dataset's layout.
        image_uri: where the image is: a path, or an address in an object store.
        label_uri: where its label is; None where it has none.
    """

    unit: Int32
    image_id: str
    dataset: str
    image_uri: str
    label_uri: str | None


MANIFEST_SCHEMA = schema_of(ListedImage)
"""Rows ascend by unit, and within one by image_id; label_uri is null where an image has no label."""

# A unit travels in memory as a whole: 8 images of 24 megapixels are 0.6 GB decoded.
LARGEST_UNIT = 8
_WANTED_UNITS = 64


def build_manifest(layout: Layout, root: Place, *, allow_outside: bool = False) -> pa.Table:
    """The manifest of the dataset that lies in `root`: about 64 units, of at most 8 images each.

    Raises:
        DatasetError: the dataset is not there, two images share an id, or a link leads outside of `root`, unless
            `allow_outside`.
    """
    listed = layout.listing(root, allow_outside=allow_outside)
    columns: dict[str, Any] = {
        "unit": units_of(listed.num_rows),
        "image_id": listed["image_id"],
        "dataset": pa.repeat(layout.name, listed.num_rows),
        "image_uri": listed["image_uri"],
        "label_uri": listed["label_uri"],
    }
    return pa.table(columns, schema=MANIFEST_SCHEMA)


def draw_images(table: pa.Table, count: int, seed: int) -> pa.Table:
    """The manifest of so many images of another, drawn at random; of all where there are no more.

    An image is drawn by a hash of (seed, image_id): what else the dataset holds hardly changes which ones are.
    """
    if count >= table.num_rows:
        return table
    hashes = [hashlib.sha256(f"{seed}/{image_id}".encode()).digest() for image_id in image_ids(table)]
    rows = sorted(sorted(range(len(hashes)), key=hashes.__getitem__)[:count])
    drawn = table.take(rows)
    return with_units(drawn, units_of(count))


def with_units(table: pa.Table, units: NDArray[np.integer[Any]]) -> pa.Table:
    """A manifest with other units."""
    unit = MANIFEST_SCHEMA.get_field_index("unit")
    return table.set_column(unit, MANIFEST_SCHEMA.field(unit), pa.array(units, pa.int32()))


def share_of(table: pa.Table, number: int, of: int) -> pa.Table:
    """The rows of a run's share: one of so many ranges of whole units, about as long as each other.

    >>> [share_of(pa.table({"unit": [0, 0, 1, 2]}), number, 2)["unit"].to_pylist() for number in (1, 2)]
    [[0, 0], [1, 2]]
    """
    column = table["unit"].to_numpy()
    distinct = np.unique(column)
    first, end = (len(distinct) * edge // of for edge in (number - 1, number))
    return table.filter(pa.array(np.isin(column, distinct[first:end])))


def write_manifest(table: pa.Table, path: Place) -> None:
    """Write a manifest, whole or not at all.

    Raises:
        RunError: it cannot be written.
        ValueError: the table has another schema.
    """
    if not table.schema.equals(MANIFEST_SCHEMA):
        raise ValueError(f"not a manifest: its schema is {table.schema}")
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def read_manifest(path: Place) -> pa.Table:
    """Read a manifest.

    Raises:
        ResultsError: it is not there, damaged, or no manifest.
    """
    with _opened(path) as file:
        table = file.read()
        table.validate(full=True)
        names = ", ".join(table.column_names)
    if not table.schema.equals(MANIFEST_SCHEMA):
        raise ResultsError(
            f"{path} is not a manifest of this version: its columns are {names}, "
            f"expected are {', '.join(MANIFEST_SCHEMA.names)}; start a new run elsewhere"
        )
    return table


@contextlib.contextmanager
def _opened(path: Place) -> Iterator[pq.ParquetFile]:
    try:
        with open_seekable(path) as file:
            yield pq.ParquetFile(file)
    except OSError as error:
        raise ResultsError(f"cannot read the manifest {path}: {error.strerror or error}") from error
    except (pa.ArrowException, ValueError) as error:  # ValueError: names that are not UTF-8
        raise ResultsError(f"the manifest {path} is damaged ({error}); start a new run elsewhere") from error


def image_ids(table: pa.Table) -> list[str]:
    """The id of every image of a manifest, in their order."""
    return cast("list[str]", table["image_id"].to_pylist())


def label_uris(table: pa.Table) -> dict[str, str | None]:
    """Where the label of each image of a manifest lies, by its id, in their order; None where it has none."""
    return dict(zip(image_ids(table), table["label_uri"].to_pylist(), strict=True))


def units_of(images: int, largest: int = LARGEST_UNIT) -> NDArray[np.int32]:
    """The unit of each of some images: about 64 units, of at most so many images each.

    >>> units_of(3).tolist(), units_of(640, largest=8)[-1].item(), units_of(640, largest=128)[-1].item()
    ([0, 1, 2], 79, 63)
    """
    size = min(largest, max(1, images // _WANTED_UNITS))
    return np.arange(images, dtype=np.int32) // size


def images_by_unit(table: pa.Table) -> dict[int, list[ListedImage]]:
    """The images of a manifest by their unit, in their order."""
    images: dict[int, list[ListedImage]] = {}
    for batch in table.to_batches():
        for image in from_arrow(ListedImage, batch.to_struct_array()):
            images.setdefault(image.unit, []).append(image)
    return images


def slices_by_unit(table: pa.Table, units: int) -> Iterator[dict[int, list[ListedImage]]]:
    """The images of a manifest by their unit, so many units at a time: of millions, few exist as objects at once."""
    return (images_by_unit(part) for part in slices_of_units(table, units))


def slices_of_units(table: pa.Table, units: int) -> Iterator[pa.Table]:
    """A manifest cut into parts of so many units each."""
    starts = unit_starts(table)
    for first in range(0, len(starts) - 1, units):
        start, end = int(starts[first]), int(starts[min(first + units, len(starts) - 1)])
        yield table.slice(start, end - start)


def unit_starts(table: pa.Table) -> NDArray[np.int64]:
    """The first row of each unit of a manifest, and behind the last one the number of rows.

    >>> unit_starts(pa.table({"unit": [4, 4, 5]})).tolist()
    [0, 2, 3]
    """
    column = table["unit"].to_numpy()
    inner = np.flatnonzero(np.diff(column)) + 1
    return np.concatenate([[0], inner, [len(column)]]) if len(column) else np.zeros(1, np.int64)


def count_images(path: Place) -> int:
    """How many images a manifest lists, by its footer.

    Raises:
        ResultsError: it is not there, or damaged.
    """
    with _opened(path) as file:
        return int(file.metadata.num_rows)


def unit_of_image(path: Place, image_id: str) -> int | None:
    """The unit of an image of a manifest on a disk or in a store, of which two columns are read; None without one.

    Raises:
        ResultsError: it is not there, or damaged.
    """
    with _opened(path) as file:
        for batch in file.iter_batches(columns=["unit", "image_id"]):
            at = pc.index(batch.column("image_id"), image_id).as_py()
            if at >= 0:
                return int(batch.column("unit")[at].as_py())
    return None


def size_of_units(path: Place) -> int:
    """How many images the first unit of a manifest has, of which one column is read; 0 without images.

    Raises:
        ResultsError: it is not there, or damaged.
    """
    with _opened(path) as file:
        units = file.read(["unit"])["unit"].to_numpy()
    return int(np.count_nonzero(units == units.min())) if len(units) else 0


def manifest_digest(table: pa.Table) -> str:
    """16 hex digits of a manifest's values: the same however it is stored, others once a value changes."""
    digest = hashlib.sha256()
    for batch in table.select(MANIFEST_SCHEMA.names).to_batches(AT_ONCE):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()[:16]


def listing_digest(table: pa.Table) -> str:
    """The digest of what a manifest lists, in whatever order, and however it is cut into units.

    It is that of a manifest of the same images in order of their ids, in units of `units_of`.
    """
    return manifest_digest(with_units(table.sort_by("image_id"), units_of(table.num_rows)))
