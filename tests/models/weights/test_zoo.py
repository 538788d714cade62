from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from oodray.config import config_root
from oodray.errors import ModelError
from oodray.models.input_rule import InputRule
from oodray.models.internimage.architecture import ARCHITECTURES
from oodray.models.internimage.segmenter import empty_network
from oodray.models.internimage.upernet import InternImageUPerNet
from oodray.models.loading import load_segmenter
from oodray.models.source import resolve_model
from oodray.models.weights import zoo
from oodray.models.weights.state_dicts import StateDict
from oodray.models.weights.wrong_files import file_sha256
from oodray.models.weights.zoo import EMBEDDED, cache_folder, find_checkpoint, get_model, model_names

# As the authors list them: name -> file, mIoU, size in MB, first digits of the sha256.
LISTED = {
    "internimage-t-cityscapes": (
        "upernet_internimage_t_512x1024_160k_cityscapes.pth",
        82.58,
        118,
        "d609235b",
    ),
    "internimage-s-cityscapes": (
        "upernet_internimage_s_512x1024_160k_cityscapes.pth",
        82.74,
        160,
        "24155b8d",
    ),
    "internimage-b-cityscapes": (
        "upernet_internimage_b_512x1024_160k_cityscapes.pth",
        83.18,
        257,
        "55bc153c",
    ),
    "internimage-l-cityscapes": (
        "upernet_internimage_l_512x1024_160k_cityscapes.pth",
        83.68,
        512,
        "59808301",
    ),
    "internimage-xl-cityscapes": (
        "upernet_internimage_xl_512x1024_160k_cityscapes.pth",
        83.62,
        736,
        "ff087c60",
    ),
    "internimage-l-mapillary2cityscapes": (
        "upernet_internimage_l_512x1024_160k_mapillary2cityscapes.pth",
        85.94,
        512,
        "6df1621a",
    ),
    "internimage-xl-mapillary2cityscapes": (
        "upernet_internimage_xl_512x1024_160k_mapillary2cityscapes.pth",
        86.20,
        736,
        "9fd1e8e2",
    ),
    "internimage-t-ade20k": ("upernet_internimage_t_512_160k_ade20k.pth", 47.9, 118, "4b9b7b35"),
    "internimage-s-ade20k": ("upernet_internimage_s_512_160k_ade20k.pth", 50.1, 160, "a03cd5f0"),
    "internimage-b-ade20k": ("upernet_internimage_b_512_160k_ade20k.pth", 50.8, 257, "faa26797"),
    "internimage-l-ade20k": ("upernet_internimage_l_640_160k_ade20k.pth", 53.9, 512, "7e76cd62"),
    "internimage-xl-ade20k": ("upernet_internimage_xl_640_160k_ade20k.pth", 55.0, 736, "ad0b1900"),
}
OURS = (EMBEDDED, "internimage-n-camvid", "internimage-n-camvid-held-out")
PUBLISHED = ("internimage-t", "internimage-s", "internimage-b", "internimage-l", "internimage-xl")


@cache
def parameters_and_outputs(architecture: str) -> tuple[int, int]:
    """Of a network: how many numbers it learns, and how many classes it can tell apart."""
    network = empty_network(architecture)
    outputs = network.get_parameter("decode_head.conv_seg.weight").shape[0]
    return sum(value.numel() for value in network.parameters()), outputs


class TestPublished:
    @pytest.fixture(params=LISTED)
    def name(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def test_is_as_listed(self, name: str) -> None:
        model = get_model(name)
        assert model.name == name
        assert re.fullmatch("[0-9a-f]{64}", model.sha256)
        assert (model.file, model.miou, model.megabytes, model.sha256[:8]) == LISTED[name]

    def test_has_the_architecture_of_its_name_and_the_classes_of_its_dataset(self, name: str) -> None:
        model = get_model(name)
        assert model.architecture in PUBLISHED
        assert name.startswith(f"{model.architecture}-")
        assert f"_{model.architecture.removeprefix('internimage-')}_" in model.file
        assert model.classes == (150 if "ade20k" in name else 19)

    def test_has_a_config(self, name: str) -> None:
        assert (config_root() / "models" / f"{get_model(name).architecture}.py").is_file()

    def test_has_as_many_parameters_as_its_network(self, name: str) -> None:
        model = get_model(name)
        assert parameters_and_outputs(model.architecture)[0] == model.parameters

    def test_sees_images_as_it_was_tested(self, name: str) -> None:
        rule = get_model(name).input_rule
        short = {"t": 512, "s": 512, "b": 512, "l": 640, "xl": 640}[name.split("-")[1]]
        assert rule == (InputRule(short, 4 * short, 32) if name.endswith("ade20k") else None)
        assert resolve_model(name, __file__).input_rule == rule

    def test_nothing_else_is(self) -> None:
        assert model_names() == (*OURS, *LISTED)

    def test_no_file_is_listed_twice(self) -> None:
        models = [get_model(name) for name in LISTED]
        assert len({model.sha256 for model in models}) == len({model.file for model in models}) == len(LISTED)

    def test_tau_is_known_where_the_paper_states_it(self) -> None:
        stated = {name: get_model(name).tau for name in LISTED if get_model(name).tau is not None}
        assert stated == {
            "internimage-b-cityscapes": 1.5,
            "internimage-l-cityscapes": 1.5,
            "internimage-b-ade20k": 1.1,
            "internimage-l-ade20k": 1.1,
        }


@pytest.mark.parametrize("architecture", PUBLISHED)
def test_every_architecture_builds_with_an_output_for_every_class(architecture: str) -> None:
    models = [model for model in map(get_model, model_names()) if model.architecture == architecture]
    assert parameters_and_outputs(architecture)[1] >= max(model.classes for model in models)


@pytest.fixture(scope="module")
def state() -> StateDict:
    """Float16, an auxiliary head, counters that overflowed."""
    state = InternImageUPerNet(ARCHITECTURES["internimage-t"]).half().state_dict()
    counters = [key for key in state if key.endswith("num_batches_tracked")]
    auxiliary = {"auxiliary_head.conv_seg.weight": torch.zeros(150, 256, 1, 1, dtype=torch.float16)}
    return state | auxiliary | dict.fromkeys(counters, torch.tensor(float("inf")).half())


class TestAsPublished:
    """Files made as the published ones are, as far as their sizes tell, and some that others would make."""

    @pytest.mark.parametrize("outputs", [150, 19])
    def test_a_file_makes_a_segmenter_of_nineteen_classes(self, state: StateDict, outputs: int, tmp_path: Path) -> None:
        path = tmp_path / "weights.pth"
        head = {key: value[:outputs].clone() for key, value in state.items() if key.startswith("decode_head.conv_seg")}
        torch.save({"state_dict": state | head, "meta": {"CLASSES": ["road"]}}, path)
        segmenter = load_segmenter(resolve_model("internimage-t-cityscapes", str(path)))
        path.unlink()
        image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
        (segmentation,) = segmenter.segment([image])
        assert segmentation.logits.shape == (19, 16, 24)
        assert segmentation.features.shape == (256, 4, 6)
        assert segmentation.logits.isfinite().all()

    def test_the_ade20k_network_sees_a_larger_image_and_covers_the_given_one(
        self, state: StateDict, tmp_path: Path
    ) -> None:
        path = tmp_path / "weights.pth"
        torch.save(state, path)
        source = resolve_model("internimage-t-ade20k", str(path))
        assert source.input_rule == InputRule(512, 2048)
        segmenter = load_segmenter(replace(source, input_rule=InputRule(64, 256)))
        path.unlink()
        image = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
        (segmentation,) = segmenter.segment([image])
        # 64 x 102 just fits, 64 x 128 is the next multiple of 32; the strides are 4 and 16.
        assert segmentation.logits.shape == (150, 16, 32)
        assert segmentation.features.shape == (256, 4, 8)


class TestLookup:
    def test_of_a_name_that_is_nearly_right(self) -> None:
        with pytest.raises(ModelError, match="unknown model 'internimage-n'; did you mean 'internimage-n-demo'"):
            get_model("internimage-n")

    def test_of_a_name_that_is_not(self) -> None:
        with pytest.raises(ModelError, match=f"known names: {EMBEDDED}, internimage-n-camvid, "):
            get_model("resnet")

    def test_of_weights_in_the_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OODRAY_CACHE", str(tmp_path))
        monkeypatch.delenv("HF_ENDPOINT", raising=False)
        model = get_model("internimage-t-ade20k")
        assert model.checkpoint == tmp_path / "models" / model.file
        with pytest.raises(ModelError) as caught:
            find_checkpoint(model)
        url = "https://huggingface.co/OpenGVLab/InternImage/resolve/main/upernet_internimage_t_512_160k_ade20k.pth"
        assert str(caught.value) == (
            f"the weights of internimage-t-ade20k are not on this machine: {model.checkpoint} does not exist.\n"
            "To download them (118 MB): oodray models fetch internimage-t-ade20k\n"
            f"On a machine without network, bring {url} (118 MB) there, then: "
            "oodray models fetch internimage-t-ade20k --from FILE\n"
            f"To try oodray without a download: --model {EMBEDDED}"
        )
        model.checkpoint.parent.mkdir()
        model.checkpoint.touch()
        assert find_checkpoint(model) == model.checkpoint

    @pytest.mark.parametrize("endpoint", ["http://mirror:8000", "http://mirror:8000/"])
    def test_of_the_address_at_a_mirror(self, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        model = get_model("internimage-t-ade20k")
        assert model.url == f"http://mirror:8000/OpenGVLab/InternImage/resolve/main/{model.file}"

    def test_of_the_cache_in_the_home_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("OODRAY_CACHE", raising=False)
        assert cache_folder() == tmp_path / ".cache" / "oodray"
        monkeypatch.setenv("OODRAY_CACHE", "~/weights")
        assert cache_folder() == tmp_path / "weights"


@pytest.mark.parametrize("name", OURS)
class TestOurs:
    def test_is_the_file_that_its_card_speaks_of(self, name: str) -> None:
        model = get_model(name)
        card = json.loads(model.checkpoint.with_suffix(".json").read_text(encoding="utf-8"))
        assert model.miou == card["miou"] == pytest.approx(np.mean(list(card["iou"].values())), abs=0.01)
        assert model.classes == len(card["iou"])
        assert model.sha256 == file_sha256(model.checkpoint)
        assert model.parameters == parameters_and_outputs(model.architecture)[0]
        assert model.tau is not None
        assert math.isfinite(model.tau)


class TestKept:
    """Our own networks are not looked for in the cache."""

    def test_a_package_without_its_weights_says_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(zoo, "_IN_PACKAGE", tmp_path)
        model = replace(get_model(EMBEDDED), folder=tmp_path)
        with pytest.raises(ModelError, match=rf"{EMBEDDED}\.pth, which comes with oodray, does not exist"):
            find_checkpoint(model)

    def test_a_package_says_where_the_research_weights_are(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(zoo, "_IN_REPOSITORY", tmp_path)
        model = replace(get_model("internimage-n-camvid"), folder=tmp_path)
        with pytest.raises(
            ModelError, match=r"clone it, and pass --checkpoint benchmarks/weights/internimage-n-camvid\.pth"
        ):
            find_checkpoint(model)

    def test_file_has_the_size_stated(self) -> None:
        model = get_model(EMBEDDED)
        assert find_checkpoint(model).stat().st_size == pytest.approx(model.megabytes * 1e6, rel=0.1)

    def test_segments_an_image_into_its_classes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OODRAY_CACHE", "/nowhere")
        source = resolve_model(EMBEDDED)
        assert source.classes == get_model(EMBEDDED).classes == 10
        image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
        (segmentation,) = load_segmenter(source).segment([image])
        assert segmentation.logits.shape == (10, 16, 24)
        assert segmentation.features.shape == (128, 4, 6)
        assert segmentation.logits.isfinite().all()
