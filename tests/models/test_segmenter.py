from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_oracles import fill_network, write_config

from oodray.errors import ImageError, ModelError
from oodray.models.input_rule import InputRule
from oodray.models.mmseg import MMSegSegmenter, build_network
from oodray.models.segmenter import (
    ModelSource,
    Segmentation,
    Segmenter,
    check_segmentations,
    load_segmenter,
    resolve_model,
)

NETWORKS = """
import torch
from oodray.models.segmenter import Segmentation

class Plain:
    def segment(self, images):
        return [Segmentation(torch.zeros(2, 1, 1), torch.zeros(3, 1, 1)) for _ in images]

def fails():
    raise OSError("no licence for this network")

def asks(path):
    return Plain()

def nothing():
    return None

def the_class():
    return Plain

def unfinished():
    return object()

number = 3
"""


@pytest.fixture
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("my_networks", "broken_networks"):
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


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
            "a", Path("a.py"), Path("a.pth"), 19, InputRule(512, 2048), "/home", Path("a.py"), 64 * "0", 1.5, "remark"
        )
        assert pickle.loads(pickle.dumps(source)) == source
        assert len(pickle.dumps(source)) < 1000

    def test_is_made_without_importing_a_network(self, environment: dict[str, str]) -> None:
        """So that the command line answers at once."""
        program = (
            "import sys, oodray.models.segmenter as s; s.resolve_model('internimage-n-demo'); "
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
        assert source.config is not None
        assert source.config.name == "internimage-b.py"
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
        with pytest.raises(ModelError, match="did you mean internimage-xl-ade20k") as caught:
            resolve_model("internimage-xl-ade2k")
        assert "package.module:factory" in str(caught.value)

    def test_like_no_other(self) -> None:
        with pytest.raises(ModelError, match=r"known names: .*internimage-l-mapillary2cityscapes"):
            resolve_model("qqq")


class TestConfigs:
    def test_with_a_checkpoint(self, working_directory: Path) -> None:
        touch(working_directory / "nets" / "mine.py")
        touch(working_directory / "mine.pth")
        source = resolve_model("nets/mine.py", "mine.pth")
        assert source.config == (working_directory / "nets" / "mine.py").resolve()
        assert source.checkpoint == (working_directory / "mine.pth").resolve()
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
    def test_with_a_file_missing(self, working_directory: Path, missing: str) -> None:
        for name in {"mine.py", "mine.pth"} - {missing}:
            touch(working_directory / name)
        with pytest.raises(ModelError, match=f"the (config|checkpoint) {missing} does not exist"):
            resolve_model("mine.py", "mine.pth")

    def test_makes_a_segmenter(self, tmp_path: Path) -> None:
        backbone = {"channels": 8, "depths": [1] * 4, "groups": [1] * 4}
        head = {"in_channels": [8, 16, 32, 64], "channels": 8, "num_classes": 5}
        config = write_config(tmp_path, backbone=backbone, decode_head=head)
        network = build_network(config)
        fill_network(network)
        torch.save(network.state_dict(), tmp_path / "mine.pth")
        image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
        segmenter = load_segmenter(resolve_model(str(config), str(tmp_path / "mine.pth")))
        (segmentation,), (expected,) = segmenter.segment([image]), MMSegSegmenter(network).segment([image])
        assert torch.equal(segmentation.logits, expected.logits)
        assert torch.equal(segmentation.features, expected.features)


class TestFactories:
    @pytest.fixture(autouse=True)
    def _networks(self, working_directory: Path) -> None:
        (working_directory / "my_networks.py").write_text(NETWORKS, encoding="utf-8")

    def test_are_found_from_the_working_directory(self, working_directory: Path) -> None:
        source = resolve_model("my_networks:Plain")
        code = working_directory / "my_networks.py"
        assert source == ModelSource("my_networks:Plain", search_path=str(working_directory), code=code)
        segmenter = load_segmenter(source)
        assert isinstance(segmenter, Segmenter)
        (segmentation,) = segmenter.segment([np.zeros((1, 1, 3), np.uint8)])
        assert isinstance(segmentation, Segmentation)

    def test_are_found_from_the_drivers_directory_by_a_worker_elsewhere(
        self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = resolve_model("my_networks:Plain")
        monkeypatch.chdir(tmp_path_factory.mktemp("worker"))
        assert isinstance(load_segmenter(source), Segmenter)

    def test_do_not_take_a_checkpoint(self) -> None:
        with pytest.raises(ModelError, match="--checkpoint does not go with the factory my_networks:Plain"):
            resolve_model("my_networks:Plain", "weights.pth")

    @pytest.mark.parametrize(
        ("name", "cause"),
        [
            ("no_such_module:make", "No module named 'no_such_module'"),
            ("my_networks:no_such_factory", "no_such_factory"),
            ("my_networks:", "attribute ''"),
            (":make", "Empty module name"),
            ("my_networks.sub:make", "is not a package"),
        ],
    )
    def test_that_are_missing(self, working_directory: Path, name: str, cause: str) -> None:
        with pytest.raises(ModelError, match=f"cannot import the factory {name}: .*{cause}") as caught:
            resolve_model(name)
        assert f"looked for in {working_directory}" in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "cause"),
        [("raise KeyError('MODEL_HOME')", "KeyError: 'MODEL_HOME'"), ("def make(:", "SyntaxError")],
    )
    def test_in_a_module_that_fails(self, working_directory: Path, text: str, cause: str) -> None:
        (working_directory / "broken_networks.py").write_text(text, encoding="utf-8")
        with pytest.raises(ModelError, match=f"cannot import the factory broken_networks:make: {cause}"):
            load_segmenter(resolve_model("broken_networks:make"))

    @pytest.mark.parametrize(
        ("name", "cause"),
        [
            ("fails", "OSError: no licence for this network"),
            ("asks", "TypeError: .*path"),
            ("number", "TypeError: .*not callable"),
        ],
    )
    def test_that_fail(self, name: str, cause: str) -> None:
        with pytest.raises(ModelError, match=f"the factory my_networks:{name} failed: {cause}") as caught:
            load_segmenter(resolve_model(f"my_networks:{name}"))
        assert caught.value.__cause__ is not None

    @pytest.mark.parametrize("name", ["nothing", "the_class", "unfinished"])
    def test_that_do_not_return_a_segmenter(self, name: str) -> None:
        with pytest.raises(ModelError, match=rf"my_networks:{name} returned .*segment\(images\)"):
            load_segmenter(resolve_model(f"my_networks:{name}"))


class TestProtocol:
    def test_is_met_by_anything_that_can_segment(self) -> None:
        class Network:
            def segment(self, images: list[Any]) -> list[Segmentation]:
                return []

        assert isinstance(Network(), Segmenter)
        assert not isinstance(object(), Segmenter)


class TestCheckSegmentations:
    GOOD = Segmentation(torch.zeros(2, 3, 4), torch.zeros(5, 1, 1))

    def test_good_ones_are_handed_on(self) -> None:
        found = [self.GOOD, self.GOOD]
        assert check_segmentations(found, 2) is found

    @pytest.mark.parametrize(
        ("bad", "problem"),
        [
            (torch.zeros(1, 2, 3, 4), r"torch.float32 \(1, 2, 3, 4\)"),
            (torch.zeros(2, 0, 4), r"\(2, 0, 4\)"),
            (torch.zeros(2, 3, 4, dtype=torch.int64), "torch.int64"),
            (np.zeros((2, 3, 4)), "type ndarray"),
            (None, "type NoneType"),
        ],
    )
    def test_others_are_named(self, bad: Any, problem: str) -> None:
        for name in ("logits", "features"):
            with pytest.raises(ImageError, match=f"returned {name} of .*{problem}"):
                check_segmentations([replace(self.GOOD, **{name: bad})], 1)
