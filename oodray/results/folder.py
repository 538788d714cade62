"""The results folder: its files, the schema of its rows, and writing them whole."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from oodray.errors import ResultsError, RunError
from oodray.method.rule import Rule
from oodray.metrics.tally import MAX_BITS, snap_threshold
from oodray.results.names import Wave, part_name, unit_of
from oodray.storage.atomic import remove_leftovers, replacing
from oodray.storage.place import Place, storage_path
from oodray.storage.remote import is_remote


class ResultsFolder:
    """The paths of a results folder, all absolute, and its small files."""

    def __init__(self, path: str | Place) -> None:
        # Absolute, as Ray's tasks run in folders of their own.
        self.path = storage_path(path)
        self.run = self.path / "run.json"
        self.manifest = self.path / "manifest.parquet"
        self.results = self.path / "results"
        self.metrics = self.path / "metrics.parquet"
        self.metrics_json = self.path / "metrics.json"
        self.components = self.path / "components.parquet"
        self.components_summary = self.path / "components_summary.parquet"
        self.instances = self.path / "instances.parquet"
        self.instances_summary = self.path / "instances_summary.parquet"
        self.totals = self.path / "totals"
        self.sweep = self.path / "sweep.parquet"
        self.heat_maps = self.path / "sweep"
        self.pictures = self.path / "pictures"
        self.report = self.path / "report.html"
        self.report_files = self.path / "report-files"
        self.log = self.path / "log.jsonl"
        self.calibration = self.path / "calibration"
        self.dataset = self.path / "dataset"
        self.reference = self.path / "reference"

    def part(self, unit: int) -> Place:
        """The file of its own that a unit has until its wave is closed."""
        wave = None if is_remote(self.path) else self.wave_of(unit)
        return (self.results if wave is None else self.results / wave.name) / part_name(unit)

    def parts(self) -> list[Place]:
        """The files of finished units, in their order; those of a closed wave have one file together."""
        listed = [*self.results.glob("part-*")]
        waves = [(wave, path) for path in listed if (wave := Wave.of(path.name)) is not None]
        found = [part for wave, path in waves for part in self._parts_of(wave, path)]
        for path in listed:
            unit = unit_of(path.name)
            # In an object store, beside a closed wave, its units are about to be removed.
            if unit is not None and not (is_remote(path) and any(unit in wave for wave, _ in waves)):
                found.append((unit, path))
        return [path for _, path in sorted(found)]

    def waves(self) -> list[Wave]:
        """The waves of the run, in their order; in an object store those that are closed."""
        found = (Wave.of(path.name) for path in self.results.glob("part-*"))
        return sorted(wave for wave in found if wave is not None)

    def wave_of(self, unit: int) -> Wave | None:
        """The wave of a unit, None where there is none."""
        return next((wave for wave in self.waves() if unit in wave), None)

    def is_open(self, wave: Wave) -> bool:
        """Whether the units of a wave have files of their own: its name is a link to their folder.

        In a copy that was made along links it is a folder itself.
        """
        return not is_remote(self.path) and (self.results / wave.name).is_dir()

    def file_of(self, unit: int) -> Place | None:
        """The file with the rows of a unit, its own or that of its wave; None where there is none."""
        wave = self.wave_of(unit)
        if wave is not None and not self.is_open(wave):
            return self.results / wave.name
        part = self.part(unit)
        return part if part.exists() else None

    def _parts_of(self, wave: Wave, path: Place) -> list[tuple[int, Place]]:
        if not self.is_open(wave):
            return [(wave.first, path)]
        units = ((unit_of(part.name), part) for part in path.glob("part-*"))
        found = [(unit, part) for unit, part in units if unit is not None]
        # It may have been closed since.
        return found if self.is_open(wave) else [(wave.first, path)]

    def create(self) -> None:
        """Make the folder and `results/`, so that reading finds a table without files rather than nothing.

        Raises:
            RunError: if they cannot be made.
        """
        try:
            self.results.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the folder {self.results}: {error.strerror}") from error

    def remove_leftovers(self) -> None:
        """Remove what a killed process was writing."""
        remove_leftovers(self.path)
        for folder in (self.results, self.pictures, self.dataset):
            remove_leftovers(folder, recursive=True)

    def read_run(self) -> dict[str, Any]:
        """The content of run.json.

        Raises:
            ResultsError: if this is no results folder.
        """
        try:
            content = json.loads(self.run.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ResultsError(f"{self.path} is not a results folder: it has no run.json") from error
        except OSError as error:
            raise ResultsError(f"cannot read {self.run}: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise ResultsError(
                f"{self.run} is damaged ({error}): put a copy of it back, or choose another --out"
            ) from error
        if not isinstance(content, dict) or not all(isinstance(content.get(n), dict) for n in ("config", "identity")):
            raise ResultsError(f"{self.run} does not describe a run of oodray; choose another folder")
        return content

    def is_finished(self) -> bool:
        """Whether the run that it holds, if any, has come to its end."""
        return self.run.exists() and "finished" in self.read_run()

    def rule(self) -> Rule | None:
        """The K, tau and T of the run, tau moved to an edge where its tallies are coarse; None for imported scores.

        Raises:
            ResultsError: if this is no results folder.
        """
        content = self.read_run()
        if "imported" in content:
            return None
        config = content["config"]
        try:
            tau = snap_threshold(config["tau"], config.get("confidence_bits", MAX_BITS))
            return Rule(config["k"], tau, config["ood_ratio"])
        except (KeyError, TypeError) as error:
            raise ResultsError(
                f"{self.run} does not say with which K, tau and T it ran; choose another folder"
            ) from error

    def score_names(self) -> list[str]:
        """The scores of the run, as its tallies name them.

        Raises:
            ResultsError: if this is no results folder.
        """
        content = self.read_run()
        return list(content.get("scores", content["config"].get("scores", ())))

    def class_names(self) -> tuple[str, ...]:
        """The names of the network's classes, by number; none where they are not known.

        Raises:
            ResultsError: if this is no results folder.
        """
        return tuple(self.read_run().get("class_names", ()))

    def clustering_rule(self) -> Rule:
        """The rule of a run that clustered.

        Raises:
            ResultsError: if this is no results folder, or one of imported scores.
        """
        rule = self.rule()
        if rule is None:
            raise ResultsError(f"{self.path} holds imported scores, which have no clusters: K, tau and T are of runs")
        return rule

    def write_run(self, content: Mapping[str, Any]) -> None:
        """Replace run.json, whole."""
        write_json(self.run, content)


def default_out(dataset: str, root: str | None, *, before: str = "", shard: str | None = None) -> Path:
    """Where the results of a run go that names no folder: below `runs/`, by its dataset and the name of its root.

    Each share of a run has a folder of its own.

    >>> [str(default_out("folder", root)) for root in ("photos/", "summer/*.jpg", "a b.jpg", "s3://bucket/x")]
    ['runs/folder-photos', 'runs/folder-summer', 'runs/folder-a-b', 'runs/folder-x']
    >>> str(default_out("demo", None, before="calibrate-"))
    'runs/calibrate-demo'
    >>> str(default_out("folder", "photos", shard="2/4"))
    'runs/folder-photos-2-of-4'
    """
    parts = [part for part in ("" if root is None else str(storage_path(root))).split("/") if part]
    while len(parts) > 1 and any(character in parts[-1] for character in "*?["):
        parts.pop()
    name = re.sub(r"\.[A-Za-z]\w{1,6}$", "", parts[-1]) if parts else ""  # that of a file
    name = "-".join(re.findall(r"[\w.-]+", name))
    share = "" if shard is None else f"-{shard.replace('/', '-of-')}"
    return Path("runs") / f"{before}{dataset}{f'-{name}' if name else ''}{share}"


def write_table(table: pa.Table, target: Place) -> None:
    """Write a Parquet file that appears whole or not at all.

    Raises:
        RunError: if it cannot be written.
    """
    with replacing(target) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_json(target: Place, content: Mapping[str, Any]) -> None:
    """Write a JSON file that appears whole or not at all. NaN becomes null, as JSON has no word for it.

    Raises:
        RunError: if it cannot be written.
    """
    text = json.dumps(without_nan(content), indent=2, allow_nan=False)
    with replacing(target) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def without_nan(value: Any) -> Any:
    """Plain values with None for NaN.

    >>> without_nan({"ap": [math.nan, 0.5]})
    {'ap': [None, 0.5]}
    """
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
