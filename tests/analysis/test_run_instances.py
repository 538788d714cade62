"""Instances of a run: of imported maps, of the mask and of `ratio`, with and without instance images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from oodray.analysis import files, mapped_run
from oodray.analysis.evaluation import measure_run
from oodray.analysis.instances import evaluate_instances, instance_labels_of
from oodray.analysis.mapped_run import MappedRun
from oodray.cli import app
from oodray.datasets.instance_labels import InstanceLabels
from oodray.errors import DatasetError
from oodray.job.imported_maps import imported_maps
from oodray.job.importing import import_scores, make_import
from oodray.metrics.evaluators import LIKE
from oodray.metrics.instances import Instances, instance_metrics, objects_of
from oodray.results.folder import ResultsFolder
from oodray.results.reading import pieces

SIZE = (40, 60)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Three images of two touching objects, and maps that find one of them, both as one, and nothing."""
    root = tmp_path / "data"
    for folder in ("images", "labels", "maps"):
        (root / folder).mkdir(parents=True)
    random = np.random.default_rng(3)
    for number in range(3):
        labels = np.zeros(SIZE, np.uint8)
        labels[5:15, 10:20] = labels[5:15, 20:32] = 1
        labels[35:] = 255
        scores = random.random(SIZE).astype(np.float32) * 0.4
        scores[5:15, 10 : (20, 32, 10)[number]] += 2
        Image.new("RGB", SIZE[::-1]).save(root / "images" / f"{number}.png")
        Image.fromarray(labels).save(root / "labels" / f"{number}.png")
        np.save(root / "maps" / f"{number}.npy", scores)
    return root


@pytest.fixture
def imported(dataset: Path, tmp_path: Path) -> ResultsFolder:
    folder = ResultsFolder(tmp_path / "out")
    import_scores(make_import("folder", dataset, dataset / "maps", score="mine"), folder, lambda _: None)
    return folder


def ids_of(number: int) -> NDArray[np.uint16]:
    ids = np.zeros(SIZE, np.uint16)
    ids[5:15, 10:20], ids[5:15, 20:32] = 26000, 26001 + number
    return ids


def with_ids(folder: Path, numbers: range) -> Path:
    folder.mkdir()
    for number in numbers:
        Image.fromarray(ids_of(number)).save(folder / f"{number}_instanceIds.png")
    return folder


def by_hand(dataset: Path, threshold: float, *, ids: bool) -> list[Instances]:
    found = []
    for number in range(3):
        scores = np.load(dataset / "maps" / f"{number}.npy")
        labels = np.asarray(Image.open(dataset / "labels" / f"{number}.png"))
        objects = objects_of(labels, ids_of(number) if ids else None)
        found.append(Instances.of(scores.astype(np.float16).astype(np.float64) > threshold, scores, objects, labels))
    return found


@pytest.mark.parametrize("ids", [False, True])
def test_imported_maps_at_the_threshold_of_the_curve(
    imported: ResultsFolder, dataset: Path, tmp_path: Path, ids: bool
) -> None:
    folder = with_ids(tmp_path / "ids", range(3)) if ids else None
    report = evaluate_instances(
        MappedRun.of(imported, read_map=imported_maps(imported)), instance_labels_of(imported, folder)
    )
    [smiyc] = measure_run(imported, [LIKE["smiyc"]]).of(LIKE["smiyc"])
    [judged] = report.judged
    assert judged.threshold == smiyc.best_f1_threshold
    assert judged.threshold is not None
    expected = by_hand(dataset, judged.threshold, ids=ids)
    assert judged.metrics == instance_metrics(expected)
    assert judged.metrics.objects == (6 if ids else 3)
    assert judged.metrics.ap50 > 0
    assert report.with_ids == (3 if ids else 0)
    rows = pq.read_table(str(imported.instances)).to_pylist()
    things = [row for row in rows if row["kind"] == "object"]
    assert [row["iou"] for row in things] == [iou for image in expected for iou in image.best_iou()[0].tolist()]
    assert {(row["top"], row["bottom"]) for row in things} == {(5, 15)}
    assert [row["confidence"] for row in rows if row["kind"] == "prediction"] == [
        value for image in expected for value in image.confidences.tolist()
    ]
    [summary] = pq.read_table(str(imported.instances_summary)).to_pylist()
    levels = [summary[f"ap_{level}"] for level in range(50, 100, 5)]
    assert (summary["ap"], summary["ap50"]) == (pytest.approx(np.mean(levels)), levels[0])


def test_a_run_has_its_mask_and_its_ratio(undisturbed: Path, tmp_path: Path) -> None:
    folder = ResultsFolder(shutil.copytree(undisturbed, tmp_path / "run"))
    report = evaluate_instances(MappedRun.of(folder), InstanceLabels(), on_ray=False)
    assert [judged.score for judged in report.judged] == ["mask", "ratio"]
    mask, ratio = report.judged
    assert mask.threshold is None
    same = evaluate_instances(MappedRun.of(folder, folder_ratio(folder)), InstanceLabels(), on_ray=False).judged[1]
    # r_k above T is the mask, and the confidence of either is the mean r_k of a region.
    assert same.metrics == mask.metrics
    assert ratio.threshold is not None


def folder_ratio(folder: ResultsFolder) -> float:
    rule = folder.rule()
    assert rule is not None
    return rule.ood_ratio


def test_some_instance_images_are_said_and_none_of_the_run_refused(imported: ResultsFolder, tmp_path: Path) -> None:
    command = ["evaluate", str(imported.path), "--instances", "--threshold", "1"]
    some = CliRunner().invoke(app, [*command, "--instance-labels", str(with_ids(tmp_path / "ids", range(1)))])
    assert some.exit_code == 0, some.output
    assert "instance images in 1 images" in " ".join(some.output.split())
    plain = CliRunner().invoke(app, command)
    assert "two that touch are one" in " ".join(plain.output.split())
    printed = json.loads(CliRunner().invoke(app, [*command, "--json"]).output)
    assert printed["instances"][0]["objects"] == 3
    with pytest.raises(DatasetError, match="is named after an image of"):
        instance_labels_of(imported, with_ids(tmp_path / "other", range(7, 9)))


@pytest.mark.parametrize("option", ["--instance-labels", "--threshold"])
def test_options_of_instances_need_instances(imported: ResultsFolder, option: str) -> None:
    refused = CliRunner().invoke(app, ["evaluate", str(imported.path), option, "1"])
    assert refused.exit_code != 0
    assert refused.exception is not None


def test_imported_scores_may_be_called_mask(imported: ResultsFolder, dataset: Path, tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path / "mask")
    import_scores(make_import("folder", dataset, dataset / "maps", score="mask"), folder, lambda _: None)
    [expected] = evaluate_instances(MappedRun.of(imported, 1.0, imported_maps(imported)), InstanceLabels()).judged
    [judged] = evaluate_instances(MappedRun.of(folder, 1.0, imported_maps(folder)), InstanceLabels()).judged
    assert (judged.score, judged.threshold, judged.metrics) == ("mask", 1.0, expected.metrics)


class WhenAsked(Executor):
    """Does a piece of work when somebody asks for its result."""

    def submit(self, work: Any, /, *arguments: Any, **named: Any) -> Any:
        return SimpleNamespace(result=lambda *_: work(*arguments, **named))


def test_few_rows_are_in_memory_at_once(imported: ResultsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    run = MappedRun.of(imported, 1.0, imported_maps(imported))
    [row, *_] = mapped_run._rows(run.files, run.maps.rule)
    looked_at: list[str] = []

    def rows(*_: object) -> Iterator[Any]:
        for read in range(1, 21):
            assert read - len(looked_at) <= 1 + mapped_run.ROWS_AHEAD
            yield row

    monkeypatch.setattr(mapped_run, "_rows", rows)
    monkeypatch.setattr(mapped_run, "usable_cores", lambda: 1)
    monkeypatch.setattr(mapped_run, "ThreadPoolExecutor", lambda _: WhenAsked())
    found = run.each_image(lambda image: looked_at.append(image.image_id), on_ray=False)
    assert len(found) == len(looked_at) == 20


def test_both_tables_take_the_files_and_the_thresholds_that_were_found_once(
    imported: ResultsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def once(name: str, function: Any) -> Any:
        def counted(*arguments: Any) -> Any:
            asked.append(name)
            return function(*arguments)

        return counted

    monkeypatch.setattr(files, "pieces", once("files", pieces))
    monkeypatch.setattr(mapped_run, "_best_thresholds", once("thresholds", mapped_run._best_thresholds))
    done = CliRunner().invoke(app, ["evaluate", str(imported.path), "--components", "anomaly", "--instances", "--json"])
    assert done.exit_code == 0, done.output
    assert {len(json.loads(done.output)[name]) for name in ("components", "instances")} == {1}
    assert asked == ["files", "thresholds"]
