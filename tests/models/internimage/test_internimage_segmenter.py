"""The networks known by name against mmsegmentation's of the configs under `configs/models`, to the last bit."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_oracles import Config, fill_network, write_config
from numpy.typing import NDArray
from torch import nn

# Before mmseg, which cannot be imported without a compiled mmcv until this has been.
import oodray.models.mmseg  # noqa: F401

# isort: split
from mmengine.config import Config as ConfigFile
from mmseg.models import UPerHead

from oodray.config import config_root
from oodray.errors import ModelError
from oodray.models.input_rule import InputRule
from oodray.models.internimage.architecture import ARCHITECTURES, Architecture
from oodray.models.internimage.segmenter import (
    MEAN,
    STD,
    InternImageSegmenter,
    empty_network,
    load_internimage,
    normalised,
)
from oodray.models.internimage.upernet import POOL_SCALES, InternImageUPerNet
from oodray.models.loading import load_segmenter
from oodray.models.mmseg import MMSegSegmenter, build_network
from oodray.models.segmenter import Segmentation
from oodray.models.source import resolve_model
from oodray.models.weights.checkpoints import read_state_dict
from oodray.models.weights.parameters import load_weights
from oodray.models.weights.zoo import EMBEDDED, get_model

Image = NDArray[np.uint8]

TINY = Architecture(8, (1, 2, 2, 1), (1, 2, 2, 4), head_channels=8, outputs=7)
SMALL = {
    "as-l": TINY,
    "as-b": replace(TINY, channels=12, groups=(1, 3, 4, 6), offset_scale=1.0),
    "as-t": replace(TINY, offset_scale=1.0, post_norm=False, outputs=2),
}


def images_of(count: int, height: int, width: int, seed: int = 0) -> list[Image]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def theirs(folder: Path, architecture: Architecture) -> nn.Module:
    """mmsegmentation's network of the same sizes, with nothing at zero."""
    backbone = {
        "channels": architecture.channels,
        "depths": architecture.depths,
        "groups": architecture.groups,
        "offset_scale": architecture.offset_scale,
        "post_norm": architecture.post_norm,
    }
    head: Config = {
        "in_channels": list(architecture.stage_channels),
        "channels": architecture.head_channels,
        "num_classes": architecture.outputs,
    }
    network = build_network(write_config(folder, backbone=backbone, decode_head=head))
    fill_network(network)
    return network


def ours(network: nn.Module, architecture: Architecture) -> InternImageUPerNet:
    """Our network with the weights of mmsegmentation's."""
    found = InternImageUPerNet(architecture)
    found.load_state_dict(network.state_dict())
    return found


def assert_same(found: list[Segmentation], expected: list[Segmentation]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.logits, other.logits)
        assert torch.equal(one.features, other.features)


@pytest.mark.parametrize("name", ARCHITECTURES)
class TestDeclaration:
    """What Python declares is what the config says, key by key."""

    def test_is_that_of_the_config(self, name: str) -> None:
        model = ConfigFile.fromfile(str(config_root() / "models" / f"{name}.py")).model
        declared = ARCHITECTURES[name]
        backbone = {key: value for key, value in model.backbone.items() if key not in ("core_op", "drop_path_rate")}
        assert {key: tuple(value) if isinstance(value, list) else value for key, value in backbone.items()} == {
            "type": "InternImage",
            "channels": declared.channels,
            "depths": declared.depths,
            "groups": declared.groups,
            "mlp_ratio": 4.0,
            "norm_layer": "LN",
            "layer_scale": declared.layer_scale,
            "offset_scale": declared.offset_scale,
            "post_norm": declared.post_norm,
            "out_indices": (0, 1, 2, 3),
        }
        head = {key: value for key, value in model.decode_head.items() if key not in ("dropout_ratio", "loss_decode")}
        assert head == {
            "type": "UPerHead",
            "in_channels": list(declared.stage_channels),
            "in_index": [0, 1, 2, 3],
            "pool_scales": POOL_SCALES,
            "channels": declared.head_channels,
            "num_classes": declared.outputs,
            "norm_cfg": {"type": "BN", "requires_grad": True},
            "align_corners": False,
        }
        assert dict(model.data_preprocessor) == {
            "type": "SegDataPreProcessor",
            "mean": list(MEAN),
            "std": list(STD),
            "bgr_to_rgb": True,
            "pad_val": 0,
            "seg_pad_val": 255,
        }
        assert (model.type, model.test_cfg) == ("EncoderDecoder", {"mode": "whole"})

    def test_has_the_keys_and_shapes_in_the_order_of_mmsegmentation(self, name: str) -> None:
        with torch.device("meta"):
            network = build_network(config_root() / "models" / f"{name}.py")
        found = [(key, value.shape, value.dtype) for key, value in empty_network(name).state_dict().items()]
        assert found == [(key, value.shape, value.dtype) for key, value in network.state_dict().items()]


class TestBits:
    """Logits and features are those of mmsegmentation's network."""

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("size", [(1, 64, 96), (2, 75, 101), (3, 33, 16), (1, 1, 1), (1, 20, 130)], ids=str)
    @pytest.mark.parametrize("name", SMALL)
    def test_of_random_weights(self, tmp_path: Path, name: str, size: tuple[int, int, int], dtype: str) -> None:
        network, images = theirs(tmp_path, SMALL[name]), images_of(*size)
        found = InternImageSegmenter(ours(network, SMALL[name]), dtype=dtype).segment(images)
        assert_same(found, MMSegSegmenter(network, dtype=dtype).segment(images))
        assert found[0].logits.dtype == found[0].features.dtype == torch.float32
        # What is compared is more than zeros.
        assert found[0].features.std() > 0.01

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("size", [(1, 160, 320), (2, 97, 131)], ids=str)
    def test_of_the_embedded_network(self, size: tuple[int, int, int], dtype: str) -> None:
        model, images = get_model(EMBEDDED), images_of(*size)
        network = build_network(config_root() / "models" / f"{model.architecture}.py")
        load_weights(network, read_state_dict(model.checkpoint), source=model.checkpoint)
        found = load_segmenter(resolve_model(EMBEDDED), dtype=dtype).segment(images)
        assert_same(found, MMSegSegmenter(network, dtype=dtype).segment(images))

    @pytest.mark.parametrize("stage", [0, 1, 2, 3])
    def test_of_another_feature_stage(self, tmp_path: Path, stage: int) -> None:
        network, images = theirs(tmp_path, TINY), images_of(2, 75, 101)
        found = InternImageSegmenter(ours(network, TINY), feature_stage=stage).segment(images)
        assert_same(found, MMSegSegmenter(network, feature_stage=stage).segment(images))
        assert found[0].features.shape[0] == 8 * 2**stage

    @pytest.mark.parametrize("size", [(1, 64, 96), (2, 75, 101)], ids=str)
    def test_of_what_reaches_the_backbone(self, tmp_path: Path, size: tuple[int, int, int]) -> None:
        network: Any = theirs(tmp_path, TINY)
        images = images_of(*size)
        batch = {"inputs": [torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1) for image in images]}
        expected = network.data_preprocessor(batch, False)["inputs"]
        found = normalised(images, "cpu")
        assert torch.equal(found, expected)
        # Another layout would be convolved by another routine, which rounds in another way.
        assert found.stride() == expected.stride()

    def test_of_the_head_alone_with_stages_that_do_not_halve(self, tmp_path: Path) -> None:
        network: Any = theirs(tmp_path, TINY)
        head, expected = ours(network, TINY).eval().decode_head, network.eval().decode_head
        assert type(expected) is UPerHead
        shapes = [(8, 21, 30), (16, 11, 16), (32, 7, 7), (64, 2, 5)]
        stages = [torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)) for shape in shapes]
        with torch.inference_mode():
            assert torch.equal(head(stages), expected(stages))


class TestSegment:
    @pytest.fixture
    def network(self, tmp_path: Path) -> InternImageUPerNet:
        return ours(theirs(tmp_path, TINY), TINY)

    def test_classes_are_the_first_channels(self, network: InternImageUPerNet) -> None:
        images = images_of(1, 75, 101)
        (everything,) = InternImageSegmenter(network).segment(images)
        (three,) = InternImageSegmenter(network, classes=3).segment(images)
        assert torch.equal(three.logits, everything.logits[:3])
        assert torch.equal(three.features, everything.features)

    def test_with_an_input_rule_the_image_is_still_covered_edge_to_edge(self, network: InternImageUPerNet) -> None:
        rule, images = InputRule(64, 256), images_of(2, 75, 101)
        found = InternImageSegmenter(network, input_rule=rule).segment(images)
        assert found[0].logits.shape == (7, 16, 24)
        assert found[0].features.shape == (32, 4, 6)
        assert_same(found, InternImageSegmenter(network).segment([rule.apply(image) for image in images]))

    def test_the_network_is_switched_to_inference(self, network: InternImageUPerNet) -> None:
        segmenter, images = InternImageSegmenter(network.train()), images_of(1, 40, 40)
        assert_same(segmenter.segment(images), segmenter.segment(images))  # running statistics would show
        assert not segmenter.segment(images)[0].logits.requires_grad

    def test_the_maps_are_convolved_as_they_lie_in_memory(self, network: InternImageUPerNet) -> None:
        seen: list[torch.Tensor] = []
        network.backbone.register_forward_hook(lambda _, inputs, stages: seen.extend(stages))
        InternImageSegmenter(network).segment(images_of(1, 64, 96))
        assert [stage.is_contiguous(memory_format=torch.channels_last) for stage in seen] == [True] * 4
        weight = network.decode_head.bottleneck.conv.weight
        assert weight.is_contiguous(memory_format=torch.channels_last)

    @pytest.mark.parametrize("images", [[], images_of(1, 32, 40) + images_of(1, 40, 32)], ids=["none", "two-sizes"])
    def test_images_must_be_of_one_size(self, network: InternImageUPerNet, images: list[Image]) -> None:
        with pytest.raises(ValueError, match="one size expected"):
            InternImageSegmenter(network).segment(images)

    def test_images_are_not_changed_and_may_be_views_that_cannot_be_written(self, network: InternImageUPerNet) -> None:
        (image,) = images_of(1, 40, 40)
        expected = InternImageSegmenter(network).segment([image[::-1].copy()])
        view = image[::-1]
        view.flags.writeable = False
        before = view.copy()
        assert_same(InternImageSegmenter(network).segment([view]), expected)
        assert np.array_equal(view, before)


class TestLoading:
    @pytest.fixture
    def weights(self, tmp_path: Path) -> Path:
        state = read_state_dict(get_model(EMBEDDED).checkpoint)
        for key in ("decode_head.conv_seg.weight", "decode_head.conv_seg.bias"):
            state[key] = state[key][:7].clone()
        torch.save({"state_dict": state}, tmp_path / "weights.pth")
        return tmp_path / "weights.pth"

    def test_a_file_may_have_the_outputs_in_use_and_no_more(self, weights: Path) -> None:
        images = images_of(1, 64, 96)
        found = load_internimage(EMBEDDED, weights, classes=7).segment(images)
        expected = load_internimage(EMBEDDED, get_model(EMBEDDED).checkpoint, classes=7).segment(images)
        torch.testing.assert_close(found[0].logits, expected[0].logits)
        assert found[0].logits.shape[0] == 7

    @pytest.mark.parametrize("classes", [None, 6, 8])
    def test_other_numbers_of_outputs_are_refused(self, weights: Path, classes: int | None) -> None:
        with pytest.raises(ModelError, match=r"misshapen: decode_head\.conv_seg\.weight \(7, 96, 1, 1\) instead of"):
            load_internimage(EMBEDDED, weights, classes=classes)

    def test_what_a_file_may_lack_is_not_left_to_chance(self, tmp_path: Path) -> None:
        state = read_state_dict(get_model(EMBEDDED).checkpoint)
        optional = ("gamma1", "gamma2", "num_batches_tracked")
        torch.save({key: value for key, value in state.items() if not key.endswith(optional)}, tmp_path / "weights.pth")
        network = load_internimage(EMBEDDED, tmp_path / "weights.pth", classes=None).network
        for key, value in network.state_dict().items():
            if key.endswith(optional):
                assert torch.equal(value, torch.full_like(value, 0 if key.endswith("tracked") else 1)), key

    def test_a_feature_stage_that_is_not_there_is_refused_at_once(self) -> None:
        with pytest.raises(ModelError, match=r"no feature stage 4; .* 128x128 .* 0: \(32, 32, 32\), 1: \(64, 16, 16\)"):
            load_segmenter(resolve_model(EMBEDDED, feature_stage=4))

    def test_neither_mmsegmentation_nor_transformers_is_imported(self, environment: dict[str, str]) -> None:
        program = (
            "import sys, torch\n"
            "with torch.device('meta'):\n"
            "    torch.nn.Conv2d(1, 1, 1)\n"  # torch 2.6 imports sympy for it
            "torch_s_own = set(sys.modules)\n"
            "from oodray.models.loading import load_segmenter\n"
            "from oodray.models.source import resolve_model\n"
            f"load_segmenter(resolve_model('{EMBEDDED}'))\n"
            "others = {'mmseg', 'mmengine', 'mmcv', 'transformers', 'sympy', 'cv2', 'ray'}\n"
            "print(sorted((sys.modules.keys() - torch_s_own) & others))"
        )
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        assert done.stdout == "[]\n"
