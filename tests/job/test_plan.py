from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from oodray import OodrayError
from oodray.cluster import device
from oodray.config import RunConfig, read_settings
from oodray.datasets.layouts import Demo
from oodray.errors import ConfigError, DatasetError, ModelError, ResultsError
from oodray.job import layers as layers_module
from oodray.job import plan as plan_module
from oodray.job.plan import Plan, make_plan
from oodray.results.folder import ResultsFolder
from oodray.scores.registry import DEFAULT_SCORES as SCORES
from oodray.scores.registry import are_pixel_scores

Make = Callable[..., Plan]

# A network without a tau of its own, that is never loaded here.
FACTORY = "fakes:colours"
EMBEDDED = "internimage-n-demo"


@pytest.fixture
def make(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Plans for the tiny dataset; `yaml` is the text of a config file, None takes an option away."""
    monkeypatch.setenv("OODRAY_CACHE", str(tmp_path / "cache"))

    def plan(yaml: str | None = None, **options: Any) -> Plan:
        from_file = None
        if yaml is not None:
            config_file = tmp_path / "run.yaml"
            config_file.write_text(yaml)
            from_file = read_settings(config_file)
        given = {"dataset": "ade-ood", "root": str(tiny_root), "model": FACTORY, "tau": 1.5} | options
        return make_plan(given, from_file, ResultsFolder(tmp_path / "out"))

    return plan


def no_cluster(address: str | None) -> None:
    """In the place of `connected`, which takes the Ray that other tests have started for the cluster."""
    raise ConfigError(f"no cluster at {address or os.environ['RAY_ADDRESS']}")


def weights(folder: Path) -> str:
    path = folder / "weights.pth"
    path.write_bytes(b"any")
    return str(path)


class TestLayers:
    def test_the_preset_is_the_lowest(self, make: Make) -> None:
        config = make().config
        assert (config.k, config.ood_ratio) == (6, 0.4)
        assert config.n_init == RunConfig("ade-ood").n_init

    def test_the_config_file_wins_over_it(self, make: Make) -> None:
        config = make("k: 7\nood_ratio: 0\n").config
        assert (config.k, config.ood_ratio) == (7, 0.0)

    def test_options_win_over_both(self, make: Make) -> None:
        config = make("k: 7\nseed: 3\n", k=8, ood_ratio=0.0).config
        assert (config.k, config.seed, config.ood_ratio) == (8, 3, 0.0)

    def test_the_config_file_may_name_the_dataset(self, make: Make) -> None:
        assert make("dataset: ade-ood\n", dataset=None).layout.name == "ade-ood"

    def test_the_preset_is_that_of_the_dataset_that_wins(self, make: Make) -> None:
        config = make("dataset: road-anomaly\n").config
        assert (config.dataset, config.k) == ("ade-ood", 6)

    @pytest.mark.parametrize(
        ("yaml", "options", "problem"),
        [
            (None, {"ood_ration": 0.3}, "unknown key 'ood_ration' in the options; did you mean 'ood_ratio'?"),
            ("kay: 5\n", {}, r"unknown key 'kay' in .*run.yaml"),
            (None, {"k": "5"}, "k in the options must be a whole number, got '5'"),
            ("tau: low\n", {}, r"tau in .*run.yaml: 'low' is neither a number nor auto"),
            (None, {"k": 0}, "k must be a whole number from 1 to 255, got 0"),
            ("ood_ratio: 30\n", {}, "ood_ratio must be a share from 0 to 1, got 30.0"),
            (None, {"scores": ("ratio", "rato")}, "unknown score 'rato'; did you mean 'ratio'?"),
            (None, {"scores": ("zzz",)}, "unknown score 'zzz'; known: ratio, mask-then-logit, max-logit"),
            (None, {"scores": ("",)}, "unknown score ''"),
            (None, {"kmeans_backend": "faiss"}, "kmeans_backend must be one of auto, torch, cuml, sklearn"),
            (None, {"dataset": None}, "no dataset given"),
        ],
    )
    def test_what_is_wrong_is_named(self, make: Make, yaml: str | None, options: dict[str, Any], problem: str) -> None:
        with pytest.raises(ConfigError, match=problem):
            make(yaml, **options)


class TestTau:
    def test_the_one_asked_for_wins(self, make: Make) -> None:
        for options in ({"tau": 0.5}, {"tau": 0.5, "model": EMBEDDED}):
            plan = make("tau: 9\n", **options)
            assert plan.config.tau == 0.5
            assert not any("tau" in warning for warning in plan.warnings)
        assert make("tau: 9\n", tau=None).config.tau == 9.0
        assert make("tau: 0\n", tau=None, model=EMBEDDED).config.tau == 0.0

    def test_else_the_networks_own(self, make: Make) -> None:
        plan = make(tau=None, model=EMBEDDED)
        assert plan.config.tau == plan.model.tau
        assert plan.config.tau != 1.1
        assert not any("tau" in warning for warning in plan.warnings)

    def test_else_the_presets_with_a_warning(self, make: Make) -> None:
        plan = make(tau=None)
        assert plan.config.tau == 1.1
        [warning] = [warning for warning in plan.warnings if "tau" in warning]
        assert warning.startswith(f"tau=1.1 was chosen for internimage-l-ade20k, not for {FACTORY}; pass --tau")

    def test_other_weights_of_the_presets_network_are_named(self, make: Make, tmp_path: Path) -> None:
        checkpoint = weights(tmp_path)
        plan = make(tau=None, model=None, checkpoint=checkpoint)
        assert plan.config.tau == 1.1
        [warning] = [warning for warning in plan.warnings if "tau" in warning]
        assert f"for internimage-l-ade20k, not for the weights {checkpoint};" in warning

    def test_the_presets_own_network_needs_no_warning(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(layers_module, "preset", lambda _: {"model": FACTORY, "tau": 2.5})
        plan = make(tau=None, model=None)
        assert plan.config.tau == 2.5
        assert not any("tau" in warning for warning in plan.warnings)

    def test_else_there_is_none(self, make: Make) -> None:
        with pytest.raises(ConfigError, match=f"no tau is known for {FACTORY}: pass --tau X"):
            make(dataset="folder", tau=None)


class TestDataset:
    def test_the_manifest_lists_its_images(self, make: Make, tiny_root: Path) -> None:
        plan = make()
        assert plan.manifest["image_id"].to_pylist() == [f"images/{index:02}" for index in range(10)]
        assert plan.root == tiny_root
        assert plan.config.root == str(tiny_root)

    def test_a_root_without_a_slash_is_below_the_working_directory(
        self, make: Make, tiny_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tiny_root.parent)
        assert make(root="tiny").root == tiny_root

    def test_fewer_images_than_published_are_a_warning(self, make: Make) -> None:
        assert make().warnings == (
            "ADE-OoD was published with 111 images, found: 10; the numbers do not compare with published ones",
        )
        assert make(dataset="folder").warnings == ()

    @pytest.mark.parametrize("root", [None, "", "/nonexistent/place"])
    def test_a_missing_root_says_the_layout_and_where_to_get_it(self, make: Make, root: str | None) -> None:
        with pytest.raises(DatasetError) as caught:
            make(root=root)
        message = str(caught.value)
        assert ("/nonexistent/place does not exist" if root else "no --root DIR was given") in message
        assert "ROOT/annotations/NAME_mask.png" in message
        assert "ADE-OoD.zip" in message
        assert caught.value.exit_code == 2

    def test_the_demo_draws_itself_into_the_results(
        self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn = []

        def draw(layout: object, root: Path) -> None:
            drawn.append(root)
            (root / "images").mkdir(parents=True)
            (root / "labels").mkdir()
            for folder in ("images", "labels"):
                (root / folder / "scene-00.png").touch()

        monkeypatch.setattr(Demo, "prepare", draw)
        assert make(dataset="demo", root=None).root == tmp_path / "out" / "dataset"
        assert drawn == [tmp_path / "out" / "dataset"]

    @pytest.mark.parametrize(
        "options",
        [
            {"scores": ("rato",)},
            {"model": "none"},
            {"model": FACTORY, "tau": None},
            {"model": FACTORY, "dtype": "bfloat16"},
            {"ray_address": "10.0.0.1:6379", "gpus_per_worker": None},
        ],
    )
    def test_a_refused_request_draws_nothing(
        self, make: Make, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(device, "connected", no_cluster)
        monkeypatch.setattr(layers_module, "preset", lambda _: {})
        monkeypatch.setattr(Demo, "prepare", lambda *_: pytest.fail("drawn"))
        with pytest.raises(OodrayError):
            make(dataset="demo", root=None, **options)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("model", ["net.py", "net:make", "package.net:make", "package:make", "namespace:make"])
    def test_code_of_a_dataset_is_never_run(
        self, make: Make, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
    ) -> None:
        ran = tmp_path / "ran"
        for name in ("net.py", "package/net.py", "package/__init__.py", "namespace/net.py"):
            (tiny_root / name).parent.mkdir(exist_ok=True)
            (tiny_root / name).write_text(f"open({str(ran)!r}, 'w')\nmake = dict\n")
        monkeypatch.chdir(tiny_root)
        options = {"checkpoint": weights(tmp_path)} if model.endswith(".py") else {}
        with pytest.raises(ConfigError, match=r"lies inside the dataset's folder .* read it, and copy"):
            make(model=model, tau=1.0, **options)
        assert not ran.exists()

    def test_nor_from_the_home_folder(self, make: Make, tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tiny_root / "net.py").touch()
        monkeypatch.setenv("HOME", str(tiny_root))
        with pytest.raises(ConfigError, match="lies inside the dataset's folder"):
            make(model="~/net.py", checkpoint="weights.pth")

    def test_an_unknown_dataset_is_named(self, make: Make) -> None:
        with pytest.raises(DatasetError, match="unknown dataset 'ade-odo'; did you mean 'ade-ood'"):
            make(dataset="ade-odo")


class TestModel:
    def test_a_factory_has_no_checkpoint(self, make: Make) -> None:
        assert make().model_sha256 is None

    def test_weights_are_known_by_their_sha256(self, make: Make, tmp_path: Path) -> None:
        plan = make(model="internimage-l-ade20k", checkpoint=weights(tmp_path))
        assert plan.model_sha256 == hashlib.sha256(b"any").hexdigest()

    def test_other_bytes_than_published_are_a_warning(self, make: Make, tmp_path: Path) -> None:
        model = "internimage-b-cityscapes"
        path = tmp_path / "cache" / "models" / "upernet_internimage_b_512x1024_160k_cityscapes.pth"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"cut off")
        sha256 = hashlib.sha256(b"cut off").hexdigest()
        assert make(model=model).warnings[-1] == (
            f"{path} is not the file that was published as {model}: its sha256 is {sha256}"
        )
        assert not any("sha256" in text for text in make(model=model, checkpoint=str(path)).warnings)

    def test_a_file_that_is_no_checkpoint_is_refused_before_anything_starts(self, make: Make, tmp_path: Path) -> None:
        path = tmp_path / "cache" / "models" / "upernet_internimage_b_512x1024_160k_cityscapes.pth"
        path.parent.mkdir(parents=True)
        path.write_text("<!DOCTYPE html>")
        with pytest.raises(ModelError, match="is not a checkpoint: it is a web page"):
            make(model="internimage-b-cityscapes")

    def test_what_users_report_of_a_network_is_a_warning(self, make: Make, tmp_path: Path) -> None:
        options = {"checkpoint": weights(tmp_path), "tau": 1.1}
        found = make(model="internimage-xl-mapillary2cityscapes", **options).warnings
        assert any("users report poor pictures" in text for text in found)
        other = make(model="internimage-l-mapillary2cityscapes", **options).warnings
        assert not any("users report" in text for text in other)

    @pytest.mark.parametrize("passes", [{"flip": True}, {"scales": "0.5,1"}])
    def test_energy_of_several_passes_is_a_warning(self, make: Make, passes: dict[str, Any]) -> None:
        def told(scores: str, **options: Any) -> list[str]:
            found = make(scores=scores, **options).warnings
            return [text.partition(" will be")[0] for text in found if "same at every pixel" in text]

        assert told("energy,mean(energy),msp", **passes) == ["energy and mean(energy)"]
        assert told("ratio(energy>-3),max-logit", **passes) == ["ratio(energy>-3)"]
        assert told("max-logit,msp,entropy", **passes) == []
        assert told("energy") == []

    def test_classes_are_measured_of_networks_that_have_as_many(self, make: Make) -> None:
        def asked(codes: str, **options: Any) -> Plan:
            return make(dataset="folder", id_quality=True, label_codes=codes, **options)

        with pytest.raises(ConfigError, match="folder name 11, and internimage-n-demo has 10; `oodray models`"):
            asked("0:10=id,254=ood", model=EMBEDDED)
        with pytest.raises(ConfigError, match="needs labels that name classes"):
            asked("0=id,1=ood", model=EMBEDDED)
        assert asked("0:9=id,254=ood", model=EMBEDDED).config.id_quality
        assert asked("0:10=id,254=ood").config.id_quality  # of a factory nobody knows

    def test_a_config_is_known_by_its_place_and_content(
        self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = tmp_path / "net.py"
        config.write_text("model = {}")
        before = make(model=str(config), checkpoint=weights(tmp_path)).identity()
        monkeypatch.chdir(tmp_path)
        assert make(model="net.py", checkpoint=weights(tmp_path)).identity() == before
        assert make(model="./net.py", checkpoint=weights(tmp_path)).identity() == before
        config.write_text("model = dict()")
        after = make(model=str(config), checkpoint=weights(tmp_path)).identity()
        assert {name for name in after if after[name] != before[name]} == {"code_sha256"}

    def test_a_factory_is_known_by_the_code_of_its_module(self, make: Make) -> None:
        code = (Path(__file__).parents[1] / "fakes.py").read_bytes()
        assert make().identity()["code_sha256"] == hashlib.sha256(code).hexdigest()
        assert make(model=EMBEDDED).identity()["code_sha256"] is None

    def test_the_version_of_the_method_is_part_of_it(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        before = make().identity()
        monkeypatch.setattr(plan_module, "METHOD_VERSION", -1)
        assert make().identity() == before | {"method_version": -1}

    def test_official_weights_that_are_not_here_say_how_to_get_them(self, make: Make) -> None:
        with pytest.raises(ModelError) as caught:
            make(model=None)
        assert caught.value.exit_code == 2
        message = str(caught.value)
        assert message.startswith("the weights of internimage-l-ade20k are not on this machine")
        assert "upernet_internimage_l_640_160k_ade20k.pth" in message
        assert "oodray models fetch internimage-l-ade20k\n" in message
        assert f"--model {EMBEDDED}" in message

    def test_a_dataset_without_preset_needs_one(self, make: Make) -> None:
        with pytest.raises(ConfigError, match="no network given for folder: pass --model NAME"):
            make(dataset="folder", model=None)

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ({"model": "internimage-l-ade"}, "unknown model 'internimage-l-ade'; did you mean"),
            ({"model": EMBEDDED, "checkpoint": "/nope.pth"}, "the checkpoint /nope.pth does not exist"),
            ({"model": "net.py"}, "pass --checkpoint FILE"),
            ({"checkpoint": "/nope.pth"}, "--checkpoint does not go with the factory"),
        ],
    )
    def test_one_that_cannot_be_is_refused(self, make: Make, options: dict[str, Any], problem: str) -> None:
        with pytest.raises(ModelError, match=problem):
            make(**options)


class TestPlan:
    def test_nothing_is_left_open_that_decides_a_number(self, make: Make) -> None:
        config = make(kmeans_backend="auto").config
        assert config.kmeans_backend in ("torch", "cuml")
        assert config.scores == SCORES

    def test_scores_are_in_their_own_order(self, make: Make) -> None:
        plan = make(scores=("energy", "ratio", "msp", "energy"))
        assert plan.config.scores == ("ratio", "msp", "energy")
        assert plan.method().scores == ("msp", "energy")
        assert make().method().scores == are_pixel_scores(SCORES)

    def test_the_method_is_that_of_the_config(self, make: Make) -> None:
        method = make(k=3, seed=4, ood_ratio=0.2, n_init=2, batch_size=5, normalize_features=True).method()
        assert (method.k, method.ks, method.tau, method.ood_ratio) == (3, (3,), 1.5, 0.2)
        assert (method.seed, method.n_init, method.batch_size, method.normalize_features) == (4, 2, 5, True)

    @pytest.mark.parametrize(
        ("dtype", "gpus", "used"),
        [
            (None, 1.0, "float32"),
            ("auto", 0.0, "float32"),
            ("auto", 1.0, "bfloat16"),
            ("bfloat16", 0.0, "bfloat16"),
            ("float16", 1.0, "float16"),
        ],
    )
    def test_the_dtype_is_resolved_and_part_of_the_identity(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, dtype: str | None, gpus: float, used: str
    ) -> None:
        monkeypatch.setattr("oodray.cluster.device.refuse_absent_gpu", lambda _: None)
        monkeypatch.setattr("oodray.job.plan.refuse_absent_gpu", lambda _: None)
        plan = make(model=EMBEDDED, dtype=dtype, gpus_per_worker=gpus)
        assert plan.config.dtype == plan.identity()["dtype"] == used

    def test_float16_is_refused_on_a_cpu(self, make: Make) -> None:
        with pytest.raises(ConfigError, match="float16 is for GPUs"):
            make(model=EMBEDDED, dtype="float16", gpus_per_worker=0.0)

    @pytest.mark.parametrize("capable", [True, False])
    def test_bfloat16_without_instructions_for_it_is_warned_of(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, capable: bool
    ) -> None:
        monkeypatch.setattr("oodray.cluster.device.refuse_absent_gpu", lambda _: None)
        monkeypatch.setattr("oodray.job.plan.refuse_absent_gpu", lambda _: None)
        monkeypatch.setattr("oodray.models.dtype.multiplies_bfloat16", lambda: capable)
        for dtype, gpus, slow in (("bfloat16", 0.0, not capable), ("float32", 0.0, False), ("bfloat16", 1.0, False)):
            warnings = make(model=EMBEDDED, dtype=dtype, gpus_per_worker=gpus).warnings
            assert any("bfloat16" in warning for warning in warnings) == slow

    def test_a_factory_chooses_its_own_dtype(self, make: Make) -> None:
        assert make().config.dtype is None
        with pytest.raises(ConfigError, match="--dtype does not go with the factory"):
            make(dtype="bfloat16")

    def test_zero_gpus_are_the_cpu(self, make: Make) -> None:
        assert make(gpus_per_worker=0.0).device == "cpu"

    def test_the_local_executor_asks_no_cluster(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(device, "connected", no_cluster)
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
        with pytest.raises(ConfigError, match=r"no cluster at 10\.0\.0\.1:6379"):
            make()
        here = make(executor="local")
        assert here.config.executor == "local"
        monkeypatch.delenv("RAY_ADDRESS")
        assert make().identity() == here.identity()

    @pytest.mark.parametrize(
        "options",
        [
            {"k": 5},
            {"tau": 1.50001},
            {"ood_ratio": 0.41},
            {"seed": 1},
            {"n_init": 5},
            {"normalize_features": True},
            {"kmeans_backend": "sklearn"},
            {"scores": ("msp",)},
            {"batch_size": 2},
            {"threads": 1},
        ],
    )
    def test_what_decides_a_number_is_part_of_the_identity(self, make: Make, options: dict[str, Any]) -> None:
        [name] = options
        before, now = make().identity(), make(**options).identity()
        assert {key for key in now if now[key] != before[key]} == {name}

    def test_where_and_how_fast_is_not(self, make: Make) -> None:
        other = make(workers=3, gpus_per_worker=0.0, ray_address="10.0.0.1:6379")
        assert other.identity() == make().identity() | {"device": other.device}

    def test_weights_are_the_same_wherever_they_lie(self, make: Make, tmp_path: Path) -> None:
        (tmp_path / "moved").mkdir()
        plans = [make(model=EMBEDDED, checkpoint=weights(folder)) for folder in (tmp_path, tmp_path / "moved")]
        assert plans[0].identity() == plans[1].identity()
        (tmp_path / "moved" / "weights.pth").write_bytes(b"others")
        other = make(model=EMBEDDED, checkpoint=str(tmp_path / "moved" / "weights.pth"))
        assert other.identity() != plans[0].identity()

    def test_another_root_is_named(self, make: Make, tiny_root: Path) -> None:
        before = make().identity()
        moved = tiny_root.rename(tiny_root.with_name("moved"))
        now = make(root=str(moved)).identity()
        assert (before["root"], now["root"]) == (str(tiny_root), str(moved))

    def test_images_that_came_or_went_change_the_identity(self, make: Make, tiny_root: Path) -> None:
        before = make().identity()
        (tiny_root / "images/03.png").unlink()
        assert make().identity()["manifest"] != before["manifest"]

    def test_errors_are_requests_that_were_wrong(self, make: Make) -> None:
        for options in ({"k": 0}, {"root": "/none"}, {"model": "none"}, {"dataset": "none"}):
            with pytest.raises(OodrayError) as caught:
                make(**options)
            assert caught.value.exit_code == 2


def test_results_go_into_a_folder(make: Make, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file of yours")
    with pytest.raises(ResultsError, match="out is a file; name a folder"):
        make()


def test_a_plan_can_be_made_twice(make: Make) -> None:
    first, second = make(), make()
    assert replace(second, manifest=first.manifest) == first
    assert first.manifest.equals(second.manifest)


def test_white_masks_are_worth_a_warning_where_ood_is_sought(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "data" / name / "a.png")
    asked = {"dataset": "folder", "root": str(tmp_path / "data"), "model": "fakes:colours", "tau": 1.5}
    layers, folder = layers_module.read_layers(asked, None), ResultsFolder(tmp_path / "out")
    sought, known = (plan_module.make_request(layers, folder, seeks_ood=seeks).warnings for seeks in (True, False))
    assert [warning for warning in sought if warning not in known] == [
        text for text in sought if "0 and 255 alone" in text
    ]
    assert len(sought) == len(known) + 1
