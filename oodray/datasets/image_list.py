"""A list of images: a table with a row for each, in a CSV, JSONL or Parquet file."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import IO, ClassVar

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from oodray.datasets.layout import USUAL_CODES, Layout, files_of, refuse_outside, stays_below
from oodray.datasets.listing import AT_ONCE, Sample
from oodray.errors import DatasetError
from oodray.storage.place import Place, storage_path
from oodray.storage.remote import is_remote

IMAGE, LABEL, ID = "image", "label", "id"
"""Names of the columns."""

MOST_LOOKED_FOR = 20
"""Images of which one at least must be there. The others are error rows of the run."""


class ImageList(Layout):
    """A table of images, with labels and ids where it has such columns."""

    name = "list"
    title = "List of images"
    images: ClassVar[int | None] = None
    where = "your own list"
    tree = (
        "FILE.csv, FILE.jsonl or FILE.parquet   with --root FILE; columns:\n"
        f"{IMAGE}   a path from the folder of FILE, or an address such as s3://bucket/a.jpg\n"
        f"{LABEL}   the same; 0 in-distribution, 1 OoD, 255 ignore; may be absent, or empty for some images\n"
        f"{ID}   the name of the image in the results; may be absent: then it is the path without suffix"
    )
    folders = ()
    label_codes = USUAL_CODES
    own_codes: ClassVar[bool] = True

    def samples(self, root: Place, *, allow_outside: bool) -> Iterator[Sample]:
        """See `Layout.samples`; `root` is the list."""
        if not root.exists():
            raise self.error(f"{root} does not exist")
        if root.is_dir():
            raise self.error(f"{root} is a folder; name the list itself")
        table = self._read(root)
        if not table.num_rows:
            raise self.error(f"no images in {root}")
        looked_for: list[str] = []
        for first in range(0, table.num_rows, AT_ONCE):
            samples = [*_samples(root, table.slice(first, AT_ONCE), first + 1)]
            if not allow_outside:
                # An address is no secret of this machine.
                refuse_outside(root.parent, (uri for uri in files_of(samples) if not is_remote(uri)))
            looked_for += [sample.image_uri for sample in samples[: MOST_LOOKED_FOR - len(looked_for)]]
            yield from samples
        if not any(storage_path(uri).is_file() for uri in looked_for):
            raise self.error(f"none of the first {len(looked_for)} images is there, as {looked_for[0]}")

    def _read(self, path: Place) -> pa.Table:
        reader = _READERS.get(path.suffix.lower())
        if reader is None:
            raise self.error(f"{path} is neither {', '.join(_READERS)}")
        try:
            with path.open("rb") as file:
                table = reader(file)
            names = table.column_names  # which are decoded here
        except (pa.ArrowException, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise DatasetError(f"{path} is no whole {path.suffix[1:].upper()} file: {reason}") from error
        if IMAGE not in names:
            raise self.error(f"{path} has no column {IMAGE}; its columns are {', '.join(names)}")
        return table


def _samples(path: Place, table: pa.Table, first: int) -> Iterator[Sample]:
    """The samples of some rows of a list, of which one is the first."""
    folder, has_ids = str(path.parent), ID in table.column_names
    columns = (_texts(path, table, column) for column in (IMAGE, LABEL, ID))
    for row, (image, label, image_id) in enumerate(zip(*columns, strict=True), start=first):
        for column, text in ((IMAGE, image), *([(ID, image_id)] if has_ids else [])):
            if not text:
                raise DatasetError(f"row {row} of {path} has no {column}")
        if image_id and not stays_below(image_id):
            raise DatasetError(
                f"row {row} of {path} has the {ID} {image_id!r}: results are named after it, so it must be a path "
                "without .. and empty parts"
            )
        try:
            image_uri, label_uri = _uri(folder, image or ""), _uri(folder, label) if label else None
        except ValueError as error:
            raise DatasetError(f"row {row} of {path} names {error}") from None
        yield Sample(image_id or _id(folder, image_uri), image_uri, label_uri)


def _csv(file: IO[bytes]) -> pa.Table:
    # An id such as 007 is no number.
    texts = dict.fromkeys((IMAGE, LABEL, ID), pa.string())
    return pa.csv.read_csv(file, convert_options=pa.csv.ConvertOptions(column_types=texts))


def _jsonl(file: IO[bytes]) -> pa.Table:
    return pa.json.read_json(file)


def _parquet(file: IO[bytes]) -> pa.Table:
    with pq.ParquetFile(file) as table:
        return table.read([name for name in (IMAGE, LABEL, ID) if name in table.schema_arrow.names])


_READERS: dict[str, Callable[[IO[bytes]], pa.Table]] = {
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
}
"""What reads a list, by its suffix."""


def _texts(path: Place, table: pa.Table, column: str) -> list[str | None]:
    """A column as texts; None in every row where the table lacks it."""
    if column not in table.column_names:
        return [None] * table.num_rows
    kind = table[column].type
    if column != ID and not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise DatasetError(f"the column {column} of {path} is of the type {kind}; expected are texts")
    try:
        texts: list[str | None] = table[column].cast(pa.string()).to_pylist()
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DatasetError(f"the column {column} of {path} is of the type {kind}; expected are texts") from error
    return texts


def _uri(folder: str, text: str) -> str:
    """The address of what a row names, without `.` and `..`.

    Raises:
        ValueError: nothing is fetched from there.
    """
    if is_remote(text):
        return str(storage_path(text))
    scheme, mark, rest = text.partition("://")
    if mark and scheme != "file":
        raise ValueError(
            f"{text}: taken are paths, and addresses of object stores such as s3://bucket/a.jpg; download the images"
        )
    path = rest if mark else text
    if is_remote(folder) and not path.startswith("/"):
        scheme, _, inside = folder.partition("://")
        return f"{scheme}:/{posixpath.normpath(f'/{inside}/{path}')}"
    return posixpath.normpath(posixpath.join(folder, path))


def _id(folder: str, uri: str) -> str:
    """The path of an image without its suffix: from the folder of the list where it lies there."""
    inside = uri.removeprefix(folder.rstrip("/") + "/")
    path = inside.partition("://")[2] if is_remote(inside) else inside.lstrip("/")
    return str(PurePosixPath(path or uri).with_suffix(""))
