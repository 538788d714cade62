"""The results folder: its files, the schema of its rows, writing them whole, reading them back."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from oodray.errors import ResultsError, RunError
from oodray.job.cells import clusters_of
from oodray.metrics.tally import IGNORE, IN_DISTRIBUTION, OOD, first_key_at_least

if TYPE_CHECKING:
    import pandas as pd

_TALLY = [("keys", pa.list_(pa.uint16())), ("labels", pa.list_(pa.uint8())), ("counts", pa.list_(pa.int64()))]

CLUSTER = pa.struct(
    [
        ("k", pa.int16()),
        ("cluster", pa.int16()),
        ("pixels", pa.int64()),
        ("ratio", pa.float64()),
        *_TALLY,
    ]
)
"""One cluster of one image; its tally counts pixels by (confidence key, label)."""

SCORE_TALLY = pa.struct([("score", pa.string()), *_TALLY])
"""One pixel score of one image; its tally counts pixels by (score key, label)."""

STAGES = ("decode", "segment", "cluster", "finish")
"""Stages whose seconds are recorded for every image."""

RESULT_SCHEMA = pa.schema(
    [
        ("unit", pa.int32()),
        ("image_id", pa.string()),
        ("dataset", pa.string()),
        ("image_uri", pa.string()),
        ("label_uri", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("mask_png", pa.binary()),
        ("clusters_png", pa.binary()),
        ("ood_fraction", pa.float64()),
        ("image_score", pa.float64()),
        ("clusters", pa.list_(CLUSTER)),
        ("tallies", pa.list_(SCORE_TALLY)),
        *((f"seconds_{stage}", pa.float64()) for stage in STAGES),
    ]
)
"""One row per image. Every file is written with it, or a file of error rows alone would have null columns."""

OK, ERROR = "ok", "error"


_PART_NAME = re.compile(r"part-(\d{6}|[1-9]\d{6,})\.parquet")


class ResultsFolder:
    """The paths of a results folder, and its small files."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.run = self.path / "run.json"
        self.manifest = self.path / "manifest.parquet"
        self.results = self.path / "results"
        self.metrics = self.path / "metrics.parquet"
        self.metrics_json = self.path / "metrics.json"
        self.pictures = self.path / "pictures"

    def part(self, unit: int) -> Path:
        """The file of a unit. Its name says all, so writing it twice is writing it once."""
        return self.results / f"part-{unit:06d}.parquet"

    def parts(self) -> list[Path]:
        """The finished files, in the order of the units."""
        return [self.part(unit) for unit in sorted(self.finished_units())]

    def finished_units(self) -> set[int]:
        """Units that have a file."""
        names = (_PART_NAME.fullmatch(path.name) for path in self.results.glob("part-*"))
        return {int(name[1]) for name in names if name}

    def remove_leftovers(self) -> None:
        """Remove what a killed run was writing."""
        for folder in (self.path, self.results):
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)

    def read_run(self) -> dict[str, Any]:
        """The content of run.json.

        Raises:
            ResultsError: if this is no results folder.
        """
        try:
            content = json.loads(self.run.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ResultsError(f"{self.path} is not a results folder: it has no run.json") from error
        except (OSError, ValueError) as error:
            raise ResultsError(f"cannot read {self.run}: {error}") from error
        if not isinstance(content, dict) or not content.keys() >= {"config", "identity"}:
            raise ResultsError(f"{self.run} does not describe a run of oodray; choose another folder")
        return content

    def write_run(self, content: Mapping[str, Any]) -> None:
        """Replace run.json, whole."""
        write_json(self.run, content)


def write_part(folder: ResultsFolder, unit: int, rows: list[dict[str, Any]]) -> None:
    """Write the rows of a unit: the file appears whole or not at all.

    Raises:
        RunError: if it cannot be written.
    """
    write_table(pa.Table.from_pylist(rows, schema=RESULT_SCHEMA), folder.part(unit))


def write_table(table: pa.Table, target: Path) -> None:
    """Write a Parquet file that appears whole or not at all.

    Raises:
        RunError: if it cannot be written.
    """
    with _replacing(target) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_json(target: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file that appears whole or not at all. NaN becomes null, as JSON has no word for it.

    Raises:
        RunError: if it cannot be written.
    """
    text = json.dumps(_without_nan(content), indent=2, allow_nan=False)
    with _replacing(target) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` that takes its place when the block ends well."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise RunError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_rows(paths: Iterable[Path], columns: list[str] | None = None) -> pa.Table:
    """Rows of finished files, in the order of the files; all columns, or those named.

    Raises:
        ResultsError: if a file cannot be read.
    """
    names = RESULT_SCHEMA.names if columns is None else columns
    schema = pa.schema([RESULT_SCHEMA.field(name) for name in names])
    return pa.concat_tables([schema.empty_table(), *(_read_part(path, names) for path in paths)])


def _read_part(path: Path, columns: list[str]) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            if file.schema_arrow.equals(RESULT_SCHEMA):
                return file.read(columns=columns).select(columns)
    except (OSError, pa.ArrowException) as error:
        raise ResultsError(f"cannot read {path}: {error}. Delete the file and run again to remake it") from error
    raise ResultsError(f"{path} was written by another version of oodray; start a new run elsewhere")


def read_results(out: str | Path) -> pd.DataFrame:
    """The results of a run, one row per image, in the order of the manifest.

    Nested columns hold lists of dicts; see `read_clusters` for the tidy form. Works while the run goes on.

    Raises:
        ResultsError: if `out` is no results folder.
    """
    folder = _opened(out)
    results: pd.DataFrame = read_rows(folder.parts()).to_pandas()
    return results


def read_clusters(out: str | Path) -> pd.DataFrame:
    """The clusters of a run, one row per image, K and cluster.

    Columns: `image_id, k, cluster, pixels, unsure, ratio, ood, pixels_id, pixels_ood, pixels_ignored`;
    `unsure` counts the pixels below the run's tau, `ood` says whether the ratio is over its T.

    Raises:
        ResultsError: if `out` is no results folder.
    """
    import pandas as pd

    folder = _opened(out)
    config = folder.read_run()["config"]
    # File by file, as the tallies of a large run may not fit into memory together.
    files = [[], *([part] for part in folder.parts())]
    columns = [_cluster_columns(file, config["tau"], config["ood_ratio"]) for file in files]
    return pd.DataFrame({name: np.concatenate([found[name] for found in columns]) for name in columns[0]})


def _cluster_columns(files: list[Path], tau: float, ood_ratio: float) -> dict[str, NDArray[Any]]:
    table = read_rows(files, ["image_id", "clusters"])
    clusters = clusters_of(table["clusters"])
    return {
        "image_id": table["image_id"].to_numpy()[clusters.row],
        "k": clusters.k,
        "cluster": clusters.cluster,
        "pixels": clusters.pixels,
        "unsure": clusters.unsure(first_key_at_least(tau)),
        "ratio": clusters.ratio,
        "ood": clusters.ood(tau, ood_ratio),
        "pixels_id": clusters.labelled(IN_DISTRIBUTION),
        "pixels_ood": clusters.labelled(OOD),
        "pixels_ignored": clusters.labelled(IGNORE),
    }


def _opened(out: str | Path) -> ResultsFolder:
    folder = ResultsFolder(out)
    folder.read_run()
    return folder
