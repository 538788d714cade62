"""Results read back: the rows of finished files, and the pandas frames of a run."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from oodray.errors import ResultsError
from oodray.method.rule import Rule
from oodray.metrics.tally import IGNORE, IN_DISTRIBUTION, OOD
from oodray.results.cells import clusters_of
from oodray.results.earlier import as_today, is_known
from oodray.results.folder import ResultsFolder
from oodray.results.names import Wave, unit_of
from oodray.results.rows import RESULT_SCHEMA, TALLIES
from oodray.storage.place import Place, open_seekable
from oodray.storage.remote import is_remote

if TYPE_CHECKING:
    import pandas as pd

_ATTEMPTS = 4
_ROW_BUFFER = 2**20
"""Bytes of a column that are read at once where single rows are wanted; 0 reads the column of a row group whole."""

_VALUES_AT_ONCE = 2**21
"""Values that are read at once to be counted: Arrow takes some 20 bytes for each while it reads."""

_LARGE = frozenset({"mask_png", "clusters_png", "clusters", "tallies", "maps", "classes"})
"""Columns of which the rows of a closed wave may not fit into memory together."""

_REMAKE = "Delete the file and run again to remake it"


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
    files = [[], *([piece] for piece in pieces(folder.parts()))]
    columns = [_cluster_columns(file, rule) for file in files]
    return pd.DataFrame({name: np.concatenate([found[name] for found in columns]) for name in columns[0]})


@dataclass(frozen=True)
class RowGroup:
    """A row group of a file: what a closed wave is read by, as the whole of it may not fit into memory.

    Attributes:
        path: of the file.
        group: its number in it.
        units: the first and the last unit that it has rows of.
    """

    path: Place
    group: int
    units: tuple[int, int]

    @property
    def stem(self) -> str:
        """A name for what is made of it."""
        return f"{self.path.stem}-{self.group:04d}"


@dataclass(frozen=True)
class ClosedWave:
    """What the footer of a closed wave says of it, see `oodray.results.waves`.

    Attributes:
        first: unit.
        last: unit; all between are there, too.
        began: when the first of its units had a file, in seconds since the epoch.
        ended: when the last had.
        images_of_the_first: rows of the unit that was first.
    """

    first: int
    last: int
    began: float
    ended: float
    images_of_the_first: int


CLOSED_KEY = "oodray.wave"
"""Of a `ClosedWave`, as JSON, in the footer of its file."""


def read_rows(paths: Iterable[Place | RowGroup], columns: list[str] | None = None) -> pa.Table:
    """Rows of finished files, or row groups of them, in their order; all columns, or those named.

    Raises:
        ResultsError: if a file cannot be read, is broken, or is of another version.
    """
    names = RESULT_SCHEMA.names if columns is None else columns
    tables = [*read_each(paths, names)]
    schema = pa.schema([RESULT_SCHEMA.field(name) for name in names])
    return pa.concat_tables(tables) if tables else schema.empty_table()


def read_each(paths: Iterable[Place | RowGroup], columns: list[str]) -> Iterator[pa.Table]:
    """Some columns of the rows of each file, or row group, one after the other.

    A file is opened once for all its row groups that are asked for in a row: the footer of a closed wave takes as long
    as several images.

    Raises:
        ResultsError: as `read_rows`.
    """
    for file, parts in itertools.groupby(paths, wave_of):
        if file is None:
            yield from (_read(part, columns) for part in parts if not isinstance(part, RowGroup))
        else:
            groups = [part.group for part in parts if isinstance(part, RowGroup)]
            with _opened(file) as opened:
                if _LARGE.isdisjoint(columns):
                    yield from _read_together(opened, groups, columns)
                    continue
                for group in groups:
                    yield as_today(opened.read_row_group(group, columns, use_threads=False), columns)


def read_to_count(paths: Iterable[Place | RowGroup], columns: list[str]) -> Iterator[pa.Table]:
    """Some columns of the rows of files and row groups, in their order: a file at a time, a few rows of a row group.

    Tallies of closed waves come without the label of each key where `KEYS_OF_LABELS` say the same: to read them takes a
    third less time.

    Raises:
        ResultsError: as `read_rows`.
    """
    for file, parts in itertools.groupby(paths, wave_of):
        if file is None:
            yield from read_each(parts, columns)
            continue
        groups = [part.group for part in parts if isinstance(part, RowGroup)]
        with _opened(file) as opened:
            wanted = _without_labels(opened, columns)
            for group in groups:
                rows = _rows_at_once(opened.metadata.row_group(group))
                for batch in opened.iter_batches(rows, [group], wanted, use_threads=False):
                    yield as_today(pa.Table.from_batches([batch]), columns, labels=False)


def wave_of(path: Place | RowGroup) -> Place | None:
    """The file of the closed wave that a row group is of; None of a file."""
    return path.path if isinstance(path, RowGroup) else None


def _rows_at_once(group: pq.RowGroupMetaData) -> int:
    """How many rows of a row group have about `_VALUES_AT_ONCE` values, at least one. A packed tally is one value."""
    values = sum(group.column(number).num_values for number in range(group.num_columns))
    return max(1, _VALUES_AT_ONCE * group.num_rows // max(1, values))


def _read_together(file: pq.ParquetFile, groups: list[int], columns: list[str]) -> Iterator[pa.Table]:
    """Small columns of row groups: each group alone takes a millisecond, and a large run has thousands."""
    table = as_today(file.read_row_groups(groups, columns, use_threads=False), columns)
    start = 0
    for group in groups:
        rows = file.metadata.row_group(group).num_rows
        yield table.slice(start, rows)
        start += rows


def _without_labels(file: pq.ParquetFile, columns: list[str]) -> list[str]:
    """Columns as a reader of Parquet wants them: of tallies as they are written today, all fields but the labels."""
    # Not of `file.schema`: it refers to its file and the file to it, so that footers of megabytes stay for a while.
    columns_of_group = file.metadata.row_group(0)
    paths = {columns_of_group.column(number).path_in_schema for number in range(columns_of_group.num_columns)}
    wanted = []
    for name in columns:
        kind = RESULT_SCHEMA.field(name).type
        # Other writers may call what is in a list otherwise, and a path that is not there is left out without a word.
        if (
            name in TALLIES
            and _path(name, "labels.list.element") in paths
            and file.schema_arrow.field(name).type == kind
        ):
            wanted += [_path(name, field.name) for field in kind.value_type if field.name != "labels"]
        else:
            wanted.append(name)
    return wanted


def _path(column: str, field: str) -> str:
    """The path of a field of what a list holds, in a file of Parquet."""
    return f"{column}.list.element.{field}"


def read_unit(folder: ResultsFolder, unit: int, columns: list[str] | None = None) -> pa.Table:
    """The rows of a unit, which may share a file with others.

    Raises:
        ResultsError: as `read_rows`; it has no file.
    """
    names = RESULT_SCHEMA.names if columns is None else columns
    path = folder.file_of(unit) or folder.part(unit)
    return read_rows([path], names) if unit_of(path.name) == unit else _rows_of_unit(path, unit, names)


def read_row(folder: ResultsFolder, unit: int, image_id: str, columns: list[str]) -> pa.Table:
    """The row of an image of a unit, as a table of one row, or of none; of other rows little more than ids is read.

    Raises:
        ResultsError: as `read_rows`; the unit has no file.
    """
    path = folder.file_of(unit) or folder.part(unit)
    if unit_of(path.name) == unit:
        rows = read_rows([path], [*dict.fromkeys(["image_id", *columns])])
        return rows.filter(pc.equal(rows["image_id"], pa.scalar(image_id))).slice(0, 1).select(columns)
    with _opened(path, _ROW_BUFFER) as file:
        for group in range(file.num_row_groups):
            first, last = _units_in(file, group)
            if first <= unit <= last:
                at = pc.index(file.read_row_group(group, ["image_id"])["image_id"], image_id).as_py()
                if at >= 0:
                    batches = file.iter_batches(1, [group], columns, use_threads=False)
                    return as_today(pa.Table.from_batches([next(itertools.islice(batches, at, None))]), columns)
    return pa.schema([RESULT_SCHEMA.field(name) for name in columns]).empty_table()


def few_rows(part: Place | RowGroup, columns: list[str], most: int = 4) -> Iterator[pa.Table]:
    """The rows of a part, at most so many at a time, for what takes much memory for each of them.

    Raises:
        ResultsError: as `read_rows`.
    """
    if not isinstance(part, RowGroup):
        table = read_rows([part], columns)
        yield from (table.slice(start, most) for start in range(0, table.num_rows, most))
        return
    with _opened(part.path, _ROW_BUFFER) as file:
        for batch in file.iter_batches(most, [part.group], columns, use_threads=False):
            yield as_today(pa.Table.from_batches([batch]), columns)


def row_groups(path: Place, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Rows of a file, some at a time.

    Raises:
        ResultsError: as `read_rows`.
    """
    return (read_rows([group], columns) for group in pieces([path]))


def pieces(paths: Iterable[Place]) -> list[Place | RowGroup]:
    """What to read of some files at a time: the files of units, and row groups of closed waves.

    Raises:
        ResultsError: as `read_rows`.
    """
    found: list[Place | RowGroup] = []
    for path in paths:
        if Wave.of(path.name) is None:
            found.append(path)
            continue
        try:
            with _opened(path) as file:
                groups = range(file.metadata.num_row_groups)
                found += [RowGroup(path, group, _units_in(file, group)) for group in groups]
        except ResultsError:
            if not path.is_dir():
                raise
            found.append(path)  # it was opened again just now
    return found


def closed_wave(path: Place) -> ClosedWave | None:
    """What the footer of a file says of the wave that it holds; None where it is no closed wave.

    Raises:
        ResultsError: as `read_rows`.
    """
    if Wave.of(path.name) is None:
        return None
    with _opened(path) as file:
        said = (file.metadata.metadata or {}).get(CLOSED_KEY.encode())
    try:
        return ClosedWave(**json.loads(said or b""))
    except (ValueError, TypeError) as error:
        raise ResultsError(f"cannot read {path}: its footer does not say which units it holds. {_REMAKE}") from error


def footer_of(path: Place) -> bytes:
    """What the footer of a file says, byte by byte: where each column lies, its statistics, and which wave it is.

    Raises:
        ResultsError: as `read_rows`.
    """
    with _opened(path) as file:
        target = pa.BufferOutputStream()
        file.metadata.write_metadata_file(target)
    return target.getvalue().to_pybytes()


def count_rows(path: Place) -> int:
    """How many rows a file has, by its footer.

    Raises:
        ResultsError: as `read_rows`.
    """
    with _opened(path) as file:
        return int(file.metadata.num_rows)


def finished_units(folder: ResultsFolder) -> frozenset[int]:
    """The units that have rows: of closed waves as their footers say, of others by the names of their files.

    Raises:
        ResultsError: as `read_rows`.
    """
    units: set[int] = set()
    for path in folder.parts():
        unit, closed = unit_of(path.name) or 0, closed_wave(path)
        units.update([unit] if closed is None else range(closed.first, closed.last + 1))
    return frozenset(units)


def check_parts(folder: ResultsFolder, manifest: pa.Table) -> None:
    """Before a run is continued, find damaged files of finished units by reading their Parquet footers alone.

    Not in object stores, where a file is read as a whole: there it is found when the run is evaluated.

    Raises:
        ResultsError: a file is broken, of another version, or holds another number of images than its unit has.
    """
    if is_remote(folder.path):
        return
    images = np.bincount(manifest["unit"].to_numpy())
    for path in folder.parts():
        unit, closed = unit_of(path.name), closed_wave(path)
        first, last = (closed.first, closed.last) if closed else (unit or 0, unit or 0)
        if last >= len(images):
            continue
        expected = int(images[first : last + 1].sum())
        with _opened(path) as file:
            rows = file.metadata.num_rows
        if rows != expected:
            of = f"unit {first}" if first == last else f"units {first} to {last}"
            have = "has" if first == last else "have"
            raise ResultsError(
                f"{path} holds {rows} images, and {of} of this run {have} {expected}: it is of another run. {_REMAKE}"
            )


def _read(path: Place, columns: list[str]) -> pa.Table:
    in_a_wave = is_remote(path) or Wave.of(path.name) is not None or Wave.of(path.parent.name) is not None
    for _ in range(_ATTEMPTS - 1 if in_a_wave else 0):
        # It may be closed, or opened, at this very moment.
        with contextlib.suppress(ResultsError):
            return _rows_wherever(path, columns)
    return _rows_wherever(path, columns)


def _rows_wherever(path: Place, columns: list[str]) -> pa.Table:
    """The rows of a file; they lie elsewhere where its wave has been closed, or opened, since the folder was listed."""
    unit = unit_of(path.name)
    if unit is not None and Wave.of(path.parent.name) is not None and path.parent.is_file():
        return _rows_of_unit(path.parent, unit, columns)
    if is_remote(path):
        return _rows_in_store(path, columns)
    if Wave.of(path.name) is not None and path.is_dir():
        return read_rows(sorted(path.glob("part-*")), columns)
    with _opened(path) as file:
        return as_today(file.read(columns), columns)


def _rows_in_store(path: Place, columns: list[str]) -> pa.Table:
    try:
        with _opened(path) as file:
            return as_today(file.read(columns), columns)
    except ResultsError:
        there = [*path.parent.glob("part-*")]
        if path in there:
            raise
        unit, own_wave = unit_of(path.name), Wave.of(path.name)
        for other in there:
            if unit is not None and (wave := Wave.of(other.name)) is not None and unit in wave:
                return _rows_of_unit(other, unit, columns)
        units = {found: other for other in there if (found := unit_of(other.name)) is not None}
        if own_wave is None or not any(unit in own_wave for unit in units):
            raise
        return read_rows([units[unit] for unit in sorted(units) if unit in own_wave], columns)


def _rows_of_unit(path: Place, unit: int, columns: list[str]) -> pa.Table:
    """The rows of a unit in the file of a closed wave; other row groups are not read."""
    with _opened(path) as file:
        spans = [_units_in(file, group) for group in range(file.num_row_groups)]
        groups = [group for group, (first, last) in enumerate(spans) if first <= unit <= last]
        table = file.read_row_groups(groups, [*dict.fromkeys(["unit", *columns])])
    return as_today(table.filter(pa.array(table["unit"].to_numpy() == unit)), columns)


def _units_in(file: pq.ParquetFile, group: int) -> tuple[int, int]:
    """The first and the last unit of a row group, by what the footer says."""
    at = file.schema_arrow.names.index("unit")  # the first columns are plain, so their order is that in the footer
    known = file.metadata.row_group(group).column(at).statistics
    if known is not None and known.min is not None and known.max is not None:
        return known.min, known.max
    units = file.read_row_group(group, ["unit"])["unit"]
    return (pc.min(units).as_py(), pc.max(units).as_py()) if len(units) else (0, 0)


@contextlib.contextmanager
def _opened(path: Place, buffer_size: int = 0) -> Iterator[pq.ParquetFile]:
    try:
        with contextlib.closing(_source(path)) as source:
            file = pq.ParquetFile(source, buffer_size=buffer_size)
            if is_known(file.schema_arrow):
                yield file
                return
    except (OSError, ValueError, pa.ArrowException) as error:
        # Of broken content pyarrow raises either; an error of the system alone has a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise ResultsError(f"cannot read {path}: {os.strerror(error.errno)}") from error
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ResultsError(f"cannot read {path}: {reason}. {_REMAKE}") from error
    raise ResultsError(f"{path} was written by another version of oodray; start a new run elsewhere")


def _source(path: Place) -> Any:
    """A file to read from: of a large one in an object store only what is read, a small one in one request."""
    if not is_remote(path):
        return pa.OSFile(str(path), "r")
    return path.open("rb") if Wave.of(path.name) is None else open_seekable(path)


def _cluster_columns(files: list[Place | RowGroup], rule: Rule) -> dict[str, NDArray[Any]]:
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
