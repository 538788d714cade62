"""Runs of the tiny dataset, started as the command line starts them, in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakes
import pyarrow as pa
from places import on_disk

from oodray.analysis.evaluation import Evaluation
from oodray.datasets.manifest import read_manifest
from oodray.job.executors import executor_of
from oodray.job.pipeline import Executor, Job
from oodray.job.plan import make_plan
from oodray.job.run import prepare, run
from oodray.job.units import UnitDone
from oodray.results.folder import ResultsFolder
from oodray.results.reading import read_rows
from oodray.results.waves import open_waves
from oodray.storage.place import path_inside

TESTS = Path(__file__).parent
"""The working directory of these runs: their networks are found in it."""


def in_parts(folder: ResultsFolder) -> ResultsFolder:
    """A folder whose units have files of their own again, so that a test can take one away, or spoil it."""
    manifest = read_manifest(folder.manifest)
    open_waves(folder, manifest, manifest["unit"].to_numpy().tolist())
    return folder


class Run:
    """A run, and what it left and said; with `executor="ray"` on the Ray of the session."""

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

    def prepare(self, *, retry_errors: bool = False, append: bool = False) -> Job:
        """What is left to do."""
        return prepare(self.plan, self.folder, retry_errors=retry_errors, append=append)

    def go(
        self,
        on_unit: Callable[[UnitDone], None] = lambda _: None,
        *,
        retry_errors: bool = False,
        append: bool = False,
        executor: Executor | None = None,
    ) -> Evaluation:
        """Start it, or continue it, with the executor that it asks for where none is given."""
        return self.do(self.prepare(retry_errors=retry_errors, append=append), on_unit, executor=executor)

    def do(
        self, job: Job, on_unit: Callable[[UnitDone], None] = lambda _: None, *, executor: Executor | None = None
    ) -> Evaluation:
        """Do what is left."""

        def hear(done: UnitDone) -> None:
            self.heard.append(done)
            on_unit(done)

        with executor or executor_of(self.plan.config) as entered:
            return run(job, entered, hear)

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
