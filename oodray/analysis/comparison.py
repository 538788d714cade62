"""Several runs under one convention, grouped by what they were run on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from oodray.analysis.evaluation import Evaluation, measure_run
from oodray.analysis.files import CountedFiles
from oodray.datasets.manifest import image_ids, read_manifest
from oodray.errors import ResultsError
from oodray.metrics.conventions import Convention
from oodray.results.folder import ResultsFolder
from oodray.results.reading import finished_units
from oodray.results.rows import OK
from oodray.storage.place import Place


@dataclass(frozen=True)
class Compared:
    """One run of a comparison.

    Attributes:
        path: its folder.
        dataset: the name of its dataset.
        model: the network's name; None for imported scores.
        image_ids: its images.
        measured: those that its numbers are of: images that failed or are not done are in none.
        evaluation: what it is worth, the convention asked for being the last.
    """

    path: Place
    dataset: str
    model: str | None
    image_ids: frozenset[str]
    measured: frozenset[str]
    evaluation: Evaluation


def compare_runs(
    folders: Sequence[ResultsFolder], conventions: Sequence[Convention], resamples: int = 0
) -> dict[str, list[Compared]]:
    """The runs by dataset, in the order given, each with its metrics under some conventions.

    Raises:
        DatasetError: an image lacks a class, which a convention refuses.
        ResultsError: a folder holds no results.
    """
    runs: dict[str, list[Compared]] = {}
    for folder in folders:
        content, files = folder.read_run(), CountedFiles.of(folder)
        run = Compared(
            path=folder.path,
            dataset=str(content["config"]["dataset"]),
            model=content.get("model"),
            image_ids=frozenset(image_ids(read_manifest(folder.manifest))),
            measured=frozenset(_measured(files)),
            evaluation=measure_run(folder, conventions, resamples, files=files),
        )
        runs.setdefault(run.dataset, []).append(run)
    return runs


def _measured(files: CountedFiles) -> Iterator[str]:
    for table in files.tables(["image_id", "status"]):
        ids: Any = table.filter(pc.equal(table["status"], pa.scalar(OK)))["image_id"]
        yield from ids.to_pylist()


def runs_below(folder: Path) -> tuple[list[ResultsFolder], list[Path]]:
    """The results folders at any depth below a folder, and those among them that hold no results yet.

    Raises:
        ResultsError: there is none.
    """
    found, empty = [], []
    for path in sorted(path.parent for path in folder.rglob("run.json")):
        run = ResultsFolder(path)
        try:
            run.read_run()
        except ResultsError:
            continue  # a run.json of something else
        if run.manifest.exists() and finished_units(run):
            found.append(run)
        else:
            empty.append(path)
    if not found:
        raise ResultsError(f"no results of a run below {folder}; `oodray run --out {folder}/NAME` makes some")
    return found, empty
