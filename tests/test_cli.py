from __future__ import annotations

import atexit
import gc
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from command_line import Done, call
from idle import Idle
from PIL import Image
from places import on_disk

import oodray
from oodray import doctor as machine
from oodray.config import SETTINGS, read_settings
from oodray.datasets.layouts import LAYOUTS
from oodray.doctor import Finding
from oodray.errors import DatasetError, OodrayError, RunError
from oodray.job import executors
from oodray.job import plan as plan_module
from oodray.job import run as run_module
from oodray.job.pipeline import Job
from oodray.job.plan import Plan
from oodray.models.weights.zoo import get_model, model_names
from oodray.results.folder import ResultsFolder
from oodray.results.lease import Lease
from oodray.results.reading import finished_units

pytestmark = pytest.mark.slow  # all of them together

HERE = Path(__file__).parent
EMBEDDED = "internimage-n-demo"
COMMANDS = (
    "run",
    "calibrate",
    "evaluate",
    "sweep",
    "import-scores",
    "compare",
    "leaderboard",
    "status",
    "show",
    "datasets",
    "datasets check",
    "models",
    "models fetch",
    "models inspect",
    "models verify",
    "doctor",
)


def words(text: str) -> str:
    """The text without the line breaks of a narrow terminal."""
    return " ".join(text.split())


class TestHelp:
    def test_a_command_ends_without_a_look_for_garbage(self, monkeypatch: pytest.MonkeyPatch) -> None:
        at_exit: list[object] = []
        monkeypatch.setattr(atexit, "register", at_exit.append)
        call("--version")
        assert gc.freeze in at_exit

    def test_without_a_command_there_is_help(self) -> None:
        done = call()
        assert (done.exit_code, done.err) == (0, "")
        assert all(command.split()[0] in done.out for command in COMMANDS)
        assert call("--help").out == call("-h").out

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_has_some(self, command: str) -> None:
        done = call(*command.split(), "--help")
        assert (done.exit_code, done.err) == (0, "")
        assert f"Usage: oodray {command}" in words(done.out)

    @pytest.mark.parametrize("arguments", [["--version"], ["--version", "run"]])
    def test_version(self, arguments: list[str]) -> None:
        assert call(*arguments) == Done(0, f"{oodray.__version__}\n", "")

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (["rnu"], "No such command 'rnu'"),
            (["--nope"], "No such option:? '?--nope"),  # quoted by newer versions of click
            (["run", "--datasett", "x"], "No such option:? '?--datasett"),
            (["run", "--k", "five"], "Invalid value for '--k'"),
            (["run", "extra"], "unexpected extra argument"),
            (["status"], "Missing argument 'OUT'"),
            (["datasets", "check"], r"Missing argument 'NAME\|DIR'"),
            (["datasets", "chek"], "No such command 'chek'"),
        ],
    )
    def test_what_cannot_be_understood_is_named(self, arguments: list[str], problem: str) -> None:
        done = call(*arguments)
        assert (done.exit_code, done.out) == (2, "")
        assert done.err.startswith("error: ")
        assert re.search(problem, done.err)
        command = re.search(r"[^.?][.?] See `(oodray.*) --help`\.\n$", done.err)
        assert command is not None
        assert call(*command[1].split()[1:], "--help").exit_code == 0

    @pytest.mark.parametrize("options", [(), ("--json",)])
    def test_a_folder_in_the_place_of_a_track_is_said(self, options: tuple[str, ...], tmp_path: Path) -> None:
        folder = tmp_path / "my run"
        folder.mkdir()
        done = call("evaluate", *options, "--components", folder)
        assert (done.exit_code, done.out) == (2, "")
        assert f"--components took {folder} for the name of a track" in done.err
        assert done.err.endswith(f"name the folder first: `oodray evaluate '{folder}' --components`\n")
        assert "Missing argument 'OUT'" in call("evaluate", *options, "--components", "obstacle").err

    @pytest.mark.parametrize(
        ("cores", "address", "expected"), [(2, "", False), (2, "10.0.0.1:6379", True), (16, "", True)]
    )
    def test_ray_reads_a_large_run_where_threads_are_few_or_a_cluster_is_there(
        self, cores: int, address: str, expected: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("oodray.cluster.shares.usable_cores", lambda: cores)
        monkeypatch.setattr("oodray.cluster.session.is_running", lambda: False)
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert sys.modules["oodray.cli.evaluate"]._is_ray_worth_it() is expected

    def test_a_file_with_the_name_of_the_default_is_no_folder_of_results(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "auto").touch()
        done = call("evaluate", "run", "--components")
        assert "run is not a results folder" in done.err

    @pytest.mark.parametrize("argument", ["--help", "--version"])
    def test_it_loads_nothing_heavy(self, argument: str) -> None:
        script = f"""
import sys
sys.argv = ["oodray", {argument!r}]
from oodray.cli import main
try:
    main()
except SystemExit:
    pass
print("loaded:", *sorted({{"torch", "ray", "mmseg", "pandas", "pyarrow", "numpy"}} & set(sys.modules)))
"""
        done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
        assert done.stdout.endswith("loaded:\n")


class TestDatasets:
    def test_all_are_listed_with_where_to_get_them(self) -> None:
        done = call("datasets")
        assert (done.exit_code, done.err) == (0, "")
        for layout in LAYOUTS.values():
            assert layout.name in done.out
            assert layout.where.split()[0] in done.out.replace("\n", "")

    def test_a_good_folder_is_good(self, tmp_path: Path) -> None:
        Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
        done = call("datasets", "check", "folder", "--root", tmp_path)
        assert (done.exit_code, done.err) == (0, "")
        assert "8x6: 1" in done.out

    def test_findings_are_an_exit_code_of_1(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_text("nothing")
        done = call("datasets", "check", "folder", "--root", tmp_path)
        assert (done.exit_code, done.err) == (1, "")
        assert "findings     1" in done.out

    def test_a_dataset_that_is_not_there_says_what_was_expected(self, tmp_path: Path) -> None:
        done = call("datasets", "check", "ade-ood", "--root", tmp_path)
        assert (done.exit_code, done.out) == (2, "")
        assert "has no folder images/" in done.err
        assert "ROOT/annotations/NAME_mask.png" in done.err
        assert "ADE-OoD.zip" in done.err


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Plan, Path]]:
    """The plans and folders of the runs that began, none of which goes on."""
    seen: list[tuple[Plan, Path]] = []

    def stop(job: Job, *_: object, **__: object) -> None:
        seen.append((job.plan, on_disk(job.folder.path)))
        raise RunError("seen enough")

    monkeypatch.setattr(executors, "executor_of", lambda _: Idle())
    monkeypatch.setattr(run_module, "run", stop)
    return seen


class TestRunRequest:
    @pytest.fixture
    def arguments(self, tiny_dataset: Path) -> list[object]:
        return ["run", "--dataset", "ade-ood", "--root", tiny_dataset, "--model", EMBEDDED, "--tau", 1.5]

    def test_help_is_grouped_with_defaults_and_examples(self) -> None:
        lines = call("run", "--help").out.splitlines()
        groups = [line.strip("╭╮─+- ") for line in lines if re.match(r"[╭+][─-]+ \w", line)]
        assert groups == ["Options", "What", "Network", "Method and scores", "Where", "How"]
        text = " ".join(" ".join(lines).replace("│", " ").replace("|", " ").split())
        for part in (
            "Clusters per image; by default 5.",
            "by default 0.3.",
            "by default --no-flip.",
            "by default ray.",
        ):
            assert part in text
        assert text.count(" oodray run --dataset ") == 3

    def test_every_setting_is_an_option(self) -> None:
        text = call("run", "--help").out
        # The fewest of a range are those of `--workers 2:16`.
        for setting in (setting for setting in SETTINGS.values() if "run" in setting.about.commands):
            assert re.search(rf"{setting.option.partition('/')[0]}[ /]", text), setting.name
        assert "--fewest-workers" not in text

    def test_a_calibration_has_those_that_it_needs(self) -> None:
        text = call("calibrate", "--help").out
        for option in ("dataset", "root", "model", "k", "workers", "executor", "ray-address", "quantile"):
            assert re.search(rf"--{option} ", text), option
        for option in ("tau", "ood-ratio", "scores", "sweep-k", "config", "overwrite"):
            assert not re.search(rf"--{option} ", text), option

    def test_options_reach_the_plan(
        self, arguments: list[object], started: list[tuple[Plan, Path]], tmp_path: Path
    ) -> None:
        given: dict[str, Any] = {
            "k": 3,
            "ood_ratio": 0.2,
            "seed": 4,
            "kmeans_backend": "sklearn",
            "n_init": 2,
            "batch_size": 2,
            "threads": 3,
            "workers": 5,
            "gpus_per_worker": 0.0,
            "wait": 0.0,
            "image_timeout": 5.5,
            "executor": "ray",
            "ray_address": "10.0.0.1:6379",
        }
        options = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", value)]
        switches = ("--normalize-features", "--allow-outside-root")
        ranges = ("--scores", "msp, ratio", "--sweep-k", "3:5", "--confidence-bits", 12)
        call(*arguments, *options, *switches, *ranges, "--out", tmp_path / "o")
        [(plan, out)] = started
        config = plan.config
        assert {name: getattr(config, name) for name in given} == given
        assert (config.scores, config.normalize_features) == (("ratio", "msp"), True)
        assert (config.sweep_k, config.confidence_bits, config.allow_outside_root) == ((3, 4, 5), 12, True)
        assert (config.dataset, config.model, config.tau) == ("ade-ood", EMBEDDED, 1.5)
        assert out == tmp_path / "o"

    def test_a_range_of_workers_is_two_settings(
        self, arguments: list[object], started: list[tuple[Plan, Path]], tmp_path: Path
    ) -> None:
        call(*arguments, "--workers", "2:16", "--gpus-per-worker", 0, "--out", tmp_path / "o")
        [(plan, _)] = started
        assert (plan.config.fewest_workers, plan.config.workers) == (2, 16)

    def test_a_switch_can_be_turned_off_again(
        self, arguments: list[object], started: list[tuple[Plan, Path]], tmp_path: Path
    ) -> None:
        config = tmp_path / "run.yaml"
        config.write_text("normalize_features: true\n")
        call(*arguments, "--out", tmp_path / "a", "--config", config)
        call(*arguments, "--out", tmp_path / "b", "--config", config, "--raw-features")
        assert [plan.config.normalize_features for plan, _ in started] == [True, False]

    def test_results_go_to_runs_by_default(
        self,
        arguments: list[object],
        started: list[tuple[Plan, Path]],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        config = tmp_path / "run.yaml"
        config.write_text("dataset: ade-ood\n")
        call(*arguments)
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        call("run", *arguments[3:], "--config", config)
        assert [out for _, out in started] == [tmp_path / "runs" / "ade-ood-tiny"] * 2

    def test_fewer_images_than_published_are_a_warning(
        self, arguments: list[object], started: list[tuple[Plan, Path]], tmp_path: Path
    ) -> None:
        done = call(*arguments, "--out", tmp_path / "o")
        assert done.exit_code == 1
        assert "warning: ADE-OoD was published with 111 images, found: 10; " in done.err
        assert done.err.endswith("error: seen enough\n")
        assert done.out == ""

    def test_a_missing_dataset_says_what_was_expected_and_where_to_get_it(self, tmp_path: Path) -> None:
        for root in ([], ["--root", tmp_path / "none"]):
            done = call("run", "--dataset", "road-anomaly", "--model", EMBEDDED, "--out", tmp_path, *root)
            assert (done.exit_code, done.out) == (2, "")
            assert "frames/NAME.labels/labels_semantic.png" in done.err
            assert "RoadAnomaly_jpg.zip" in done.err

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ([], "no dataset given: pass --dataset NAME, see `oodray datasets`"),
            (["--dataset", "ade-odo"], "unknown dataset 'ade-odo'; did you mean 'ade-ood'?"),
            (["--dataset", "ade-ood", "--k", "0"], "k must be a whole number from 1 to 255, got 0"),
            (["--dataset", "ade-ood", "--tau", "nan"], "tau must be a finite number, got nan"),
            (["--dataset", "ade-ood", "--workers", "2-16"], "--workers must be a number such as 4, or a range such as"),
            (["--dataset", "ade-ood", "--sweep-k", "3:x"], "'3:x' is no range"),
            (
                ["--dataset", "ade-ood", "--executor", "local", "--workers", "4"],
                "--workers 4 does not go with --executor local",
            ),
            (["--dataset", "ade-ood", "--config", "none.yaml"], "cannot read the config file none.yaml"),
            (["--config", "none.yaml"], "cannot read the config file none.yaml"),
            (["--dataset", "ade-ood", "--model", "none"], "unknown model 'none'"),
            (["--dataset", "ade-ood", "--scores", "rato"], "unknown score 'rato'"),
            (["--dataset", "ade-ood", "--scores", ""], "unknown score ''"),
        ],
    )
    def test_a_wrong_request_starts_nothing(
        self,
        options: list[str],
        problem: str,
        tiny_dataset: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        done = call("run", "--root", tiny_dataset, "--model", EMBEDDED, *options)
        assert (done.exit_code, done.out) == (2, "")
        assert problem in done.err
        assert list(tmp_path.iterdir()) == []

    def test_weights_that_are_not_here_say_how_to_get_them(
        self, tmp_path: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OODRAY_CACHE", str(tmp_path))
        done = call("run", "--dataset", "ade-ood", "--root", tiny_dataset)
        assert done.exit_code == 2
        assert "the weights of internimage-l-ade20k are not on this machine" in done.err
        assert ": oodray models fetch internimage-l-ade20k\n" in done.err
        assert call("run", "--dataset", "ade-ood") == done  # before anything is said of the dataset
        assert "--model internimage-n-demo" in done.err


class TestDoctor:
    def test_everything_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OODRAY_CACHE", str(tmp_path))
        done = call("doctor")
        assert (done.exit_code, done.err) == (0, "")
        lines = done.out.splitlines()
        assert lines[0] == f"oodray          {oodray.__version__}"
        assert f"cache           {tmp_path}: 0 of 12 published networks" in lines
        assert "                oodray models fetch NAME, see `oodray models`" in lines

    def test_what_is_needed_and_missing_is_exit_code_1(self, monkeypatch: pytest.MonkeyPatch) -> None:
        finding = Finding("ray", None, "pip install oodray", needed=True)
        monkeypatch.setattr(machine, "look_around", lambda: iter([finding]))
        assert call("doctor") == Done(1, "ray             missing\n                pip install oodray\n", "")


class TestModels:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("OODRAY_CACHE", str(tmp_path / "cache"))
        return tmp_path / "cache" / "models"

    def test_outside_a_terminal_every_network_has_an_uncut_line(self) -> None:
        done = call("models")
        assert (done.exit_code, done.err) == (0, "")
        lines = [line.split("\t") for line in done.out.splitlines()]
        assert [fields[0] for fields in lines] == list(model_names())
        assert {len(fields) for fields in lines} == {8}
        assert {fields[0] for fields in lines if fields[-1] == "cached"} >= {EMBEDDED}

    def test_a_terminal_gets_tables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        done = call("models")
        assert done.exit_code == 0
        assert "parameters" in done.out
        assert "\t" not in done.out

    def test_fetch_of_a_file_that_is_not_the_published_one(self, tmp_path: Path, cache: Path) -> None:
        (tmp_path / "mine.pth").write_text("<html>")
        done = call("models", "fetch", "internimage-l-cityscapes", "--from", tmp_path / "mine.pth")
        assert (done.exit_code, done.out) == (2, "")
        assert "it is a web page" in done.err
        assert not cache.exists()

    def test_fetch_without_a_network(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
        done = call("models", "fetch", "internimage-l-cityscapes")
        assert (done.exit_code, done.out) == (1, "")
        assert done.err.startswith("error: cannot reach 127.0.0.1:1: ")
        assert "oodray models fetch internimage-l-cityscapes --from FILE" in done.err
        assert [path for path in cache.iterdir() if path.suffix != ".lock"] == []

    def test_fetch_says_where_the_file_is(self) -> None:
        done = call("models", "fetch", EMBEDDED)
        assert (done.exit_code, done.err) == (0, "")
        assert Path(done.out.strip()).name == f"{EMBEDDED}.pth"

    def test_verify(self) -> None:
        weights = get_model(EMBEDDED).checkpoint
        done = call("models", "verify", weights, "--model", EMBEDDED)
        assert (done.exit_code, done.err) == (0, "")
        assert done.out.startswith(f"{weights} fits {EMBEDDED}\n")
        done = call("models", "verify", weights, "--model", "internimage-t-cityscapes")
        assert (done.exit_code, done.out) == (2, "")
        assert "does not fit the network" in done.err
        assert re.search(r"420 missing: .* and 410 more; ", done.err)


class TestCalibrate:
    @pytest.fixture
    def known_root(self, tiny_dataset: Path, tmp_path: Path) -> Path:
        """The images of the tiny dataset without labels: all of them count."""
        return Path(shutil.copytree(tiny_dataset / "images", tmp_path / "known"))

    def test_writes_a_config_that_run_takes(self, known_root: Path, tmp_path: Path) -> None:
        config, out = tmp_path / "tau.yaml", tmp_path / "out"
        request = ["--dataset", "folder", "--root", known_root, "--model", EMBEDDED, "--executor", "local"]
        done = call("calibrate", *request, "--quantile", "0.25", "--config-out", config, "--out", out, "--threads", 1)
        assert done.exit_code == 0, done.err
        settings = read_settings(config)
        assert settings.keys() == {"model", "tau"}
        assert f"tau {settings['tau']}" in done.out
        assert f"next: oodray run --config {config} --dataset NAME --root DIR" in done.out
        assert "# tau: 25 % quantile of the max-logit of internimage-n-demo, weights sha256" in config.read_text()
        again = call("calibrate", *request, "--out", out, "--threads", 1)  # another quantile, from the same files
        assert again.exit_code == 0, again.err
        tau = float(again.out.split()[1].rstrip(":"))
        assert tau < settings["tau"]
        assert f"next: oodray run --dataset NAME --root DIR --model {EMBEDDED} --tau {tau}" in again.out
        refused = call("run", *request, "--tau", 2, "--out", out, "--threads", 1)
        assert refused.exit_code == 2
        assert "tau was 0.0, is 2.0" in refused.err

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ([], "no dataset given"),
            (["--dataset", "camvit"], "did you mean 'camvid'?"),
            (["--dataset", "road-anomaly", "--model", EMBEDDED], "RoadAnomaly holds OoD pixels"),
            (["--dataset", "camvid", "--model", EMBEDDED], "no --root DIR was given"),
            (["--dataset", "camvid", "--root", "x"], "no network given"),
            (["--dataset", "camvid", "--quantile", "1"], "--quantile"),
            (["--dataset", "road-anomaly", "--workers", "2:16"], "RoadAnomaly holds OoD pixels"),
        ],
    )
    def test_a_wrong_request_starts_nothing(
        self, options: list[str], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        done = call("calibrate", *options)
        assert (done.exit_code, done.out) == (2, "")
        assert problem in done.err
        assert list(tmp_path.iterdir()) == []


class TestErrors:
    @pytest.mark.parametrize("command", ["evaluate", "sweep", "status", "show"])
    def test_what_is_no_results_folder_is_named(self, command: str, tmp_path: Path) -> None:
        done = call(command, tmp_path)
        assert done == Done(2, "", f"error: {tmp_path} is not a results folder: it has no run.json\n")

    @pytest.mark.parametrize(
        ("error", "exit_code", "text"),
        [
            (DatasetError("there [is] none"), 2, "error: there [is] none\n"),
            (RunError("all failed"), 1, "error: all failed\n"),
            (ZeroDivisionError("by zero"), 1, "error: internal error, ZeroDivisionError: by zero\n"),
            (KeyboardInterrupt(), 130, "stopped. The same command continues a run.\n"),
        ],
    )
    def test_one_message_and_no_traceback(
        self, error: BaseException, exit_code: int, text: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(plan_module, "make_request", fail)
        done = call("run", "--dataset", "demo")
        assert (done.exit_code, done.out) == (exit_code, "")
        assert done.err.startswith(text)
        assert "Traceback" not in done.err
        assert ("--debug" in done.err) == isinstance(error, ZeroDivisionError)

    @pytest.mark.parametrize("error", [DatasetError("none"), ZeroDivisionError("by zero")])
    @pytest.mark.parametrize("arguments", [["--debug", "run"], ["run", "--debug"]])
    def test_debug_prints_the_traceback_first(
        self, error: Exception, arguments: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(plan_module, "make_request", fail)
        done = call(*arguments, "--dataset", "demo")
        assert done.err.startswith("Traceback (most recent call last):")
        assert str(error) in done.err.splitlines()[-1] or type(error).__name__ in done.err
        assert done.exit_code == getattr(error, "exit_code", 1)

    def test_the_package_can_be_run(self, tmp_path: Path) -> None:
        found = [
            subprocess.run(
                [sys.executable, "-m", name, "status", tmp_path], check=False, capture_output=True, text=True
            )
            for name in ("oodray", "oodray.cli")
        ]
        assert found[0].returncode == found[1].returncode == 2
        assert found[0].stderr == found[1].stderr == f"error: {tmp_path} is not a results folder: it has no run.json\n"

    @pytest.mark.parametrize("debug", [[], ["--debug"]])
    def test_a_traceback_is_shown_with_debug_alone(self, debug: list[str], tmp_path: Path) -> None:
        command = [sys.executable, "-m", "oodray.cli", "status", str(tmp_path), *debug]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert ("Traceback" in done.stderr) == bool(debug)
        assert "is not a results folder" in done.stderr
        assert done.returncode == 2

    def test_every_error_has_an_exit_code(self) -> None:
        def subclasses(kind: type[OodrayError]) -> Iterator[type[OodrayError]]:
            yield kind
            for sub in kind.__subclasses__():
                yield from subclasses(sub)

        # Ray makes subclasses of its own, of the errors that tasks raise.
        ours = [kind for kind in subclasses(OodrayError) if kind.__module__ == "oodray.errors"]
        codes = {kind.__name__: kind.exit_code for kind in ours}
        failures = {"OodrayError", "RunError", "DownloadError", "ImageError"}
        assert {name for name, code in codes.items() if code == 1} == failures
        assert set(codes.values()) == {1, 2}


@pytest.fixture(scope="module")
def finished(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Done, Path, list[object]]:
    """A run of the tiny dataset: how it ended, where, and its arguments."""
    out = tmp_path_factory.mktemp("cli") / "out"
    options = ["--dataset", "ade-ood", "--root", tiny_dataset, "--model", "fakes:colours"]
    arguments: list[object] = ["run", *options, "--out", out, "--tau", 1.5, "--threads", 1, "--executor", "local"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(HERE)
        return call(*arguments), out, arguments


class Typed(io.StringIO):
    """A terminal at which something is typed."""

    def isatty(self) -> bool:
        return True


class TestOverwrite:
    @pytest.fixture
    def arguments(
        self, finished: tuple[Done, Path, list[object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> list[object]:
        """The same run in a copy of its folder, with another setting."""
        monkeypatch.chdir(HERE)
        shutil.copytree(finished[1], tmp_path / "out")
        return [*finished[2], "--out", tmp_path / "out", "--k", 7, "--overwrite"]

    @pytest.mark.parametrize(("answer", "left"), [("n\n", 10), ("", 10), ("y\n", 0)])
    def test_it_asks_where_someone_can_answer(
        self,
        arguments: list[object],
        started: list[tuple[Plan, Path]],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        *,
        answer: str,
        left: int,
    ) -> None:
        monkeypatch.setattr(sys, "stdin", Typed(answer))
        done = call(*arguments)
        assert f"Remove the run in {tmp_path / 'out'}, 10 units of images?" in done.err
        assert len(finished_units(ResultsFolder(tmp_path / "out"))) == left
        assert len(started) == (left == 0)
        assert done.exit_code == (130 if left else 1)

    def test_nobody_is_asked_without_a_terminal(
        self, arguments: list[object], started: list[tuple[Plan, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        assert "Remove" not in call(*arguments).err
        assert [plan.config.k for plan, _ in started] == [7]
        assert ResultsFolder(tmp_path / "out").parts() == []

    def test_a_run_that_is_at_work_keeps_its_results(
        self, arguments: list[object], started: list[tuple[Plan, Path]], tmp_path: Path
    ) -> None:
        folder = ResultsFolder(tmp_path / "out")
        with Lease(folder):
            done = call(*arguments)
        assert done.exit_code == 2
        assert f"error: another run is at work on {folder.path}: process " in done.err
        assert (started, len(finished_units(folder))) == ([], 10)


class TestRun:
    def test_prints_the_metrics_and_where_the_results_are(self, finished: tuple[Done, Path, list[object]]) -> None:
        done, out, _ = finished
        assert done.exit_code == 0
        for score in ("ratio", "mask-then-logit", "max-logit", "msp", "entropy", "energy"):
            assert score in done.out
        assert done.out.endswith(f"results in {out}\n")
        ap = next(s["ap"] for s in json.loads((out / "metrics.json").read_text())["scores"] if s["score"] == "ratio")
        assert f"{100 * ap:.2f}" in done.out

    def test_says_how_it_goes_beside_the_results(self, finished: tuple[Done, Path, list[object]]) -> None:
        done, _, _ = finished
        assert "warning: ADE-OoD was published with 111 images" in done.err
        assert "10/10 images" in done.err
        assert "Traceback" not in done.err

    def test_evaluate_prints_the_same_again(self, finished: tuple[Done, Path, list[object]]) -> None:
        done, out, _ = finished
        metrics = (out / "metrics.json").read_bytes()
        (out / "metrics.json").unlink()
        assert call("evaluate", out) == Done(0, done.out, "")
        assert (out / "metrics.json").read_bytes() == metrics

    def test_the_same_command_again_only_prints(
        self, finished: tuple[Done, Path, list[object]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done, _, arguments = finished
        monkeypatch.chdir(HERE)
        monkeypatch.setattr(executors, "executor_of", lambda _: Idle())
        again = call(*arguments)
        assert (again.exit_code, again.out) == (0, done.out)

    def test_another_setting_is_refused_by_name(
        self, finished: tuple[Done, Path, list[object]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, out, arguments = finished
        monkeypatch.chdir(HERE)
        done = call(*arguments, "--k", 7)
        assert (done.exit_code, done.out) == (2, "")
        problem = f"error: {out} holds a run with other settings: k was 6, is 7. Choose another --out"
        assert done.err.splitlines()[-1].startswith(problem)

    def test_sweep_prints_the_best_and_where_the_settings_are(self, finished: tuple[Done, Path, list[object]]) -> None:
        _, out, _ = finished
        done = call("sweep", out, "--tau", "-1:3:0.5", "--ood-ratio", "0:1:0.25", "--with-mask-then-logit")
        assert (done.exit_code, done.err) == (0, "")
        assert f"Chosen on {out} itself" in done.out
        assert f"settings in {out / 'sweep.parquet'}" in done.out
        table = pq.read_table(out / "sweep.parquet")
        assert table.num_rows == 9 * 5
        with Image.open(out / "sweep" / "k-6.png") as picture:
            assert picture.width > 300
        elsewhere = call("sweep", out, "--tau", "-1:3:0.5", "--ood-ratio", "0:1:0.25", "--select-on", out)
        assert elsewhere.exit_code == 0
        assert "the same setting here" in " ".join(elsewhere.out.split())

    def test_imported_scores_stand_beside_a_run(
        self, finished: tuple[Done, Path, list[object]], tiny_dataset: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "theirs").mkdir()
        for path in sorted((tiny_dataset / "annotations").iterdir()):
            with Image.open(path) as codes:
                scores = np.asarray(codes) == 1
            np.save(tmp_path / "theirs" / f"{path.name[:2]}_dood_scores.npy", scores.astype(np.float32))
        request = ("import-scores", tmp_path / "theirs", "--dataset", "ade-ood", "--root", tiny_dataset)
        done = call(*request, "--out", tmp_path / "imported")
        assert done.exit_code == 0
        assert "100.00" in done.out
        compared = call("compare", finished[1], tmp_path / "imported", "--like", "ade-ood")
        assert (compared.exit_code, compared.err) == (0, "")
        printed = " ".join(compared.out.split())
        for text in (
            "theirs",
            "mask-then-logit",
            "imported scores",
            "published, Table 2",
            "48.77",
            "not measured here",
        ):
            assert text in printed
        board = call("leaderboard", tmp_path, "--like", "smiyc", "--json")
        tables = json.loads(board.out)
        assert [(table["dataset"], table["like"]) for table in tables] == [("ade-ood", None), ("ade-ood", "smiyc")]
        assert [row["rank"] for row in tables[0]["rows"]] == list(range(1, len(tables[0]["rows"]) + 1))
        assert tables[0]["rows"][0]["method"] == "imported"
        refused = call("compare", tmp_path / "imported", "--json", "--latex")
        assert "--json and --latex do not go together" in refused.err
        blurred = call(*request, "--out", tmp_path / "imported", "--blur", "--overwrite")
        assert blurred.exit_code == 0
        assert json.loads((tmp_path / "imported" / "run.json").read_text())["imported"]["blur"] is True
        as_pebal = " ".join(call("evaluate", tmp_path / "imported", "--like", "pebal").out.split())
        assert "Not reproduced: nothing." in as_pebal
        for command in ("show", "sweep"):
            refused = call(command, tmp_path / "imported")
            assert (refused.exit_code, refused.out) == (2, "")
            assert "imported scores, which have no clusters" in refused.err

    def test_evaluate_as_others_do(self, finished: tuple[Done, Path, list[object]], tmp_path: Path) -> None:
        out = Path(shutil.copytree(finished[1], tmp_path / "copy"))
        done = call("evaluate", out, "--like", "pebal", "--fpr-rule", ">", "--tpr", 0.9, "--bootstrap", 20)
        assert (done.exit_code, done.err) == (0, "")
        printed = " ".join(done.out.split())
        assert "Not reproduced: a Gaussian blur" in printed
        assert "FPR90 %" in printed
        assert "95% confidence intervals" in printed
        assert pq.read_table(out / "metrics.parquet").num_rows == 3 * 6
        told = call("evaluate", out, "--json", "--further", "--components", "obstacle")
        content = json.loads(told.out)
        assert (told.exit_code, told.err) == (0, "")
        assert [row["score"] for row in content["components"]] == ["mask", "ratio"]
        assert content["scores"][0]["tpr_at_fpr05"] > 0
        assert {(out / f"components{end}.parquet").is_file() for end in ("", "_summary")} == {True}
        by_dataset = json.loads(call("evaluate", out, "--components", "--json").out)
        assert (
            by_dataset["components"]
            == json.loads(call("evaluate", out, "--json", "--components", "anomaly").out)["components"]
        )
        refused = call("evaluate", out, "--threshold", 0.5)
        assert (refused.exit_code, "--threshold belongs to --components" in refused.err) == (2, True)
        refused = call("evaluate", out, "--like", "pebble")
        assert refused == Done(2, "", "error: no evaluator 'pebble' is known; did you mean 'pebal'?\n")

    def test_status_counts_its_images(self, finished: tuple[Done, Path, list[object]]) -> None:
        done = call("status", finished[1])
        assert (done.exit_code, done.err) == (0, "")
        assert "10 of 10 done, 0 left" in done.out

    def test_show_draws_the_image_asked_for(self, finished: tuple[Done, Path, list[object]]) -> None:
        done = call("show", finished[1], "images/03")
        assert (done.exit_code, done.err) == (0, "")
        [path] = done.out.split()
        with Image.open(path) as picture:
            assert picture.width > 144
        unknown = call("show", finished[1], "images/99")
        assert (unknown.exit_code, unknown.out) == (2, "")
        assert "images/99" in unknown.err

    def test_where_all_images_fail_the_command_does(
        self, finished: tuple[Done, Path, list[object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(HERE)
        arguments = ["fakes:flat" if argument == "fakes:colours" else argument for argument in finished[2]]
        done = call(*arguments, "--out", tmp_path / "out")
        assert (done.exit_code, done.out) == (1, "")
        assert "error: all 10 images failed" in done.err
        assert "warning: images/00: the segmenter returned features of " in done.err
        assert "Traceback" not in done.err
