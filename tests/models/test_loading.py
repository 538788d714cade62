from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import Colours
from model_oracles import fill_network, write_config
from numpy.typing import NDArray
from test_hugging_face import dinov2, saved, segformer

from oodray import Segmenter
from oodray.errors import ConfigError, ModelError
from oodray.models.internimage.segmenter import InternImageSegmenter
from oodray.models.loading import load, load_segmenter
from oodray.models.mmseg import MMSegSegmenter, build_network
from oodray.models.segmenter import Segmentation
from oodray.models.source import resolve_model
from oodray.models.weights.zoo import EMBEDDED, get_model

IMAGE: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def assert_same(one: Segmentation, other: Segmentation) -> None:
    assert torch.equal(one.logits, other.logits)
    assert torch.equal(one.features, other.features)


@pytest.fixture
def own(tmp_path: Path) -> tuple[Path, Path]:
    """A config with its weights."""
    backbone = {"channels": 8, "depths": [1] * 4, "groups": [1] * 4}
    head = {"in_channels": [8, 16, 32, 64], "channels": 8, "num_classes": 5}
    config = write_config(tmp_path, backbone=backbone, decode_head=head)
    network = build_network(config)
    fill_network(network)
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    return config, tmp_path / "mine.pth"


class TestLoadSegmenter:
    def test_a_config_is_mmsegmentations_even_where_it_names_internimage(self, own: tuple[Path, Path]) -> None:
        config, weights = own
        segmenter = load_segmenter(resolve_model(str(config), str(weights)))
        assert isinstance(segmenter, MMSegSegmenter)
        network = build_network(config)
        network.load_state_dict(torch.load(weights))
        assert_same(segmenter.segment([IMAGE])[0], MMSegSegmenter(network).segment([IMAGE])[0])

    def test_a_name_is_ours(self) -> None:
        assert isinstance(load_segmenter(resolve_model(EMBEDDED)), InternImageSegmenter)


@pytest.mark.usefixtures("_no_gpu")
class TestLoad:
    @pytest.fixture
    def _no_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def test_a_name(self) -> None:
        network = load(EMBEDDED)
        assert isinstance(network, Segmenter)
        assert (network.name, network.device, network.dtype) == (EMBEDDED, "cpu", "float32")
        assert network.tau == get_model(EMBEDDED).tau
        assert network.source == resolve_model(EMBEDDED)
        assert_same(network.segment([IMAGE])[0], load_segmenter(resolve_model(EMBEDDED)).segment([IMAGE])[0])
        assert repr(network).startswith("Network(source=ModelSource(name='internimage-n-demo'")

    def test_a_name_with_weights_of_ones_own(self, tmp_path: Path) -> None:
        weights = tmp_path / "mine.pth"
        weights.write_bytes(get_model(EMBEDDED).checkpoint.read_bytes())
        network = load(EMBEDDED, checkpoint=weights, feature_stage=1)
        assert network.tau is None
        assert network.segment([IMAGE])[0].features.shape == (64, 5, 7)

    def test_a_config(self, own: tuple[Path, Path]) -> None:
        config, weights = own
        network = load(config, checkpoint=weights, dtype="bfloat16")
        assert (network.name, network.tau, network.dtype) == (str(config), None, "bfloat16")
        expected = load_segmenter(resolve_model(str(config), str(weights)), dtype="bfloat16").segment([IMAGE])
        assert_same(network.segment([IMAGE])[0], expected[0])

    @pytest.mark.parametrize("prefix", ["", "hf:"])
    def test_a_folder_of_hugging_face(self, tmp_path: Path, prefix: str) -> None:
        folder = saved(segformer, tmp_path)
        network = load(f"{prefix}{folder}" if prefix else folder)
        assert (network.name, network.tau) == (f"{prefix}{folder}", None)
        assert_same(network.segment([IMAGE])[0], load_segmenter(resolve_model(str(folder))).segment([IMAGE])[0])

    def test_a_factory_decides_for_itself(self) -> None:
        network = load("fakes:Colours")
        assert (network.name, network.device, network.dtype) == ("fakes:Colours", "cpu", None)
        assert_same(network.segment([IMAGE])[0], Colours().segment([IMAGE])[0])
        with pytest.raises(ConfigError, match="--dtype does not go with the factory fakes:Colours"):
            load("fakes:Colours", dtype="float32")

    def test_features_of_another_network(self, tmp_path: Path) -> None:
        network = load("fakes:Colours", features=str(dinov2(tmp_path)), dtype="bfloat16")
        found = network.segment([IMAGE])[0]
        assert network.dtype == "bfloat16"
        assert torch.equal(found.logits, Colours().segment([IMAGE])[0].logits)
        assert found.features.shape != Colours().segment([IMAGE])[0].features.shape

    @pytest.mark.parametrize(
        ("device", "dtype", "message"),
        [
            ("cuda", None, "device cuda: torch finds no GPU here"),
            ("tpu", None, "device must be cpu or cuda, got 'tpu'"),
            (None, "float16", "float16 is for GPUs"),
            (None, "float8", "dtype must be one of auto, float32, bfloat16, float16, got 'float8'"),
        ],
    )
    def test_what_cannot_be_had_here(self, device: str | None, dtype: str | None, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            load(EMBEDDED, device=device, dtype=dtype)

    def test_errors_are_those_of_a_run(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="unknown model 'internimage-n-dem'; did you mean 'internimage-n-demo'"):
            load("internimage-n-dem")
        with pytest.raises(ModelError, match=r"the checkpoint .*nothing\.pth does not exist"):
            load(EMBEDDED, checkpoint=tmp_path / "nothing.pth")
        with pytest.raises(ModelError, match="needs weights: pass --checkpoint FILE"):
            load(tmp_path / "mine.py")


def test_on_a_machine_with_a_gpu_it_is_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert load("fakes:Colours").device == "cuda"
    assert load("fakes:Colours", device="cpu").device == "cpu"


def test_loading_is_imported_without_torch(environment: dict[str, str]) -> None:
    """So that `oodray.load` costs nothing before it is called."""
    import subprocess

    program = "import sys, oodray.models.loading; print(sorted(sys.modules.keys() & {'torch', 'mmseg', 'ray'}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "[]\n"
