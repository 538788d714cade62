"""Results read back: the rows of finished files, and the pandas frames of a run."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from oodray.errors import ResultsError
from oodray.method.rule import Rule
from oodray.metrics.tally import IGNORE, IN_DISTRIBUTION, OOD
from oodray.results.cells import clusters_of
from oodray.results.folder import ResultsFolder
from oodray.results.rows import RESULT_SCHEMA
from oodray.storage.place import Place
from oodray.storage.remote import is_remote

if TYPE_CHECKING:
    import pandas as pd


def read_results(out: str | Place) -> pd.DataFrame:
    """The results of a run, one row per image, in the order of the manifest.

    Nested columns hold lists of dicts; see `read_clusters` for the tidy form. Works while the run goes on.

    Raises:
        ResultsError: if `out` is no results folder, or a file of it cannot be read.
    """
    folder = ResultsFolder(out)
    folder.read_run()
    results: pd.DataFrame = read_rows(folder.parts()).to_pandas()
    return results


def read_clusters(out: str | Place) -> pd.DataFrame:
    """The clusters of a run, one row per image, K and cluster.

    Columns: `image_id, k, cluster, pixels, unsure, ratio, ood, pixels_id, pixels_ood, pixels_ignored`;
    `unsure` counts the pixels below the run's tau, `ood` says whether the ratio is over its T.

    Raises:
        ResultsError: if `out` is no results folder, or a file of it cannot be read.
    """
    import pandas as pd

    folder = ResultsFolder(out)
    rule = folder.clustering_rule()
    # File by file, as the tallies of a large run may not fit into memory together.
    files = [[], *([part] for part in folder.parts())]
    columns = [_cluster_columns(file, rule) for file in files]
    return pd.DataFrame({name: np.concatenate([found[name] for found in columns]) for name in columns[0]})


def read_rows(paths: Iterable[Place], columns: list[str] | None = None) -> pa.Table:
    """Rows of finished files, in the order of the files; all columns, or those named.

    Raises:
        ResultsError: if a file cannot be read, is broken, or is of another version.
    """
    names = RESULT_SCHEMA.names if columns is None else columns
    schema = pa.schema([RESULT_SCHEMA.field(name) for name in names])
    return pa.concat_tables([schema.empty_table(), *(_read_part(path, names) for path in paths)])


def check_parts(folder: ResultsFolder, manifest: pa.Table, units: Set[int]) -> None:
    """Before a run is continued, find damaged files of finished units by reading their Parquet footers alone.

    `units` are those that have a file.

    Not in object stores, where a file is read as a whole: there it is found when the run is evaluated.

    Raises:
        ResultsError: a file is broken, of another version, or holds another number of images than its unit has.
    """
    if is_remote(folder.path):
        return
    images = Counter(manifest["unit"].to_pylist())
    for unit in sorted(units & images.keys()):
        with _opened(folder.part(unit)) as file:
            rows = file.metadata.num_rows
        if rows != images[unit]:
            raise ResultsError(
                f"{folder.part(unit)} holds {rows} images, and unit {unit} of this run has {images[unit]}: it is of "
                "another run. Delete the file and run again to remake it"
            )


def _read_part(path: Place, columns: list[str]) -> pa.Table:
    with _opened(path) as file:
        return file.read(columns=columns).select(columns)


@contextlib.contextmanager
def _opened(path: Place) -> Iterator[pq.ParquetFile]:
    try:
        with contextlib.closing(path.open("rb") if is_remote(path) else pa.OSFile(str(path), "r")) as source:
            file = pq.ParquetFile(source)
            if file.schema_arrow.equals(RESULT_SCHEMA):
                yield file
                return
    except (OSError, ValueError, pa.ArrowException) as error:
        # Of broken content pyarrow raises either; an error of the system alone has a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise ResultsError(f"cannot read {path}: {os.strerror(error.errno)}") from error
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ResultsError(f"cannot read {path}: {reason}. Delete the file and run again to remake it") from error
    raise ResultsError(f"{path} was written by another version of oodray; start a new run elsewhere")


def _cluster_columns(files: list[Place], rule: Rule) -> dict[str, NDArray[Any]]:
    table = read_rows(files, ["image_id", "clusters"])
    clusters = clusters_of(table["clusters"])
    return {
        "image_id": table["image_id"].to_numpy()[clusters.row],
        "k": clusters.k,
        "cluster": clusters.cluster,
        "pixels": clusters.pixels,
        "unsure": clusters.unsure(rule.tau),
        "ratio": clusters.ratio,
        "ood": clusters.ood(rule),
        "pixels_id": clusters.labelled(IN_DISTRIBUTION),
        "pixels_ood": clusters.labelled(OOD),
        "pixels_ignored": clusters.labelled(IGNORE),
    }
