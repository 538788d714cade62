from __future__ import annotations

import contextlib
import json
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oodray.config import (
    SETTINGS,
    RunConfig,
    build_config,
    check_settings,
    config_root,
    fingerprint,
    preset,
    read_settings,
)
from oodray.datasets.layouts import LAYOUTS
from oodray.errors import ConfigError
from oodray.models.weights.zoo import model_names
from oodray.scores.registry import DEFAULT_SCORES as SCORES
from oodray.scores.registry import check_names


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "run.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


class TestRunConfig:
    @pytest.mark.parametrize(
        ("name", "good", "bad"),
        [
            ("k", [1, 255], [0, -1, 256]),
            ("tau", [-3.5, 0.0, 1e30, None], [float("nan"), float("inf"), float("-inf")]),
            ("ood_ratio", [0.0, 0.3, 1.0], [-0.001, 1.001, float("nan")]),
            ("seed", [0, 2**32 - 1], [-1, 2**32]),
            ("dtype", ["auto", "float32", "bfloat16", "float16"], ["", "half", "float64"]),
            ("kmeans_backend", ["auto", "torch", "cuml", "sklearn"], ["", "faiss", "TORCH"]),
            ("n_init", [1, 100], [0, 101]),
            ("batch_size", [1, 64], [0, -2]),
            ("threads", [1, 64], [0]),
            ("workers", [1, 1000, None], [0]),
            ("executor", ["ray", "local"], ["", "Ray", "slurm"]),
            ("wait", [0.0, 900.0], [-1.0, float("inf"), float("nan")]),
            ("gpus_per_worker", [0.0, 0.25, 1.0, 8.0, None], [-0.5, 1.5, float("nan"), float("inf"), float("-inf")]),
        ],
    )
    def test_ranges(self, name: str, good: list[Any], bad: list[Any]) -> None:
        for value in good:
            assert getattr(RunConfig("demo", **{name: value}), name) == value
        for value in bad:
            with pytest.raises(ConfigError, match=f"^{name} must be .*, got "):
                RunConfig("demo", **{name: value})

    def test_every_field_is_a_setting_with_a_help_text(self) -> None:
        assert list(SETTINGS) == [field.name for field in fields(RunConfig)]
        for setting in SETTINGS.values():
            assert setting.help.endswith(".")
            assert not setting.about.help.endswith(".")

    def test_what_none_stands_for_is_said(self) -> None:
        assert {name for name, setting in SETTINGS.items() if setting.may_be_none and not setting.about.unset} == set()


class TestExecutor:
    @pytest.mark.parametrize(
        ("options", "option"),
        [
            ({"workers": 2}, "--workers 2"),
            ({"workers": 16, "fewest_workers": 1}, "--workers 16"),
            ({"gpus_per_worker": 2.0}, "--gpus-per-worker 2.0"),
            ({"wait": 0.5}, "--wait 0.5"),
            ({"ray_address": "10.0.0.1:6379"}, "--ray-address 10.0.0.1:6379"),
        ],
    )
    def test_local_refuses_what_ray_alone_has(self, options: dict[str, Any], option: str) -> None:
        assert RunConfig("demo", **options).executor == "ray"
        with pytest.raises(ConfigError, match=f"^{option} does not go with --executor local, .* pass --executor ray"):
            RunConfig("demo", executor="local", **options)

    def test_local_takes_the_rest(self) -> None:
        RunConfig("demo", executor="local", workers=1, fewest_workers=1, gpus_per_worker=1.0, wait=0.0)
        RunConfig("demo", executor="local", gpus_per_worker=0.25, image_timeout=30.0, threads=8)

    def test_it_is_no_part_of_a_runs_identity(self) -> None:
        assert fingerprint(RunConfig("demo", executor="local")) == fingerprint(RunConfig("demo"))


class TestReadSettings:
    def test_yaml_with_the_names_of_the_fields(self, tmp_path: Path) -> None:
        text = "dataset: demo\nk: 6\ntau: 2\nscores: [ratio, msp]\nnormalize_features: true\nworkers: null\n"
        settings = read_settings(written(tmp_path, text))
        assert settings == {
            "dataset": "demo",
            "k": 6,
            "tau": 2.0,
            "scores": ("ratio", "msp"),
            "normalize_features": True,
            "workers": None,
        }
        assert type(settings["tau"]) is float

    def test_ranges_and_lists_are_written_as_on_the_command_line(self, tmp_path: Path) -> None:
        text = "workers: 2:16\nsweep_k: 3:5\nscores: ratio, msp\ntau: 1e-1\n"
        assert read_settings(written(tmp_path, text)) == {
            "workers": 16,
            "fewest_workers": 2,
            "sweep_k": (3, 4, 5),
            "scores": ("ratio", "msp"),
            "tau": 0.1,
        }

    @pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
    def test_an_empty_file_gives_nothing(self, tmp_path: Path, text: str) -> None:
        assert read_settings(written(tmp_path, text)) == {}

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("k: [", "is not valid YAML"),
            ("k: 1\n\tb: 2", "is not valid YAML"),
            ("!!python/object/apply:os.system ['true']", "is not valid YAML"),
            ("seed: 2026-13-45", "seed in .*run.yaml must be a whole number, got '2026-13-45'"),
            ("tau: 1,5", "tau in .*run.yaml: '1,5' is neither a number nor auto"),
            ("normalize_features: yes", "normalize_features in .*run.yaml must be true or false, got 'yes'"),
            ("k: 1\nseed: 2\nk: 3", "k is given twice, in line 1 and in line 3"),
            ("sweep_k: 3:a", "sweep_k in .*run.yaml: '3:a' is no range"),
            ("workers: two", "workers in .*run.yaml: --workers must be a number"),
            ("\x00", "is not valid YAML"),
            ("- k", "must hold `key: value` lines, got a list"),
            ("road-anomaly", "got a str"),
            (b"\xff\xfe\xff", "cannot read the config file"),
            ("ood_ratios: 0.4", "unknown key 'ood_ratios' in .*run.yaml; did you mean 'ood_ratio'?"),
            ("zzz: 1", "unknown key 'zzz' in .*run.yaml; known keys: dataset, root, split, label_codes, labels"),
            ("5: 1", "unknown key 5 in"),
        ],
    )
    def test_what_is_wrong_is_named_with_the_file(self, tmp_path: Path, text: str | bytes, problem: str) -> None:
        path = written(tmp_path, text)
        with pytest.raises(ConfigError, match=problem) as caught:
            read_settings(path)
        assert str(path) in str(caught.value)

    def test_a_file_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        for path in (tmp_path / "none.yaml", tmp_path):
            with pytest.raises(ConfigError, match=f"cannot read the config file {path}: "):
                read_settings(path)


class TestCheckSettings:
    @pytest.mark.parametrize(
        ("key", "value", "kind"),
        [
            ("k", "5", "a whole number"),
            ("k", 5.0, "a whole number"),
            ("k", True, "a whole number"),
            ("k", None, "a whole number"),
            ("workers", "two", "a whole number"),
            ("tau", "1e-3", "a number"),
            ("tau", True, "a number"),
            ("tau", [1.0], "a number"),
            ("ood_ratio", 10**400, "a number"),
            ("ood_ratio", None, "a number"),
            ("normalize_features", 1, "true or false"),
            ("normalize_features", "yes", "true or false"),
            ("scores", "ratio", "a list of names"),
            ("scores", ["ratio", 1], "a list of names"),
            ("scores", None, "a list of names"),
            ("dataset", 5, "a text"),
            ("dataset", None, "a text"),
            ("root", ["a"], "a text"),
            ("kmeans_backend", None, "a text"),
        ],
    )
    def test_wrong_types_are_named(self, key: str, value: Any, kind: str) -> None:
        with pytest.raises(ConfigError, match=f"^{key} in the options must be {kind}, got "):
            check_settings({key: value}, source="the options")

    @pytest.mark.parametrize("key", ["root", "model", "checkpoint", "tau", "workers", "ray_address"])
    def test_what_may_be_open_may_be_null(self, key: str) -> None:
        assert check_settings({key: None}, source="here") == {key: None}

    def test_every_default_passes(self) -> None:
        defaults = {field.name: getattr(RunConfig("demo"), field.name) for field in fields(RunConfig)}
        assert check_settings(defaults, source="here") == defaults


class TestBuildConfig:
    def test_a_share_of_a_gpu_is_one_that_ray_can_count(self) -> None:
        for share in (0.0, 0.0001, 1 / 3, 1.0, 2.0):
            assert RunConfig("demo", gpus_per_worker=share).gpus_per_worker == share
        for share in (-1.0, 0.00001, 1.5):
            with pytest.raises(ConfigError, match=r"0, a share from 0.0001 to 1, or a whole number"):
                RunConfig("demo", gpus_per_worker=share)

    def test_later_layers_win_and_none_says_nothing(self) -> None:
        config = build_config({"dataset": "demo", "k": 3, "tau": 1.0}, {"k": 4, "tau": None}, {"k": None, "seed": 9})
        assert config == RunConfig("demo", k=4, tau=1.0, seed=9)

    def test_false_and_zero_win_too(self) -> None:
        layers = {"dataset": "demo", "normalize_features": True, "seed": 5, "ood_ratio": 0.5}
        config = build_config(layers, {"normalize_features": False, "seed": 0, "ood_ratio": 0.0})
        assert (config.normalize_features, config.seed, config.ood_ratio) == (False, 0, 0.0)

    def test_a_number_of_workers_takes_the_place_of_a_range(self) -> None:
        of_file = {"dataset": "demo", "workers": 16, "fewest_workers": 2}
        assert build_config(of_file, {"workers": 1}).fewest_workers is None
        assert build_config(of_file, {"k": 4}).fewest_workers == 2
        assert build_config(of_file, {"workers": 8, "fewest_workers": 4}).fewest_workers == 4

    def test_a_dataset_is_needed(self) -> None:
        for layers in ((), ({"k": 5},), ({"dataset": None},)):
            with pytest.raises(ConfigError, match="no dataset given: pass --dataset NAME, see `oodray datasets`"):
                build_config(*layers)


class TestPresets:
    def test_datasets_without_one_have_no_settings(self) -> None:
        assert preset("folder") == {}

    FILES = sorted((config_root() / "runs").glob("*.yaml"))
    OF_NETWORKS = "rba-swin-b-cityscapes", "mask2former-swin-l-cityscapes", "eomt-large-cityscapes", "eomt-large-ade20k"

    @pytest.mark.parametrize("name", OF_NETWORKS)
    def test_those_of_networks_go_with_any_dataset(self, name: str) -> None:
        settings = preset(name)
        assert settings["model"].startswith(("hf:", "./"))
        config = build_config(settings, {"dataset": "road-anomaly"})
        assert check_names(config.scores) == config.scores

    @pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
    def test_each_is_for_a_known_dataset_and_a_known_network(self, path: Path) -> None:
        settings = preset(path.stem)
        assert path.stem in LAYOUTS or path.stem in self.OF_NETWORKS
        assert settings["model"] in model_names() or path.stem in self.OF_NETWORKS
        assert "dataset" not in settings
        build_config(settings, {"dataset": path.stem})

    @pytest.mark.parametrize(
        ("dataset", "k", "tau", "ood_ratio"), [("road-anomaly", 5, 1.5, 0.3), ("ade-ood", 6, 1.1, 0.4)]
    )
    def test_the_papers_settings(self, dataset: str, k: int, tau: float, ood_ratio: float) -> None:
        settings = preset(dataset)
        assert (settings["k"], settings["tau"], settings["ood_ratio"]) == (k, tau, ood_ratio)


class TestFingerprint:
    def test_holds_what_decides_a_number_and_nothing_else(self) -> None:
        how_it_runs = {
            "labels",
            "allow_outside_root",
            "checkpoint",
            "member_checkpoints",
            "fit",
            "tau_auto",
            "calibrate_on",
            "keep_features_gb",
            "executor",
            "workers",
            "fewest_workers",
            "gpus_per_worker",
            "wait",
            "image_timeout",
            "ray_address",
        }
        assert set(fingerprint(RunConfig("demo"))) == {field.name for field in fields(RunConfig)} - how_it_runs

    def test_survives_json(self) -> None:
        values = fingerprint(RunConfig("demo", scores=SCORES, tau=1.1))
        assert json.loads(json.dumps(values)) == values


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
keys = st.sampled_from([field.name for field in fields(RunConfig)]) | st.text(max_size=8)


@given(st.dictionaries(keys, values, max_size=4))
def test_any_settings_make_a_config_or_a_config_error(settings: dict[str, Any]) -> None:
    with contextlib.suppress(ConfigError):
        config = build_config({"dataset": "demo"}, check_settings(settings, source="a file"))
        assert json.loads(json.dumps(fingerprint(config)))["dataset"] == config.dataset


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_file_is_settings_or_a_config_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_bytes(content)
        with contextlib.suppress(ConfigError):
            assert isinstance(read_settings(path), dict)


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"root: !!python/object/apply:os.mkdir [{tmp_path / 'made'}]")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        read_settings(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("k: " + "[" * 5000, "is not valid YAML", id="lists in lists"),
        pytest.param("k: 0x" + "f" * 5000, "k must be .* got a number of thousands of digits", id="a long number"),
        pytest.param("seed: &a [*a]", "seed in .* must be a whole number, got", id="a list in itself"),
        pytest.param("? " + "x" * 100_000 + "\n: 1", "unknown key 'xxx", id="a long key"),
    ],
)
def test_a_message_about_a_monster_is_short(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=problem) as refused:
        build_config({"dataset": "demo"}, read_settings(path))
    assert len(str(refused.value)) < 1000


def test_a_value_of_gigabytes_is_not_written_out(tmp_path: Path) -> None:
    value: list[Any] = ["x"]
    for _ in range(40):
        value = [value] * 10
    with pytest.raises(ConfigError, match=r"root in a file must be a text, got \[") as refused:
        check_settings({"root": value}, source="a file")
    assert len(str(refused.value)) < 1000
