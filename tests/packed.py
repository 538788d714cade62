"""Datasets whose images lie inside of files, and lists of images, written with other means than the package's."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HF_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""The type of an image in Hugging Face's Parquet files."""


def tar(path: Path, files: Iterable[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    """A tar file of some files, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def parquet(
    path: Path,
    images: Sequence[bytes | None],
    masks: Sequence[bytes | None] | None = None,
    *,
    plain: bool = False,
    rows_of_a_group: int = 3,
) -> Path:
    """A file as `datasets.Dataset.to_parquet` writes it, or with the bytes alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"image": images} | ({} if masks is None else {"mask": masks})
    kind = pa.binary() if plain else HF_IMAGE

    def cell(content: bytes | None, row: int) -> object:
        return content if plain or content is None else {"bytes": content, "path": f"{row}.png"}

    table = pa.table(
        {
            name: pa.array([cell(*found) for found in zip(of, range(len(of)), strict=True)], kind)
            for name, of in columns.items()
        }
    )
    pq.write_table(table, path, row_group_size=rows_of_a_group)
    return path


def image_list(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """A CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
