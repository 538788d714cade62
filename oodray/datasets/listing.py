"""The samples of a dataset as columns of a table: of millions, some thousand are objects at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from oodray.errors import DatasetError

AT_ONCE = 2**15
"""Samples that are objects at a time: 10 MB or so."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a dataset.

    Attributes:
        image_id: its path below the dataset's root, without suffix, with forward slashes.
        image_uri: absolute path of the image file.
        label_uri: absolute path where the label file is, or should be; None where the image has no label.
    """

    image_id: str
    image_uri: str
    label_uri: str | None


SAMPLES = pa.schema([(field.name, pa.string()) for field in fields(Sample)])
"""A row for each sample."""


def table_of_samples(samples: Iterable[Sample]) -> pa.Table:
    """Samples as a table of `SAMPLES`, in their order.

    >>> table_of_samples([Sample("a", "/a.png", None)]).to_pylist()
    [{'image_id': 'a', 'image_uri': '/a.png', 'label_uri': None}]
    """
    left = iter(samples)
    batches = []
    while some := [*islice(left, AT_ONCE)]:
        columns = [pa.array([getattr(sample, name) for sample in some], pa.string()) for name in SAMPLES.names]
        batches.append(pa.RecordBatch.from_arrays(columns, schema=SAMPLES))
    return pa.Table.from_batches(batches, SAMPLES)


def samples_of_table(table: pa.Table) -> Iterator[Sample]:
    """The inverse of `table_of_samples`."""
    for batch in table.to_batches(AT_ONCE):
        yield from map(Sample, *(batch.column(name).to_pylist() for name in SAMPLES.names))


def by_id(table: pa.Table) -> pa.Table:
    """Samples in the order of their ids.

    Raises:
        DatasetError: two share one.
    """
    if not _ascends(table, pc.less_equal):
        table = table.sort_by("image_id")
    if not _ascends(table, pc.less):
        ids = table["image_id"]
        row = pc.index(pc.equal(ids.slice(1), ids.slice(0, len(ids) - 1)), value=True).as_py()
        first, second = table["image_uri"].slice(row, 2).to_pylist()
        raise DatasetError(
            f"two images have the name {ids[row].as_py()!r}: {first} and {second}; remove or rename one of them"
        )
    return table


def _ascends(table: pa.Table, compare: Callable[[pa.ChunkedArray[Any], pa.ChunkedArray[Any]], Any]) -> bool:
    ids = table["image_id"]
    return len(ids) < 2 or bool(pc.all(compare(ids.slice(0, len(ids) - 1), ids.slice(1))).as_py())
