from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from idle import Idle
from places import on_disk
from runs import in_parts

import oodray
from oodray.api.start import start
from oodray.cli import main
from oodray.config import fingerprint
from oodray.errors import ConfigError, DatasetError, ModelError, ResultsError
from oodray.job import executors
from oodray.job import run as run_module
from oodray.job.pipeline import Job
from oodray.results.folder import ResultsFolder
from oodray.results.lease import Holder, Lease
from oodray.results.reading import finished_units, read_rows

TESTS = Path(__file__).parents[1]
WARNING = "ADE-OoD was published with 111 images, found: 10; the numbers do not compare with published ones"


@pytest.fixture
def settings(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Those of the run in the fixture `undisturbed`."""
    monkeypatch.chdir(TESTS)  # where the network is
    network = {"model": "fakes:colours", "tau": 1.5, "threads": 1}
    return {"dataset": "ade-ood", "root": str(tiny_dataset), "executor": "local"} | network


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The runs that began, none of which computes anything."""
    seen: list[Job] = []
    monkeypatch.setattr(executors, "executor_of", lambda _: Idle())
    monkeypatch.setattr(run_module, "run", lambda job, *_, **__: seen.append(job))
    return seen


def results(out: Path) -> pa.Table:
    """All rows, without how long they took."""
    table = pq.read_table(out / "results")
    return table.select([name for name in table.column_names if not name.startswith("seconds_")])


def spoil(part: Path) -> None:
    """Make the image of a file one that failed."""
    table = pq.read_table(part)
    rows = [row | {"status": "error", "error": "it is cut short"} for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), part)


def command(*arguments: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["oodray", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
    assert not stop.value.code


class TestResults:
    def test_the_command_and_the_call_give_the_same(
        self, settings: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        options = [text for name, value in settings.items() for text in (f"--{name}", value)]
        command("run", *options, "--out", tmp_path / "command")
        capfd.readouterr()

        run = oodray.run(out=tmp_path / "call", progress=False, **settings)

        assert capfd.readouterr() == ("", "")
        assert run.warnings == (WARNING,)
        assert run.out == tmp_path / "call"
        assert results(on_disk(run.out)).equals(results(tmp_path / "command"))
        for name in ("metrics.parquet", "metrics.json", "manifest.parquet"):
            assert (on_disk(run.out) / name).read_bytes() == (tmp_path / "command" / name).read_bytes()
        pd.testing.assert_frame_equal(run.metrics, pd.read_parquet(on_disk(run.out) / "metrics.parquet"))
        assert run.evaluation.images == len(run.images) == 10

    def test_a_run_is_continued(
        self,
        settings: dict[str, Any],
        undisturbed: Path,
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        folder = ResultsFolder(shutil.copytree(undisturbed, tmp_path / "out"))
        kept = pc.invert(pc.is_in(pa.array(range(10)), pa.array([3, 8])))
        before = read_rows(folder.parts()).filter(kept)
        in_parts(folder)
        folder.part(3).unlink()
        folder.part(8).unlink()

        run = oodray.run(out=str(folder.path), **settings)

        assert results(on_disk(run.out)).equals(results(undisturbed))
        # With the seconds that they took.
        assert read_rows(folder.parts()).filter(kept).equals(before)
        printed = capfd.readouterr()
        assert printed.out == ""
        assert f"warning: {WARNING}" in printed.err
        assert "10/10 images" in printed.err

    def test_a_finished_run_is_only_read(
        self, settings: dict[str, Any], undisturbed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(executors, "executor_of", lambda _: Idle())
        run = oodray.run(out=undisturbed, progress=False, **settings)
        pd.testing.assert_frame_equal(run.metrics, oodray.open_run(undisturbed).metrics)


class TestSettings:
    def test_they_are_those_of_the_command(self, settings: dict[str, Any], begun: list[Job], tmp_path: Path) -> None:
        given = {"k": 3, "ood_ratio": 1, "scores": ["msp", "ratio"], "sweep_k": range(2, 4), "normalize_features": True}
        oodray.run(out=tmp_path / "o", progress=False, seed=None, **settings | given)
        [config] = [job.plan.config for job in begun]
        assert (config.k, config.ood_ratio, config.sweep_k, config.seed) == (3, 1.0, (2, 3), 0)
        assert (config.scores, config.normalize_features) == (("ratio", "msp"), True)

    def test_a_text_is_split_as_the_option_is(self, settings: dict[str, Any], begun: list[Job], tmp_path: Path) -> None:
        oodray.run(out=tmp_path / "o", progress=False, scores="energy, ratio", sweep_k="2:4", **settings)
        [config] = [job.plan.config for job in begun]
        assert (config.scores, config.sweep_k) == (("ratio", "energy"), (2, 3, 4))

    def test_numbers_may_be_those_of_numpy(self, settings: dict[str, Any], begun: list[Job], tmp_path: Path) -> None:
        given = {"k": np.int64(3), "tau": np.float64(5), "sweep_k": np.arange(2, 4), "threads": np.int32(1)}
        oodray.run(out=tmp_path / "o", progress=False, **settings | given)
        [config] = [job.plan.config for job in begun]
        assert (config.k, config.tau, config.sweep_k) == (3, 5.0, (2, 3))
        assert json.dumps(fingerprint(config))

    def test_paths_may_be_paths(self, settings: dict[str, Any], begun: list[Job], tmp_path: Path) -> None:
        root = Path(settings.pop("root"))
        oodray.run(out=tmp_path / "o", progress=False, root=root, **settings)
        assert [(job.plan.config.root, job.plan.root) for job in begun] == [(str(root), root)]

    def test_a_config_file_is_below_them(self, settings: dict[str, Any], begun: list[Job], tmp_path: Path) -> None:
        file = tmp_path / "run.yaml"
        file.write_text(f"dataset: ade-ood\nroot: {settings['root']}\nk: 7\nseed: 5\n")
        oodray.run(config=file, out=tmp_path / "o", progress=False, model="fakes:colours", tau=1.5, k=8)
        [config] = [job.plan.config for job in begun]
        assert (config.dataset, config.k, config.seed) == ("ade-ood", 8, 5)

    def test_results_go_to_runs_by_default(
        self, settings: dict[str, Any], begun: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        oodray.run(progress=False, **settings | {"model": "internimage-n-demo"})
        assert [job.folder.path for job in begun] == [tmp_path / "runs" / "ade-ood-tiny"]

    @pytest.mark.parametrize(
        ("given", "error", "problem"),
        [
            ({"ood_ration": 0.3}, ConfigError, "unknown key 'ood_ration' in the options; did you mean 'ood_ratio'?"),
            ({"datset": "demo", "dataset": None}, ConfigError, "unknown key 'datset' .* did you mean 'dataset'?"),
            ({"dataset": None}, ConfigError, "no dataset given"),
            ({"k": "5"}, ConfigError, "k in the options must be a whole number, got '5'"),
            ({"k": 0}, ConfigError, "k must be a whole number from 1 to 255, got 0"),
            ({"workers": "two"}, ConfigError, "workers in the options: --workers must be a number"),
            ({"model": object()}, ConfigError, "model in the options must be a text"),
            ({"executor": "local", "workers": 2}, ConfigError, "--workers 2 does not go with --executor local"),
            ({"scores": "rato"}, ConfigError, "unknown score 'rato'; did you mean 'ratio'?"),
            ({"scores": ["rato"]}, ConfigError, "unknown score 'rato'; did you mean 'ratio'?"),
            ({"dataset": "ade-odo"}, DatasetError, "unknown dataset 'ade-odo'"),
            ({"root": "/none"}, DatasetError, "/none does not exist"),
            ({"model": "none"}, ModelError, "unknown model 'none'"),
            ({"config": "none.yaml"}, ConfigError, "cannot read the config file none.yaml"),
        ],
    )
    def test_what_is_wrong_starts_nothing(
        self, settings: dict[str, Any], tmp_path: Path, given: dict[str, Any], error: type[Exception], problem: str
    ) -> None:
        with pytest.raises(error, match=problem):
            oodray.run(**{"out": tmp_path / "o", "progress": False, **settings, **given})
        assert list(tmp_path.iterdir()) == []

    def test_a_setting_is_named_in_every_call(self) -> None:
        with pytest.raises(TypeError):
            oodray.run("demo")  # type: ignore[call-arg]


class TestFolder:
    @pytest.fixture
    def folder(self, undisturbed: Path, tmp_path: Path) -> ResultsFolder:
        return ResultsFolder(shutil.copytree(undisturbed, tmp_path / "out"))

    def test_a_file_is_none(self, settings: dict[str, Any], tmp_path: Path) -> None:
        (tmp_path / "out").write_text("a file of yours")
        with pytest.raises(ResultsError, match="out is a file; name a folder"):
            oodray.run(out=tmp_path / "out", progress=False, **settings)

    def test_another_run_is_refused(self, settings: dict[str, Any], begun: list[Job], folder: ResultsFolder) -> None:
        with pytest.raises(ResultsError, match="holds a run with other settings: k was 6, is 7"):
            oodray.run(out=on_disk(folder.path), progress=False, k=7, **settings)
        assert (begun, len(finished_units(folder))) == ([], 10)

    def test_and_removed_where_that_is_asked_for(
        self, settings: dict[str, Any], begun: list[Job], folder: ResultsFolder
    ) -> None:
        oodray.run(out=on_disk(folder.path), progress=False, overwrite=True, k=7, **settings)
        assert [job.plan.config.k for job in begun] == [7]
        assert folder.parts() == []

    def test_but_not_before_it_is_confirmed(
        self, settings: dict[str, Any], begun: list[Job], folder: ResultsFolder
    ) -> None:
        def refuse(asked: ResultsFolder) -> None:
            assert asked.path == folder.path
            raise PermissionError("no")

        with pytest.raises(PermissionError):
            start(settings, out=on_disk(folder.path), progress=False, overwrite=True, confirm=refuse)
        assert (begun, len(finished_units(folder))) == ([], 10)

    def test_one_at_work_keeps_it(self, settings: dict[str, Any], begun: list[Job], folder: ResultsFolder) -> None:
        with Lease(folder), pytest.raises(ResultsError, match="another run is at work on "):
            oodray.run(out=on_disk(folder.path), progress=False, overwrite=True, **settings)
        assert (begun, len(finished_units(folder))) == ([], 10)

    def test_one_that_is_gone_is_named(
        self, settings: dict[str, Any], begun: list[Job], folder: ResultsFolder, capfd: pytest.CaptureFixture[str]
    ) -> None:
        gone = subprocess.Popen(["true"])
        gone.wait()
        (on_disk(folder.path) / "lease.json").write_text(
            json.dumps(asdict(replace(Holder.this_process(), pid=gone.pid)))
        )
        run = oodray.run(out=on_disk(folder.path), progress=False, **settings)
        assert run.warnings[0] == WARNING
        assert f"was left by process {gone.pid} on " in run.warnings[1]
        assert capfd.readouterr() == ("", "")
        assert not (on_disk(folder.path) / "lease.json").exists()

    def test_images_with_an_error_are_tried_again_on_request(
        self, settings: dict[str, Any], begun: list[Job], folder: ResultsFolder
    ) -> None:
        spoil(on_disk(in_parts(folder).part(3)))
        for retry in (False, True):
            oodray.run(out=on_disk(folder.path), progress=False, retry_errors=retry, **settings)
        assert [job.left.images["image_id"].to_pylist() for job in begun] == [[], ["images/03"]]


class TestTauThatIsEstimated:
    def test_on_images_of_a_folder_then_on_the_runs_own(
        self, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        photos = Path(settings["root"]) / "images"
        own = settings | {"dataset": "folder", "root": str(photos), "tau": "auto"}
        out = tmp_path / "out"
        done = oodray.run(out=out, progress=False, calibrate_on=str(photos), **own)
        confidences = np.concatenate(
            [oodray.detect(path, fakes.colours(), tau=0.0).confidence.ravel() for path in sorted(photos.iterdir())]
        )
        tau = json.loads((out / "run.json").read_text())["config"]["tau"]
        # The largest float16 with at most 5 % of the pixels below it.
        assert np.mean(confidences < tau) <= 0.05 < np.mean(confidences < np.nextafter(np.float16(tau), np.float16(9)))
        assert len(done.images) == len(list(photos.iterdir()))
        again = oodray.run(out=out, progress=False, **own)  # nothing is computed, and the run is the same
        assert json.loads((out / "run.json").read_text())["identity"]["tau"] == tau
        assert len(again.images) == len(done.images)

    @pytest.mark.parametrize(
        ("given", "problem"),
        [
            ({"calibrate_on": "x"}, "--calibrate-on DIR belongs to --tau auto"),
            ({"tau": "auto"}, "ade-ood is there to measure on: pass --calibrate-on DIR"),
            ({"tau": "auto", "calibrate_on": "/nowhere"}, "the folder /nowhere does not exist"),
        ],
    )
    def test_what_is_wrong_computes_nothing(
        self, given: dict[str, str], problem: str, settings: dict[str, Any], tmp_path: Path
    ) -> None:
        with pytest.raises((ConfigError, DatasetError), match=problem):
            oodray.run(out=tmp_path / "out", progress=False, **settings | given)
        assert not (tmp_path / "out").exists()
