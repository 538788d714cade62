"""Images that were added to a dataset, appended to its run: it ends as one that had them from the start."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from runs import TESTS, Run

import oodray
from oodray.datasets.manifest import read_manifest
from oodray.errors import ConfigError, ResultsError
from oodray.results import continuing
from oodray.results.names import Wave
from oodray.results.reading import finished_units, read_rows

ADDED = ("00", "07", "08", "09")
"""Images that come later, the first of them before all others by name."""

KILLED = """
import os, signal, sys
from runs import Run

left = int(sys.argv[3])
def on_unit(done):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

run = Run(sys.argv[1], sys.argv[2])
run.go(on_unit, append=True)
"""


@pytest.fixture
def begun(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A finished run of six images; the others lie aside until `add` is called."""
    monkeypatch.chdir(TESTS)
    for name in ADDED:
        for path in files(tiny_root, name):
            (tmp_path / "aside" / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.move(path, tmp_path / "aside" / path.parent.name / path.name)
    run = Run(tiny_root, tmp_path / "out")
    run.go()
    return run


def files(root: Path, name: str) -> tuple[Path, Path]:
    return root / "images" / f"{name}.png", root / "annotations" / f"{name}_mask.png"


def add(run: Run, *names: str) -> Run:
    """Add images to the dataset, and plan anew."""
    root = Path(str(run.plan.root))
    for name in names or ADDED:
        for path in files(root, name):
            shutil.copy(str(run.folder.path.parent / "aside" / path.parent.name / path.name), path)
    return again(run)


def again(run: Run, **options: Any) -> Run:
    return Run(Path(str(run.plan.root)), Path(str(run.folder.path)), **options)


def by_image(run: Run) -> pa.Table:
    """The rows without what depends on the order in which images came."""
    rows: pa.Table = run.rows().drop_columns(["unit"]).sort_by("image_id")
    return rows


def assert_is_as(run: Run, clean: Run) -> None:
    """Every image is there once, with the rows and the metrics of a run that had all from the start."""
    assert by_image(run).equals(by_image(clean))
    assert run.folder.metrics_json.read_bytes() == clean.folder.metrics_json.read_bytes()
    manifest, rows = read_manifest(run.folder.manifest), read_rows(run.folder.parts(), ["unit", "image_id"])
    assert rows.equals(manifest.select(["unit", "image_id"]))
    content = run.folder.read_run()
    assert content["dataset"]["images"] == content["images"]["ok"] == 10
    assert content["identity"]["manifest"] == again(run).plan.identity()["manifest"]


def test_added_images_are_appended_and_nothing_else_is_computed(begun: Run, clean: Run) -> None:
    before = begun.files()
    run = add(begun)
    with pytest.raises(ResultsError, match=r"other images or labels .--append takes images that were added"):
        run.go()
    assert begun.files() == before
    run.go(append=True)
    assert sum(done.ok for done in run.heard) == len(ADDED)
    assert_is_as(run, clean)
    assert {name: time for name, time in run.files().items() if name in before and name.startswith("results")} == {
        name: time for name, time in before.items() if name.startswith("results")
    }
    assert run.folder.waves() == [Wave(0, 5), Wave(6, 9)]
    assert run.folder.read_run()["appended"] == [6]
    # From now on it is the run of ten images, to which there is nothing to append.
    for append in (False, True):
        same = again(run)
        same.go(append=append)
        assert same.heard == []
    assert_is_as(run, clean)


def test_it_is_killed_while_it_appends_and_continued_with_or_without_being_told_again(
    begun: Run, clean: Run, environment: dict[str, str]
) -> None:
    run = add(begun)
    command = [sys.executable, "-c", KILLED, str(run.plan.root), str(run.folder.path), "2"]
    done = subprocess.run(command, check=False, cwd=TESTS, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    there = len(finished_units(run.folder))
    assert 6 < there <= 10  # units that the driver has not heard of may be finished, too
    assert "finished" not in run.folder.read_run()
    run = again(run)
    run.go()
    assert sum(done.ok for done in run.heard) == 10 - there
    assert_is_as(run, clean)


def test_it_is_killed_between_its_manifest_and_run_json(
    begun: Run, clean: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = add(begun)
    with monkeypatch.context() as patch:
        patch.setattr(continuing, "_note_appended", interrupted)
        with pytest.raises(InterruptedError):
            run.go(append=True)
    with pytest.raises(ResultsError, match="--append"):
        again(run).go()
    run = again(run)
    run.go(append=True)
    assert_is_as(run, clean)


def interrupted(*_: object) -> None:
    raise InterruptedError


def test_images_are_appended_again_and_again_and_errors_tried_again(begun: Run, clean: Run) -> None:
    [first, *more] = ADDED
    add(begun, first).go(append=True)
    # Appended while the last ones are not done: both are.
    half = add(begun, more[0])
    with pytest.raises(KeyboardInterrupt):
        half.go(lambda _: interrupt(), append=True)
    image, _ = files(Path(str(begun.plan.root)), more[1])
    run = add(begun, *more[1:])
    image.write_bytes(b"broken")
    again(begun).go(append=True)
    assert run.folder.read_run()["appended"] == [6, 7, 8]
    add(begun, more[1]).go(retry_errors=True)
    assert_is_as(again(run), clean)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.soak
def test_another_executor_appends_the_same(begun: Run, clean: Run, ray_session: None) -> None:
    add(begun)
    run = again(begun, executor="ray")
    run.go(append=True)
    assert_is_as(run, clean)


@pytest.mark.parametrize("change", ["gone", "without its label"])
def test_where_an_image_has_changed_nothing_is_appended(begun: Run, change: str) -> None:
    root = Path(str(begun.plan.root))
    for path in files(root, "03")[change != "gone" :]:
        path.unlink()
    if change != "gone":  # `ade-ood` wants a label of every image
        manifest = read_manifest(begun.folder.manifest)
        run = again_with(begun, manifest)
    else:
        run = add(begun)
    before = begun.files()
    with pytest.raises(ResultsError, match=r"1 of the 6 images of .* the first is images/03\. Choose another --out"):
        run.go(append=True)
    assert begun.files() == before


def again_with(run: Run, manifest: pa.Table) -> Run:
    """The run as if an image had lost its label."""
    at = manifest["image_id"].to_pylist().index("images/03")
    labels = [None if row == at else uri for row, uri in enumerate(manifest["label_uri"].to_pylist())]
    column = manifest.schema.get_field_index("label_uri")
    run.plan = replace(run.plan, manifest=manifest.set_column(column, manifest.schema.field(column), pa.array(labels)))
    return run


def test_other_settings_are_refused_all_the_same(begun: Run) -> None:
    add(begun)
    with pytest.raises(ResultsError, match="k was 6, is 4"):
        again(begun, k=4).go(append=True)
    with pytest.raises(ConfigError, match="join the shares with `oodray merge`"):
        again(begun, shard="1/2").go(append=True)


def test_a_lost_manifest_of_a_run_with_appended_images_is_not_made_up(begun: Run) -> None:
    run = add(begun)
    run.go(append=True)
    kept = run.folder.manifest.read_bytes()
    run.folder.manifest.unlink()
    with pytest.raises(ResultsError, match=r"Images were appended to this run.* put a copy of the file back"):
        again(run).go()
    Path(str(run.folder.manifest)).write_bytes(kept)
    again(run).go()


def test_from_python_a_new_run_and_one_that_grows(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TESTS)
    late = [path.rename(tmp_path / path.name) for path in files(tiny_root, "04")]
    settings: dict[str, Any] = {
        "dataset": "ade-ood",
        "root": tiny_root,
        "model": "fakes:colours",
        "tau": 1.5,
        "executor": "local",
    }
    settings |= {"threads": 1, "out": tmp_path / "out", "progress": False, "append": True}
    assert len(oodray.run(**settings).images) == 9
    for path, target in zip(late, files(tiny_root, "04"), strict=True):
        path.rename(target)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["images"]["ok"] == 9
    assert len(oodray.run(**settings).images) == 10
