"""Several runs under one convention, grouped by what they were run on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oodray.analysis.evaluation import Evaluation, measure_run
from oodray.datasets.manifest import image_ids, read_manifest
from oodray.metrics.conventions import Convention
from oodray.results.folder import ResultsFolder
from oodray.storage.place import Place


@dataclass(frozen=True)
class Compared:
    """One run of a comparison.

    Attributes:
        path: its folder.
        dataset: the name of its dataset.
        model: the network's name; None for imported scores.
        image_ids: its images.
        evaluation: what it is worth, the convention asked for being the last.
    """

    path: Place
    dataset: str
    model: str | None
    image_ids: frozenset[str]
    evaluation: Evaluation


def compare_runs(folders: Sequence[ResultsFolder], convention: Convention) -> dict[str, list[Compared]]:
    """The runs by dataset, in the order given.

    Raises:
        DatasetError: an image lacks a class, which the convention refuses.
        ResultsError: a folder holds no results.
    """
    runs: dict[str, list[Compared]] = {}
    for folder in folders:
        content = folder.read_run()
        run = Compared(
            path=folder.path,
            dataset=str(content["config"]["dataset"]),
            model=content.get("model"),
            image_ids=frozenset(image_ids(read_manifest(folder.manifest))),
            evaluation=measure_run(folder, [convention]),
        )
        runs.setdefault(run.dataset, []).append(run)
    return runs
