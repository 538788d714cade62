from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from oodray import Segmentation, Segmenter
from oodray.errors import ModelError
from oodray.models.loading import load_segmenter
from oodray.models.source import ModelSource, resolve_model

NETWORKS = """
import torch
from oodray import Segmentation

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
