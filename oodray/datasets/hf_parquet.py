"""Parquet files as Hugging Face's datasets have them: images and masks as bytes in columns."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from oodray.datasets.members import TableCell
from oodray.datasets.shards import Listed, Shards
from oodray.errors import ImageError
from oodray.storage.place import Place, open_seekable

IMAGE, LABEL = "image", "mask"
"""Names of the columns."""

_DIGITS = 6


class HfParquet(Shards):
    """Parquet files, local or in an object store, with an image and, where there is one, a label in every row."""

    name = "hf-parquet"
    title = "Parquet files of Hugging Face's datasets"
    suffix = ".parquet"
    where = "your own files, or `hf download --repo-type dataset ORG/NAME --local-dir ROOT`"
    tree = (
        "ROOT/**/NAME.parquet   such as data/test-00000-of-00002.parquet; with --split test those alone; columns:\n"
        f"{IMAGE}   {{bytes, path}}, or bytes\n"
        f"{LABEL}   the same; 0 in-distribution, 1 OoD, 255 ignore; may be absent, or null for some images"
    )

    def listed(self, shard: Place) -> Iterator[Listed]:
        """The images of a file by row; its footer is read, and nothing else."""
        try:
            with open_seekable(shard) as source, pq.ParquetFile(source) as file:
                rows, schema = file.metadata.num_rows, file.schema_arrow
        except (pa.ArrowException, ValueError) as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            raise ImageError(f"it is no whole Parquet file ({reason}); fetch it again") from error
        if IMAGE not in schema.names:
            raise ImageError(f"it has no column {IMAGE}; its columns are {', '.join(schema.names)}")
        has_labels = LABEL in schema.names and not pa.types.is_null(schema.field(LABEL).type)
        for column in (IMAGE, LABEL) if has_labels else (IMAGE,):
            _require_bytes(schema.field(column))
        for row in range(rows):
            label = TableCell(str(shard), LABEL, row) if has_labels else None
            yield f"{row:0{_DIGITS}}", TableCell(str(shard), IMAGE, row), label


def _require_bytes(column: pa.Field[pa.DataType]) -> None:
    kind = column.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)):
        raise ImageError(f"its column {column.name} is of the type {column.type}; expected: bytes, or {{bytes, path}}")
