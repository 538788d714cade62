"""Whole runs of a folder of images, compared with the stages alone.

Most are done in this process. On Ray is done what other processes change: where units travel as tables, workers that
are several, that die, or that Ray cannot give.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from PIL import Image
from places import on_disk
from ray import cloudpickle
from runs import TESTS, Run, in_parts, rows

from oodray.analysis.evaluation import evaluate_run
from oodray.datasets import manifest as manifest_module
from oodray.datasets.manifest import images_by_unit
from oodray.errors import ConfigError, ModelError, ResultsError, RunError
from oodray.job.attempts import ATTEMPTS, DIED
from oodray.job.decoder import Decoder
from oodray.job.executors.local import LocalExecutor
from oodray.job.finisher import Finisher
from oodray.job.worker import Worker
from oodray.models.loading import load_segmenter
from oodray.results.folder import ResultsFolder
from oodray.results.reading import finished_units, read_rows

pytestmark = pytest.mark.timeout(240)

Start = Callable[..., Run]

LOCAL_AND_IN_SOAK_RAY = ["local", pytest.param("ray", marks=pytest.mark.soak)]


@pytest.fixture
def start(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Makes runs; the network is found in the working directory."""
    monkeypatch.chdir(TESTS)

    def prepared(out: str = "out", **options: Any) -> Run:
        return Run(tiny_root, tmp_path / out, **options)

    return prepared


@pytest.fixture
def on_ray(ray_session: None, start: Start) -> Start:
    """Makes runs on the Ray of the session."""
    return partial(start, executor="ray")


@pytest.fixture
def on_either(request: pytest.FixtureRequest, start: Start) -> Start:
    """Makes runs with one of the executors, which the test names."""
    if request.param == "ray":
        request.getfixturevalue("ray_session")
    return partial(start, executor=request.param)


def mark(root: Path, name: str) -> None:
    path = root / f"images/{name}.png"
    image = np.array(Image.open(path))
    image[0, 0] = fakes.MARK
    Image.fromarray(image).save(path)


def test_a_run_is_its_stages_one_after_the_other(clean: Run, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    method = clean.plan.method()
    decoder, finisher = Decoder(clean.plan.layout.label_codes), Finisher(method, str(tmp_path))
    worker = Worker(load_segmenter(clean.plan.model), method)
    for images in images_by_unit(clean.plan.manifest).values():
        finisher(worker(decoder(images)))
    torch.set_num_threads(threads)
    alone = ResultsFolder(tmp_path)
    assert read_rows(alone.parts()).num_rows == 10
    names = clean.rows().column_names
    assert read_rows(alone.parts(), names).equals(clean.rows())
    assert clean.rows()["status"].to_pylist() == ["ok"] * 10


def test_the_box_that_the_network_was_never_taught_is_found(clean: Run) -> None:
    evaluation = evaluate_run(clean.folder)
    by_score = {metrics.score: metrics for metrics in evaluation.scores}
    # The features are coarse next to a box of 24 pixels.
    assert by_score["ratio"].ap > 0.7
    assert by_score["max-logit"].ap > 0.95
    assert evaluation.mask.iou > 0.5


def test_every_unit_is_heard_of_once(clean: Run) -> None:
    assert sum(unit.ok for unit in clean.heard) == 10
    assert sum(unit.failed for unit in clean.heard) == 0


def test_the_folder_describes_the_run(clean: Run, tiny_dataset: Path) -> None:
    assert set(clean.files()) == {
        "run.json",
        "manifest.parquet",
        "metrics.parquet",
        "metrics.json",
        "results/part-000000-000009.parquet",
    }
    described = clean.folder.read_run()
    assert described["dataset"] == {"name": "ade-ood", "root": str(tiny_dataset), "images": 10}
    assert described["images"] == {"ok": 10, "failed": 0}
    assert described["config"]["k"] == 6
    assert described["identity"] == clean.plan.identity()
    assert described["seconds"] > 0
    assert described["finished"] >= described["started"]


@pytest.fixture(scope="module")
def continued(clean: Run, ray_session: None, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the clean run, half of it lost and done again by two workers of Ray's; given as a relative path."""
    out = Path(shutil.copytree(on_disk(clean.folder.path), tmp_path_factory.mktemp("continued") / "out"))
    for unit in range(5):
        in_parts(ResultsFolder(out)).part(unit).unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(TESTS)
        run = Run(tiny_dataset, Path(os.path.relpath(out)), executor="ray", workers=2)
        # Ray's workers were started in another working directory, and the driver may go on to a third.
        patch.chdir("/")
        run.go()
    assert sum(unit.ok for unit in run.heard) == 5
    return out


def test_workers_of_ray_write_the_same(clean: Run, continued: Path) -> None:
    assert rows(continued).equals(rows(on_disk(clean.folder.path)))
    assert ResultsFolder(continued).metrics_json.read_bytes() == clean.folder.metrics_json.read_bytes()


def test_what_this_process_began_ray_continues(clean: Run, continued: Path) -> None:
    # With the seconds that they took.
    kept, before = (read_rows(folder.parts()).slice(5) for folder in (ResultsFolder(continued), clean.folder))
    assert kept.equals(before)


def test_a_relative_folder_is_below_the_working_directory_at_its_start(continued: Path) -> None:
    assert [path.name for path in (continued / "results").iterdir()] == ["part-000000-000009.parquet"]


@pytest.mark.soak
def test_workers_on_gpus_give_the_same(clean: Run, on_ray: Start) -> None:
    other = on_ray(gpus_per_worker=0.5, workers=3)
    assert other.plan.device == "cuda"
    other.go()
    assert other.rows().equals(clean.rows())


@pytest.mark.soak
@pytest.mark.parametrize("gpus", [0.0, 1.0])
def test_a_network_takes_one_call_at_a_time(on_ray: Start, gpus: float) -> None:
    alone = on_ray(model="fakes:alone", gpus_per_worker=gpus, workers=1)
    assert (alone.go().images, alone.rows()["error"].drop_null().to_pylist()) == (10, [])


def test_images_share_units_and_batches(clean: Run, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_module, "_WANTED_UNITS", 2)
    other = start(batch_size=2)
    other.go()
    assert finished_units(other.folder) == {0, 1}
    assert other.rows().drop(["unit"]).equals(clean.rows().drop(["unit"]))


def store_turned(path: Path, orientation: int, quarters: int) -> None:
    """The same image, stored turned to the left, with the EXIF orientation that turns it back."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.rot90(np.array(Image.open(path)), quarters)).save(path, exif=exif)


@pytest.mark.parametrize("on_either", LOCAL_AND_IN_SOAK_RAY, indirect=True)
def test_broken_images_are_rows_and_change_no_other(clean: Run, on_either: Start, tiny_root: Path) -> None:
    (tiny_root / "images/02.png").write_bytes(b"<html>not found")
    (tiny_root / "annotations/05_mask.png").unlink()
    mark(tiny_root, "08")
    store_turned(tiny_root / "images/00.png", orientation=6, quarters=1)
    store_turned(tiny_root / "images/03.png", orientation=3, quarters=2)
    other = on_either(model="fakes:fails_on_mark")
    evaluation = other.go()
    assert (evaluation.images, evaluation.failed) == (7, 3)
    found = {row["image_id"]: row for row in other.rows().to_pylist()}
    failed = {name: row["error"] for name, row in found.items() if row["status"] == "error"}
    assert list(failed) == ["images/02", "images/05", "images/08"]
    assert "web page" in failed["images/02"]
    assert "05_mask.png: No such file" in failed["images/05"]
    assert failed["images/08"] == "the network failed: RuntimeError: cannot take magenta"
    for row in clean.rows().to_pylist():
        if row["image_id"] not in failed:
            orientation = {"images/00": 6, "images/03": 3}.get(row["image_id"], 1)
            warning = found[row["image_id"]]["warning"]
            assert found[row["image_id"]] == row | {"orientation": orientation, "warning": warning}
            assert (warning is not None) == (orientation == 3)  # either half fits the label
    assert [len(unit.warnings) for unit in other.heard if unit.warnings] == [1]
    heard = [error for unit in other.heard for error in unit.errors]
    assert sorted(heard) == [f"{name}: {error}" for name, error in failed.items()]
    assert other.folder.read_run()["images"] == {"ok": 7, "failed": 3}


@pytest.fixture
def copy(clean: Run, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The clean run, about to be started again in a copy of its folder."""
    monkeypatch.chdir(TESTS)
    return Run(tiny_dataset, Path(shutil.copytree(on_disk(clean.folder.path), tmp_path / "copy")))


def test_missing_parts_are_made_again_and_the_others_left_alone(clean: Run, copy: Run) -> None:
    kept = pc.invert(pc.is_in(pa.array(range(10)), pa.array([0, 7])))
    before = read_rows(copy.folder.parts()).filter(kept)
    for unit in (0, 7):
        in_parts(copy.folder).part(unit).unlink()
    leftover = copy.folder.results / ".part-000000.parquet.123.tmp"
    leftover.touch()
    evaluation = copy.go()
    assert copy.rows().equals(clean.rows())
    assert evaluation == evaluate_run(clean.folder)
    assert sum(unit.ok for unit in copy.heard) == 2
    assert not leftover.exists()
    # With the seconds that they took.
    assert read_rows(copy.folder.parts()).filter(kept).equals(before)
    assert list(on_disk(copy.folder.results).rglob("*")) == [copy.folder.results / "part-000000-000009.parquet"]


def test_a_finished_run_computes_nothing(copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before, described = copy.files(), copy.folder.read_run()
    monkeypatch.setattr(LocalExecutor, "stream", lambda *_: pytest.fail("there is nothing to do"))
    assert copy.go() == evaluate_run(copy.folder)
    assert copy.heard == []
    assert copy.folder.read_run() == described
    after = copy.files()
    assert {name for name in after if after[name] != before[name]} <= {"metrics.json", "metrics.parquet"}


def test_a_run_killed_after_its_last_image_is_finished_by_the_next(copy: Run) -> None:
    described = copy.folder.read_run()
    copy.folder.write_run({name: described[name] for name in described if name not in ("finished", "images")})
    copy.go()
    assert copy.folder.read_run()["images"] == {"ok": 10, "failed": 0}
    assert "finished" in copy.folder.read_run()


def test_a_lost_manifest_is_written_again(clean: Run, copy: Run) -> None:
    copy.folder.manifest.unlink()
    copy.go()
    assert copy.folder.manifest.read_bytes() == clean.folder.manifest.read_bytes()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"k": 5}, "k was 6, is 5"),
        ({"tau": 2.0, "seed": 1}, "tau was 1.5, is 2.0; seed was 0, is 1"),
        ({"model": "fakes:flat"}, "model was 'fakes:colours', is 'fakes:flat'"),
        ({"scores": ("ratio",)}, "scores was "),
    ],
)
def test_another_setting_is_refused_by_name(
    clean: Run, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], named: str
) -> None:
    monkeypatch.chdir(TESTS)
    before = clean.files()
    other = Run(tiny_dataset, on_disk(clean.folder.path), **options)
    with pytest.raises(ResultsError, match="holds a run with other settings: ") as caught:
        other.go()
    assert named in str(caught.value)
    assert clean.files() == before


def test_images_that_came_or_went_are_refused(clean: Run, copy: Run, tiny_dataset: Path) -> None:
    copy.plan = replace(copy.plan, manifest=copy.plan.manifest.slice(1))
    with pytest.raises(ResultsError, match=r"the dataset lists other images or labels \(--append.*\)\. Choose"):
        copy.go()


def test_a_request_that_was_refused_is_no_obstacle(on_ray: Start, start: Start) -> None:
    with pytest.raises(ConfigError, match="Ray has 2"):
        on_ray(gpus_per_worker=3.0).go()
    corrected = start(k=3)
    corrected.go()
    assert corrected.folder.read_run()["config"]["k"] == 3


def test_an_unfinished_run_is_evaluated_as_such(copy: Run) -> None:
    in_parts(copy.folder).part(4).unlink()
    evaluation = evaluate_run(copy.folder)
    assert (evaluation.images, evaluation.failed, evaluation.left) == (9, 0, 1)
    assert json.loads(copy.folder.metrics_json.read_text())["left"] == 1


def test_another_dataset_is_refused_by_name(clean: Run, tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TESTS)
    with pytest.raises(ResultsError, match=f"root was .*, is '{tiny_root}'"):
        Run(tiny_root, on_disk(clean.folder.path)).go()


def test_results_without_run_json_are_refused(start: Start) -> None:
    first = start()
    first.folder.results.mkdir(parents=True)
    first.folder.part(0).touch()
    with pytest.raises(ResultsError, match=r"holds results without run.json; choose another --out"):
        first.go()


def test_where_all_images_fail_the_run_does(start: Start) -> None:
    for heard in (10, 0):
        failing = start(model="fakes:flat")
        with pytest.raises(RunError, match=r"all 10 images failed; `oodray status .*` shows the most frequent errors"):
            failing.go()
        assert sum(unit.failed for unit in failing.heard) == heard
    assert json.loads(failing.folder.metrics_json.read_text())["failed"] == 10


@pytest.mark.parametrize("on_either", LOCAL_AND_IN_SOAK_RAY, indirect=True)
def test_a_network_that_does_not_start_ends_the_run_in_one_line(
    on_either: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    failing = on_either(model="fakes:never_starts")
    with pytest.raises(ModelError) as caught:
        failing.go()
    assert str(caught.value) == "the factory fakes:never_starts failed: RuntimeError: the licence server is down"
    assert capfd.readouterr() == ("", "")
    assert failing.folder.parts() == []


DEADLY = f"""
import os
import sys
from pathlib import Path

sys.path.append({str(TESTS)!r})
import fakes

FLAG = Path(__file__).with_name("died")


class Deadly(fakes.Colours):
    def segment(self, images):
        if not FLAG.exists():
            FLAG.touch()
            os._exit(1)
        return super().segment(images)
"""


@pytest.mark.soak
def test_a_worker_that_dies_is_replaced(
    clean: Run, on_ray: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deadly.py").write_text(DEADLY)
    monkeypatch.chdir(tmp_path)
    other = on_ray(model="deadly:Deadly")
    other.go()
    assert (tmp_path / "died").exists()
    assert other.rows().equals(clean.rows())


def test_a_folder_that_cannot_be_written_ends_the_run_in_one_line(start: Start) -> None:
    blocked = start()
    blocked.folder.path.mkdir()
    blocked.folder.results.touch()
    with pytest.raises(RunError, match=r"cannot make the folder .*results"):
        blocked.go()


def test_a_folder_that_goes_while_the_run_goes_on_ends_it_in_one_line(start: Start) -> None:
    blocked = start()
    job = blocked.prepare()
    on_disk(blocked.folder.results).rmdir()
    blocked.folder.results.touch()
    with pytest.raises(RunError, match=r"cannot write to .*results: Not a directory") as caught:
        blocked.do(job)
    assert "\n" not in str(caught.value)


def test_more_than_ray_has_is_refused(on_ray: Start) -> None:
    greedy = on_ray(gpus_per_worker=3.0)
    with pytest.raises(ConfigError, match="1 workers with 3 GPUs each need 3 GPUs, Ray has 2"):
        greedy.go()
    greedy = on_ray(workers=100)
    with pytest.raises(ConfigError, match=r"100 workers, .* need 101 CPUs"):
        greedy.go()


def test_errors_are_tried_again_when_asked_and_nothing_else_is(
    clean: Run, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TESTS)
    monkeypatch.setattr(manifest_module, "_WANTED_UNITS", 2)
    spoilt = tiny_root / "images" / "03.png"
    content = spoilt.read_bytes()
    spoilt.write_bytes(content[:100])
    first = Run(tiny_root, tmp_path / "out")
    assert (first.go().images, first.go().failed) == (9, 1)
    spoilt.write_bytes(content)
    assert first.go().failed == 1
    there = [row for row in read_rows(first.folder.parts()).to_pylist() if row["status"] == "ok"]
    first.heard.clear()
    evaluation = first.go(retry_errors=True)
    assert (evaluation.images, evaluation.failed) == (10, 0)
    assert sum(unit.ok for unit in first.heard) == 1
    # The other images of its unit have the row that they had, with the seconds that they took.
    assert [row for row in read_rows(first.folder.parts()).to_pylist() if row["image_id"] != "images/03"] == there
    assert first.rows().drop(["unit"]).equals(clean.rows().drop(["unit"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "units", "options"),
    [
        ("crashes_on_mark", 10, {}),
        # In units of five images, so that they share batches, which are told apart: eight processes die, not three.
        pytest.param("crashes_on_mark", 2, {}, marks=pytest.mark.soak),
        pytest.param("hangs_on_mark", 2, {"image_timeout": 3.0}, marks=pytest.mark.soak),
    ],
)
def test_an_image_that_ends_its_worker_becomes_an_error(
    clean: Run,
    on_ray: Start,
    tiny_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    network: str,
    units: int,
    options: dict[str, Any],
) -> None:
    monkeypatch.setattr(manifest_module, "_WANTED_UNITS", units)
    mark(tiny_root, "04")
    spoilt = on_ray(model=f"fakes:{network}", **options)
    spoilt.go()
    check_one_error(spoilt, clean, f"given up after {ATTEMPTS} attempts (segment and cluster): {DIED}")


@pytest.mark.slow
@pytest.mark.soak
def test_a_file_that_ends_the_process_that_decodes_it_becomes_an_error(
    clean: Run, on_ray: Start, tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_root / "annotations/04_mask.png"
    codes = np.array(Image.open(path))
    codes[0, 0] = fakes.DEADLY_CODE
    Image.fromarray(codes).save(path)
    spoilt = on_ray()
    known = spoilt.plan.layout.label_codes
    deadly = fakes.DeadlyCodes(known.ood, known.ignore, known.in_distribution)
    monkeypatch.setattr(type(spoilt.plan.layout), "label_codes", deadly)
    # Tasks know the package alone; the network's folder is known to those that hold it.
    cloudpickle.register_pickle_by_value(fakes)
    try:
        spoilt.go()
    finally:
        cloudpickle.unregister_pickle_by_value(fakes)
    check_one_error(spoilt, clean, f"given up after {ATTEMPTS} attempts (decode): {DIED}")


def check_one_error(spoilt: Run, clean: Run, error: str) -> None:
    """One image failed for a reason, and all others have the rows of the clean run."""
    found = {row["image_id"]: row for row in spoilt.rows().drop(["unit"]).to_pylist()}
    assert found.pop("images/04")["error"] == error
    expected = {row["image_id"]: row for row in clean.rows().drop(["unit"]).to_pylist()}
    del expected["images/04"]
    assert found == expected
