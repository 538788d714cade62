from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from oodray.errors import ModelError
from oodray.models.input_rule import InputRule
from oodray.models.source import ModelSource, PassSettings, resolve_model, resolve_models


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OODRAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


class TestSource:
    def test_is_small_and_can_be_sent_to_a_worker(self) -> None:
        source = ModelSource(
            "a",
            "internimage-b",
            Path("a.py"),
            Path("a.pth"),
            19,
            InputRule(512, 2048),
            "/home",
            Path("a.py"),
            64 * "0",
            1.5,
            "remark",
        )
        assert pickle.loads(pickle.dumps(source)) == source
        assert len(pickle.dumps(source)) < 1000

    def test_is_made_without_importing_a_network(self, environment: dict[str, str]) -> None:
        """So that the command line answers at once."""
        program = (
            "import sys, oodray.models.source as s; s.resolve_model('internimage-n-demo'); "
            "print(sorted(sys.modules.keys() & {'torch', 'mmseg', 'mmengine', 'mmcv', 'ray'}))"
        )
        command = [sys.executable, "-c", program]
        result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        assert result.stdout == "[]\n"


class TestNames:
    FILE = "upernet_internimage_b_512x1024_160k_cityscapes.pth"

    def test_of_published_weights_that_are_here(self, cache: Path) -> None:
        path = touch(cache / "models" / self.FILE)
        source = resolve_model("internimage-b-cityscapes")
        assert (source.name, source.checkpoint, source.classes) == ("internimage-b-cityscapes", path, 19)
        assert (source.architecture, source.config, source.code) == ("internimage-b", None, None)
        assert source.tau == 1.5

    def test_of_published_weights_that_are_not_here(self, cache: Path) -> None:
        with pytest.raises(ModelError) as caught:
            resolve_model("internimage-b-cityscapes")
        message = str(caught.value)
        assert f"https://huggingface.co/OpenGVLab/InternImage/resolve/main/{self.FILE} (257 MB)" in message
        assert str(cache / "models" / self.FILE) in message
        assert "--model internimage-n-demo" in message

    def test_with_weights_of_ones_own_has_no_tau(self, tmp_path: Path) -> None:
        path = touch(tmp_path / "mine.pth")
        source = resolve_model("internimage-b-cityscapes", str(path))
        assert (source.checkpoint, source.classes, source.tau) == (path, 19, None)

    def test_with_weights_that_do_not_exist(self) -> None:
        with pytest.raises(ModelError, match=r"the checkpoint nothing\.pth does not exist"):
            resolve_model("internimage-b-cityscapes", "nothing.pth")

    def test_misspelt(self) -> None:
        with pytest.raises(ModelError, match="did you mean 'internimage-xl-ade20k'") as caught:
            resolve_model("internimage-xl-ade2k")
        assert "package.module:factory" in str(caught.value)

    def test_like_no_other(self) -> None:
        with pytest.raises(ModelError, match=r"known names: .*internimage-l-mapillary2cityscapes"):
            resolve_model("qqq")


class TestConfigs:
    def test_with_a_checkpoint(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        touch(tmp_path / "nets" / "mine.py")
        touch(tmp_path / "mine.pth")
        source = resolve_model("nets/mine.py", "mine.pth")
        assert source.config == (tmp_path / "nets" / "mine.py").resolve()
        assert source.checkpoint == (tmp_path / "mine.pth").resolve()
        assert (source.classes, source.tau) == (None, None)

    def test_in_the_home_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        touch(tmp_path / "mine.py")
        touch(tmp_path / "mine.pth")
        assert resolve_model("~/mine.py", "~/mine.pth").config == tmp_path / "mine.py"

    def test_without_a_checkpoint(self) -> None:
        with pytest.raises(ModelError, match=r"the config mine\.py needs weights: pass --checkpoint FILE"):
            resolve_model("mine.py")

    @pytest.mark.parametrize("missing", ["mine.py", "mine.pth"])
    def test_with_a_file_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
        monkeypatch.chdir(tmp_path)
        for name in {"mine.py", "mine.pth"} - {missing}:
            touch(tmp_path / name)
        with pytest.raises(ModelError, match=f"the (config|checkpoint) {missing} does not exist"):
            resolve_model("mine.py", "mine.pth")


class TestWhatWasMeant:
    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("internimage-n-dmo", "did you mean 'internimage-n-demo'\\?"),
            (
                "segformer_mit-b0_8xb2-160k_ade20k-512x512",
                r"ships a config segformer/segformer_mit-b0_\S+\.py, which needs",
            ),
            ("qqqq", "known names: internimage-n-demo, .* hf:ORG/NAME"),
            ("./nothing", r"the model \./nothing does not exist, or is no folder of Hugging Face"),
        ],
    )
    def test_an_unknown_name(self, name: str, message: str) -> None:
        with pytest.raises(ModelError, match=message):
            resolve_model(name)

    def test_a_model_of_hugging_face_needs_no_prefix(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(ModelError, match=r"cannot get no/body from Hugging Face|pip install 'oodray"):
            resolve_model("no/body")


class TestSeveral:
    def test_each_has_its_own_weights(self, tmp_path: Path) -> None:
        weights = touch(tmp_path / "mine.pth")
        found = resolve_models(["internimage-n-demo", "internimage-b-cityscapes"], ["none", str(weights)])
        assert [source.checkpoint for source in found.networks][1] == weights
        assert found.several_passes
        assert found.tau is None
        assert found.gives_queries() is False
        assert len(found.files()) == 2

    def test_there_are_as_many_weights_as_networks(self, tmp_path: Path) -> None:
        weights = str(touch(tmp_path / "mine.pth"))
        with pytest.raises(ModelError, match="1 --checkpoint for 2 --model: give one for each"):
            resolve_models(["internimage-n-demo", "internimage-n-demo"], [weights])

    def test_one_network_seen_once_keeps_its_tau(self) -> None:
        assert resolve_models(["internimage-n-demo"], [None], passes=PassSettings(seed=3)).tau is not None
        assert resolve_models(["internimage-n-demo"], [None], passes=PassSettings(flip=True)).tau is None
