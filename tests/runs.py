"""Whole runs of a dataset, in this process: what goes in is a folder of images, what comes out is compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakes
import pyarrow as pa
from places import on_disk

from oodray.analysis.evaluation import Evaluation
from oodray.job.executors import executor_of
from oodray.job.plan import make_plan
from oodray.job.run import prepare, run
from oodray.job.units import UnitDone
from oodray.results.folder import ResultsFolder
from oodray.results.reading import read_rows
from oodray.storage.place import path_inside


class Run:
    """What a run leaves and says; with `executor="ray"` on the Ray of the session.

    The network `fakes:colours` is found where the working directory is `tests`.
    """

    def __init__(self, root: Path, out: Path, **options: Any) -> None:
        self.folder = ResultsFolder(out)
        given = {
            "dataset": "ade-ood",
            "root": str(root),
            "model": "fakes:colours",
            "tau": fakes.TAU,
            "threads": 1,
            "executor": "local",
        }
        self.plan = make_plan(given | options, None, self.folder)
        self.heard: list[UnitDone] = []

    def go(self, on_unit: Callable[[UnitDone], None] | None = None, *, retry_errors: bool = False) -> Evaluation:
        """Start or continue it; `on_unit` hears of every unit, in place of `heard`."""
        job = prepare(self.plan, self.folder, retry_errors=retry_errors)
        with executor_of(self.plan.config) as executor:
            return run(job, executor, on_unit or self.heard.append)

    def rows(self) -> pa.Table:
        """All that does not depend on the time or on where the dataset is."""
        table = read_rows(self.folder.parts())
        return table.drop([name for name in table.column_names if name.startswith("seconds") or name.endswith("_uri")])

    def files(self) -> dict[str, int]:
        """Names and times of all files."""
        paths = [path for path in on_disk(self.folder.path).rglob("*") if path.is_file()]
        return {str(path_inside(path, self.folder.path)): path.stat().st_mtime_ns for path in paths}


def rows(out: Path) -> pa.Table:
    """The rows of a results folder, without the times of the stages."""
    table = read_rows(ResultsFolder(out).parts())
    return table.drop([name for name in table.column_names if name.startswith("seconds")])
