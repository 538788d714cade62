from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from model_oracles import (
    BASE_CONFIG,
    Config,
    fill_network,
    golden_parameters,
    read_golden,
    write_config,
)
from numpy.typing import NDArray
from torch import Tensor, nn

# Before mmseg, which cannot be imported without a compiled mmcv until this has been.
import oodray.models.mmseg  # noqa: F401

# isort: split
from mmseg.models import EncoderDecoder, FCNHead, UPerHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from oodray.errors import ModelError
from oodray.models.internimage.backbone import InternImage
from oodray.models.mmseg import MMSegSegmenter, build_network, load_mmseg_segmenter
from oodray.models.segmenter import Segmentation, Segmenter
from oodray.models.weights.parameters import load_weights

Image = NDArray[np.uint8]

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

SMALL: Config = {
    "backbone": {"channels": 8, "depths": [1, 1, 1, 1], "groups": [1, 2, 2, 4], "post_norm": False},
    "decode_head": {"in_channels": [8, 16, 32, 64], "channels": 8, "num_classes": 5},
}
SLIDE: Config = {"mode": "slide", "crop_size": (64, 48), "stride": (40, 32)}
RESNET: Config = {
    "backbone": {
        "_delete_": True,
        "type": "ResNetV1c",
        "depth": 18,
        "base_channels": 8,
        "strides": (1, 2, 1, 1),
        "dilations": (1, 1, 2, 4),
        "norm_cfg": {"type": "SyncBN"},
    },
}
CONV_HEAD: Config = {"_delete_": True, "type": "FCNHead", "channels": 8, "num_classes": 5}
LAST_STAGE: Config = CONV_HEAD | {"in_channels": 64, "in_index": 3}
ENCODING: Config = {
    "type": "EncHead",
    "in_channels": [16, 32, 64],
    "in_index": (1, 2, 3),
    "num_codes": 4,
    "loss_se_decode": {"type": "CrossEntropyLoss", "use_sigmoid": True},
}
CASCADE: Config = {"type": "CascadeEncoderDecoder", "num_stages": 2}
FIRST_HEAD: Config = {"type": "FCNHead", "in_channels": 32, "in_index": 2, "channels": 4, "num_classes": 5}
OCR_HEAD: Config = FIRST_HEAD | {"type": "OCRHead", "ocr_channels": 4}
POINT_HEAD: Config = {
    "type": "PointHead",
    "in_channels": [8],
    "in_index": [0],
    "channels": 4,
    "num_fcs": 1,
    "coarse_pred_each_layer": True,
    "num_classes": 5,
    "align_corners": False,
}
POINTS: Config = {"mode": "whole", "subdivision_steps": 2, "subdivision_num_points": 64, "scale_factor": 2}


def network_of(folder: Path, **model: Any) -> nn.Module:
    """The small network with `model` over its config and nothing at zero."""
    for part, settings in SMALL.items():
        if not isinstance(model.get(part), list) and "_delete_" not in model.get(part, {}):
            model[part] = settings | model.get(part, {})
    network = build_network(write_config(folder, **model))
    fill_network(network)
    return network.eval()


def images_of(count: int, height: int, width: int, seed: int = 0) -> list[Image]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def logits_of_mmseg(network: Any, images: list[Image]) -> Tensor:
    """Logits `(N, C, H, W)` at image size, all the way through mmsegmentation's own inference."""
    height, width, _ = images[0].shape
    samples = [SegDataSample(metainfo={"img_shape": (height, width), "ori_shape": (height, width)}) for _ in images]
    inputs = [torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1) for image in images]
    results = network.test_step({"inputs": inputs, "data_samples": samples})
    return torch.stack([result.seg_logits.data for result in results])


def at_image_size(segmentations: list[Segmentation], image: Image) -> Tensor:
    logits = torch.stack([segmentation.logits for segmentation in segmentations])
    return F.interpolate(logits, image.shape[:2], mode="bilinear", align_corners=False)


class TestAgainstTheReference:
    @pytest.fixture(params=["tiny", "tiny_post"])
    def golden(self, request: pytest.FixtureRequest) -> Config:
        golden: Config = read_golden(request.param)
        return golden

    @pytest.fixture
    def network(self, golden: Config, tmp_path: Path) -> Any:
        widths = [golden["config"]["channels"] * 2**stage for stage in range(4)]
        names = ("num_classes", "pool_scales", "align_corners", "channels")
        head = {"in_channels": widths, **{name: golden["head_config"][name] for name in names}}
        network = build_network(write_config(tmp_path, backbone=golden["config"], decode_head=head))
        load_weights(network, golden_parameters(golden), source=Path("golden"))
        return network.eval()

    def test_stages_and_logits_in_float64(self, golden: Config, network: Any) -> None:
        with torch.no_grad():
            stages = network.double().backbone(golden["input"].double())
            logits = network.decode_head(stages)
        torch.testing.assert_close(stages, golden["stages_fp64"], rtol=0, atol=1e-10)
        torch.testing.assert_close(logits, golden["logits_fp64"], rtol=0, atol=1e-10)

    def test_logits_of_an_odd_size_in_float32(self, golden: Config, network: Any) -> None:
        with torch.no_grad():
            logits = network.decode_head(network.backbone(golden["odd"]["input"]))
        torch.testing.assert_close(logits, golden["odd"]["logits"], rtol=0, atol=1e-3)


def test_importing_it_leaves_out_what_a_network_does_not_need(environment: dict[str, str]) -> None:
    program = (
        "import sys, oodray.models.mmseg\n"
        "unused = {'mmseg.datasets', 'mmseg.engine', 'mmseg.evaluation', 'transformers'}\n"
        "print(sorted(sys.modules.keys() & unused))\n"
        "import transformers\n"
        "print(transformers.AutoModel.__name__)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "[]\nAutoModel\n"


class TestRegistry:
    def test_the_backbone_is_ours_and_the_rest_mmsegs(self, tmp_path: Path) -> None:
        network = network_of(tmp_path)
        assert MODELS.get("InternImage") is InternImage
        assert type(network) is EncoderDecoder
        assert type(network.backbone) is InternImage
        assert type(network.decode_head) is UPerHead


class TestAgainstMMSegmentation:
    """Logits at image size equal those of mmsegmentation's own inference."""

    @pytest.mark.filterwarnings("ignore:When align_corners=True")
    @pytest.mark.parametrize(
        "model",
        [
            {},
            {"data_preprocessor": {"bgr_to_rgb": False}},
            {"data_preprocessor": {"test_cfg": {"size_divisor": 32}}},
            {"data_preprocessor": {"test_cfg": {"size": (96, 160)}}},
            {"decode_head": {"align_corners": True}},
            {"decode_head": {"align_corners": True}, "data_preprocessor": {"test_cfg": {"size_divisor": 32}}},
            {"test_cfg": SLIDE},
            {"test_cfg": SLIDE, "decode_head": {"align_corners": True}},
            {"test_cfg": SLIDE, "data_preprocessor": {"test_cfg": {"size_divisor": 64}}},
            {"test_cfg": SLIDE | {"crop_size": (512, 512), "stride": (341, 341)}},
            RESNET | {"decode_head": CONV_HEAD | {"in_channels": 64, "in_index": 3}},
            {
                "neck": {"type": "FPN", "in_channels": [8, 16, 32, 64], "out_channels": 8, "num_outs": 4},
                "decode_head": CONV_HEAD | {"in_channels": 8, "in_index": 0},
            },
            CASCADE | {"decode_head": [FIRST_HEAD, OCR_HEAD]},
            CASCADE | {"decode_head": [FIRST_HEAD, OCR_HEAD], "test_cfg": SLIDE},
            CASCADE | {"decode_head": [FIRST_HEAD, OCR_HEAD, OCR_HEAD], "num_stages": 3},
            CASCADE | {"decode_head": [FIRST_HEAD, POINT_HEAD], "test_cfg": POINTS},
            {"decode_head": LAST_STAGE | {"type": "DAHead", "pam_channels": 4}},
            {"decode_head": LAST_STAGE | ENCODING},
        ],
        ids=[
            "plain",
            "bgr",
            "padded",
            "padded-to-size",
            "align-corners",
            "align-corners-padded",
            "slide",
            "slide-align-corners",
            "slide-padded",
            "slide-one-window",
            "dilated-resnet",
            "neck",
            "cascade",
            "cascade-slide",
            "cascade-of-three",
            "points",
            "several-outputs",
            "outputs-beside",
        ],
    )
    def test_logits(self, tmp_path: Path, model: Config) -> None:
        network = network_of(tmp_path, **model)
        images = images_of(2, 75, 101)
        segmentations = MMSegSegmenter(network).segment(images)
        expected = logits_of_mmseg(network, images)
        torch.testing.assert_close(at_image_size(segmentations, images[0]), expected, rtol=0, atol=1e-5)
        # What is compared differs from image to image and from pixel to pixel.
        assert (expected[0] - expected[1]).abs().max() > 0.1

    def test_logits_before_any_resizing_are_those_of_slide_inference(self, tmp_path: Path) -> None:
        network: Any = network_of(tmp_path, test_cfg=SLIDE)
        images = images_of(1, 75, 101)
        (segmentation,) = MMSegSegmenter(network).segment(images)
        inputs = network.data_preprocessor(
            {"inputs": [torch.from_numpy(images[0][..., ::-1].copy()).permute(2, 0, 1)]}
        )["inputs"]
        with torch.no_grad():
            expected = network.slide_inference(inputs, [{}])
        torch.testing.assert_close(segmentation.logits, expected[0], rtol=0, atol=1e-5)


class TestInput:
    """What reaches the backbone."""

    @pytest.fixture
    def inputs_of(self, tmp_path: Path) -> Callable[..., Tensor]:
        def run(images: list[Image], **preprocessor: Any) -> Tensor:
            network = network_of(tmp_path, data_preprocessor=preprocessor)
            seen: list[Tensor] = []
            network.get_submodule("backbone").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
            MMSegSegmenter(network).segment(images)
            assert len(seen) == 1
            return seen[0]

        return run

    @pytest.fixture
    def red_and_blue(self) -> list[Image]:
        red, blue = np.zeros((2, 32, 40, 3), np.uint8)
        red[..., 0], blue[..., 2] = 255, 255
        return [red, blue]

    def normalised(self, *pixel: float) -> Tensor:
        return (torch.tensor(pixel) - torch.tensor(MEAN)) / torch.tensor(STD)

    def test_red_is_the_first_channel(self, inputs_of: Any, red_and_blue: list[Image]) -> None:
        inputs = inputs_of(red_and_blue)
        assert inputs.shape == (2, 3, 32, 40)
        torch.testing.assert_close(inputs[0, :, 3, 5], self.normalised(255, 0, 0))
        torch.testing.assert_close(inputs[1, :, 3, 5], self.normalised(0, 0, 255))

    def test_red_is_the_last_channel_of_a_network_trained_on_bgr(
        self, inputs_of: Any, red_and_blue: list[Image]
    ) -> None:
        inputs = inputs_of(red_and_blue, bgr_to_rgb=False)
        torch.testing.assert_close(inputs[0, :, 3, 5], self.normalised(0, 0, 255))

    def test_mean_and_std_are_those_of_the_config(self, inputs_of: Any, red_and_blue: list[Image]) -> None:
        inputs = inputs_of(red_and_blue, mean=[5, 0, 0], std=[50, 1, 1])
        torch.testing.assert_close(inputs[0, :, 3, 5], torch.tensor([5.0, 0, 0]))

    def test_padding_is_at_the_right_and_the_bottom(self, inputs_of: Any) -> None:
        inputs = inputs_of(images_of(1, 33, 40), test_cfg={"size_divisor": 32}, pad_val=9)
        assert inputs.shape == (1, 3, 64, 64)
        assert (inputs[..., 33:, :] == 9).all()
        assert (inputs[..., 40:] == 9).all()
        assert (inputs[..., :33, :40].abs() < 3).all()

    def test_the_image_is_not_changed(self, inputs_of: Any) -> None:
        (image,) = images_of(1, 32, 32)
        before = image.copy()
        inputs_of([image])
        assert np.array_equal(image, before)


class TestResult:
    def test_is_a_segmenter(self, tmp_path: Path) -> None:
        assert isinstance(MMSegSegmenter(network_of(tmp_path)), Segmenter)

    @pytest.mark.parametrize(
        ("height", "width", "logits", "features"),
        [
            (64, 96, (16, 24), (4, 6)),
            (75, 101, (19, 26), (5, 7)),
            (1, 1, (1, 1), (1, 1)),
            (33, 16, (9, 4), (3, 1)),
            (20, 300, (5, 75), (2, 19)),
        ],
    )
    def test_logits_at_the_stride_of_the_head_and_features_of_the_third_stage(
        self, tmp_path: Path, height: int, width: int, logits: tuple[int, int], features: tuple[int, int]
    ) -> None:
        (segmentation,) = MMSegSegmenter(network_of(tmp_path)).segment(images_of(1, height, width))
        assert segmentation.logits.shape == (5, *logits)
        assert segmentation.features.shape == (32, *features)
        assert segmentation.logits.dtype == segmentation.features.dtype == torch.float32

    def test_padding_is_cut_off(self, tmp_path: Path) -> None:
        network: Any = network_of(tmp_path, data_preprocessor={"test_cfg": {"size": (128, 160)}, "pad_val": 3})
        stages = []
        network.backbone.register_forward_hook(lambda _, inputs, outputs: stages.append(outputs[2]))
        (segmentation,) = MMSegSegmenter(network).segment(images_of(1, 75, 101))
        assert segmentation.logits.shape == (5, 75, 101)
        assert stages[0].shape == (1, 32, 8, 10)
        assert torch.equal(segmentation.features, stages[0][0, :, :5, :7])

    def test_features_of_windows_cover_the_image(self, tmp_path: Path) -> None:
        network = network_of(tmp_path, test_cfg=SLIDE)
        (segmentation,) = MMSegSegmenter(network).segment(images_of(1, 128, 96))
        assert segmentation.logits.shape == (5, 128, 96)
        assert segmentation.features.shape == (32, 8, 6)
        assert segmentation.features.isfinite().all()

    def test_constant_features_of_windows_stay_constant(self, tmp_path: Path) -> None:
        network: Any = network_of(tmp_path, test_cfg=SLIDE)
        backbone = network.backbone.forward
        network.backbone.forward = lambda image: [torch.full_like(stage, 2.5) for stage in backbone(image)]
        (segmentation,) = MMSegSegmenter(network).segment(images_of(1, 75, 101))
        torch.testing.assert_close(segmentation.features, torch.full_like(segmentation.features, 2.5))

    def test_of_equal_strides_the_third_stage_is_taken(self, tmp_path: Path) -> None:
        head = CONV_HEAD | {"in_channels": 64, "in_index": 3}
        (segmentation,) = MMSegSegmenter(network_of(tmp_path, **RESNET, decode_head=head)).segment(images_of(1, 64, 96))
        assert segmentation.features.shape == (32, 8, 12)  # the stages have 8, 16, 32 and 64 channels

    def test_stages_are_known_by_their_stride(self, tmp_path: Path) -> None:
        network = network_of(
            tmp_path,
            backbone={"out_indices": (1, 2, 3)},
            decode_head=CONV_HEAD | {"in_channels": 16, "in_index": 0},
        )
        (segmentation,) = MMSegSegmenter(network).segment(images_of(1, 64, 96))
        assert segmentation.features.shape == (32, 4, 6)

    def test_a_batch_is_as_its_images_one_by_one(self, tmp_path: Path) -> None:
        segmenter, images = MMSegSegmenter(network_of(tmp_path)), images_of(3, 47, 61)
        together = segmenter.segment(images)
        for image, segmentation in zip(images, together, strict=True):
            (alone,) = segmenter.segment([image])
            torch.testing.assert_close(segmentation.logits, alone.logits, rtol=0, atol=1e-5)
            torch.testing.assert_close(segmentation.features, alone.features, rtol=0, atol=1e-5)

    def test_the_network_is_switched_to_inference(self, tmp_path: Path) -> None:
        segmenter, images = MMSegSegmenter(network_of(tmp_path).train()), images_of(1, 40, 40)
        first, second = segmenter.segment(images)[0], segmenter.segment(images)[0]
        assert torch.equal(first.logits, second.logits)  # dropout and running statistics would show
        assert not first.logits.requires_grad

    def test_images_of_several_sizes_are_refused(self, tmp_path: Path) -> None:
        images = images_of(1, 32, 40) + images_of(1, 40, 32)
        with pytest.raises(ValueError, match=r"one size expected, got \[\(32, 40, 3\), \(40, 32, 3\)\]"):
            MMSegSegmenter(network_of(tmp_path)).segment(images)

    def test_no_images_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="one size expected"):
            MMSegSegmenter(network_of(tmp_path)).segment([])


class TestConfig:
    def test_weights_named_in_it_are_not_looked_for(self, tmp_path: Path) -> None:
        pretrained = {"type": "Pretrained", "checkpoint": "https://nowhere.invalid/weights.pth"}
        plain = network_of(tmp_path).state_dict()
        network = network_of(
            tmp_path, pretrained="https://nowhere.invalid/weights.pth", backbone={"init_cfg": pretrained}
        )
        assert network.state_dict().keys() == plain.keys()

    def test_the_auxiliary_head_is_left_out(self, tmp_path: Path) -> None:
        head = {"type": "FCNHead", "in_channels": 32, "in_index": 2, "channels": 4, "num_classes": 5}
        assert network_of(tmp_path, auxiliary_head=head).state_dict().keys() == network_of(tmp_path).state_dict().keys()

    @pytest.mark.parametrize(
        "heads", [[], [{"type": "Conv2d", "in_channels": 32, "out_channels": 5, "kernel_size": 1}]]
    )
    def test_heads_of_another_kind_are_refused(self, tmp_path: Path, heads: list[Config]) -> None:
        path = tmp_path / "cascade.py"
        model = {
            **{"type": "CascadeEncoderDecoder", "num_stages": len(heads)},
            **{"data_preprocessor": {"type": "SegDataPreProcessor"}, "decode_head": heads},
            "backbone": {"type": "InternImage", **SMALL["backbone"]},
        }
        path.write_text(f"model = {model}", encoding="utf-8")
        with pytest.raises(ModelError, match=r"CascadeEncoderDecoder whose logits oodray cannot read|cannot build"):
            build_network(path)

    def test_a_network_without_backbone_and_head_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "san.py"
        path.write_text("model = dict(type='MultimodalEncoderDecoder', image_encoder=dict())", encoding="utf-8")
        with pytest.raises(ModelError, match="a MultimodalEncoderDecoder whose logits oodray cannot read; it needs"):
            build_network(path)

    @pytest.mark.parametrize(
        ("test_cfg", "message"),
        [
            ({"mode": "slide"}, "crop_size and stride"),
            ({"mode": "slide", "crop_size": (64, 64)}, "crop_size and stride"),
            ({"mode": "tiles"}, "must have mode 'whole', or 'slide'"),
            ({"mode": "slide", "crop_size": (64, 64), "stride": (64, 65)}, "leaves gaps"),
            ({"mode": "slide", "crop_size": (64, 64), "stride": (0, 64)}, "leaves gaps"),
        ],
        ids=str,
    )
    def test_a_test_cfg_that_cannot_be_followed(self, tmp_path: Path, test_cfg: Config, message: str) -> None:
        with pytest.raises(ModelError, match=message):
            MMSegSegmenter(network_of(tmp_path, test_cfg=test_cfg))

    @pytest.mark.parametrize("test_cfg", [None, {}])
    def test_without_a_test_cfg_the_image_is_seen_whole(self, tmp_path: Path, test_cfg: Config | None) -> None:
        network: Any = network_of(tmp_path)
        images = images_of(1, 40, 40)
        expected = MMSegSegmenter(network).segment(images)
        network.test_cfg = test_cfg
        assert torch.equal(MMSegSegmenter(network).segment(images)[0].logits, expected[0].logits)


PREPROCESSOR = "data_preprocessor=dict(type='SegDataPreProcessor', mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0])"


def test_a_base_may_be_one_that_the_package_ships(tmp_path: Path) -> None:
    path = tmp_path / "config.py"
    path.write_text(
        "_base_ = ['mmseg::_base_/models/segformer_mit-b0.py']\n"
        f"model = dict({PREPROCESSOR}, backbone=dict(init_cfg=None), decode_head=dict(num_classes=4))\n"
    )
    network: Any = build_network(path)
    assert network.decode_head.num_classes == 4
    path.write_text("_base_ = ['mmdet::_base_/models/nothing.py']\n")
    with pytest.raises(ModelError, match=r"takes parts from the package mmdet|cannot read the mmsegmentation config"):
        build_network(path)


def test_the_preprocessor_may_stand_beside_the_model(tmp_path: Path) -> None:
    inside, beside = tmp_path / "inside.py", tmp_path / "beside.py"
    body = "model = dict(type='EncoderDecoder', backbone=dict(type='FastSCNN', downsample_dw_channels=(8, 8)), {}"
    head = "decode_head=dict(type='FCNHead', in_channels=128, channels=8, num_classes=5, in_index=-1))\n"
    inside.write_text(body.format(f"{PREPROCESSOR}, ") + head)
    beside.write_text(f"{PREPROCESSOR}\n" + body.format("") + head)
    found: list[Any] = [build_network(path) for path in (inside, beside)]
    assert torch.equal(found[0].data_preprocessor.mean, found[1].data_preprocessor.mean)
    assert found[1].data_preprocessor.std.flatten().tolist() == [4.0, 5.0, 6.0]


@pytest.fixture(scope="class")
def _unclosed_files() -> Iterator[None]:
    """Lets the files that mmengine leaves open when it cannot read a config go while their warning is ignored."""
    yield
    gc.collect()


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.usefixtures("_unclosed_files")
class TestFaultyConfig:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("model = dict(", "cannot read the mmsegmentation config"),
            ("raise RuntimeError('no luck')", "no luck"),
            ("_base_ = './nothing.py'", r"cannot read.*nothing\.py"),
            ("optimizer = dict()", "no attribute 'model'"),
            ("model = 3", "cannot read the mmsegmentation config"),
            ("model = dict(type='EncoderDecoder', data_preprocessor=dict())", "backbone"),
            (
                "model = dict(type='EncoderDecoder', backbone=dict(type='InternImage'))",
                "has no data_preprocessor",
            ),
            ("model = dict(type='Typo', backbone=dict(), data_preprocessor=None)", "cannot build.*Typo"),
            (
                f"_base_ = '{BASE_CONFIG}'\nmodel = dict(backbone=dict(type='InterImage'))",
                "cannot build.*InterImage",
            ),
            (f"_base_ = '{BASE_CONFIG}'\nmodel = dict(backbone=dict(with_cp=True))", "cannot build.*with_cp"),
            (
                f"_base_ = '{BASE_CONFIG}'\nmodel = dict(backbone=dict(norm_layer='BN'))",
                "cannot build.*norm_layer='BN'",
            ),
        ],
    )
    def test_is_named_with_what_is_wrong(self, tmp_path: Path, text: str, message: str) -> None:
        path = tmp_path / "faulty.py"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ModelError, match=f"(?s){message}") as caught:
            build_network(path)
        assert str(path) in str(caught.value)

    def test_may_be_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"cannot read the mmsegmentation config .*nothing\.py"):
            build_network(tmp_path / "nothing.py")


class TestLoading:
    def test_config_and_checkpoint_make_a_segmenter(self, tmp_path: Path) -> None:
        network = network_of(tmp_path)
        torch.save({"state_dict": network.state_dict()}, tmp_path / "weights.pth")
        segmenter = load_mmseg_segmenter(tmp_path / "config.py", tmp_path / "weights.pth")
        images = images_of(1, 40, 40)
        (expected,) = MMSegSegmenter(network).segment(images)
        assert torch.equal(segmenter.segment(images)[0].logits, expected.logits)

    def test_weights_of_another_network_are_refused(self, tmp_path: Path) -> None:
        network_of(tmp_path)
        torch.save({"state_dict": {"backbone.conv1.weight": torch.zeros(1)}}, tmp_path / "weights.pth")
        with pytest.raises(ModelError, match="does not fit the network"):
            load_mmseg_segmenter(tmp_path / "config.py", tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("head", "layout"),
    [({}, torch.channels_last), (CONV_HEAD | {"in_index": 2, "in_channels": 32}, torch.contiguous_format)],
    ids=["UPerHead", "another"],
)
def test_maps_reach_the_head_in_the_layout_that_it_takes(
    tmp_path: Path, head: Config, layout: torch.memory_format
) -> None:
    network: Any = network_of(tmp_path, decode_head=head)
    segmenter = MMSegSegmenter(network)
    seen: list[Tensor] = []
    network.decode_head.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[0]))
    segmenter.segment(images_of(1, 64, 96))
    assert [stage.is_contiguous(memory_format=layout) for stage in seen] == [True] * 4


def test_a_backbone_may_give_one_map(tmp_path: Path) -> None:
    """As DDRNet's does, whose only map has stride 8."""
    path = tmp_path / "config.py"
    norm = "norm_cfg=dict(type='SyncBN', requires_grad=True), align_corners=False"
    path.write_text(
        f"{PREPROCESSOR}\nmodel = dict(type='EncoderDecoder', "
        f"backbone=dict(type='DDRNet', channels=8, ppm_channels=8, {norm}), "
        f"decode_head=dict(type='DDRHead', in_channels=32, channels=8, num_classes=5, {norm}, "
        "loss_decode=[dict(type='CrossEntropyLoss'), dict(type='CrossEntropyLoss')]))\n"
    )
    network: Any = build_network(path)
    fill_network(network)
    [found] = MMSegSegmenter(network).segment(images_of(1, 64, 96))
    assert found.logits.shape == (5, 8, 12)
    assert found.features.shape == (32, 8, 12)


@MODELS.register_module()
class DoublingHead(FCNHead):  # type: ignore[misc]
    """A head that does something behind its last layer."""

    def forward(self, inputs: Any) -> Tensor:
        doubled: Tensor = 2 * super().forward(inputs)
        return doubled


@MODELS.register_module()
class TwoMapsHead(FCNHead):  # type: ignore[misc]
    """A head of which nobody knows which of its maps it predicts from."""

    def forward(self, inputs: Any) -> Any:
        return [super().forward(inputs)] * 2


def test_a_head_that_gives_several_maps_is_refused(tmp_path: Path) -> None:
    segmenter = MMSegSegmenter(network_of(tmp_path, decode_head=LAST_STAGE | {"type": "TwoMapsHead"}))
    with pytest.raises(ModelError, match="the head TwoMapsHead gives a list of 2, not one map of logits"):
        segmenter.segment(images_of(1, 64, 96))


class TestClassifier:
    """`head`, for scores that change what the classifier sees."""

    @pytest.mark.parametrize("head", [{}, CONV_HEAD | {"in_channels": 64, "in_index": 3}], ids=["upernet", "fcn"])
    def test_it_gives_the_logits_of_what_it_saw(self, tmp_path: Path, head: Config) -> None:
        segmenter = MMSegSegmenter(network_of(tmp_path, decode_head=head))
        assert getattr(segmenter, "head") is None  # noqa: B009 - as long as no image has shown what it is
        for found in segmenter.segment(images_of(2, 64, 96)):
            assert found.head_input is not None
            assert segmenter.head is not None
            torch.testing.assert_close(segmenter.head(found.head_input), found.logits, rtol=0, atol=1e-5)
            weight = segmenter.network.decode_head.conv_seg.weight.detach()
            moved = segmenter.head(found.head_input + 1) - found.logits
            torch.testing.assert_close(moved, weight.sum((1, 2, 3))[:, None, None].expand_as(moved), rtol=0, atol=1e-4)

    def test_what_it_saw_covers_an_image_that_was_padded(self, tmp_path: Path) -> None:
        padding = {"test_cfg": {"size_divisor": 64}}
        segmenter = MMSegSegmenter(network_of(tmp_path, data_preprocessor=padding))
        (found,) = segmenter.segment(images_of(1, 64, 96))
        assert found.head_input is not None
        assert found.head_input.shape == (8, 16, 24)

    @pytest.mark.parametrize(
        "model",
        [{"decode_head": CONV_HEAD | {"type": "DoublingHead", "in_channels": 64, "in_index": 3}}, {"test_cfg": SLIDE}],
        ids=["more-behind-it", "windows"],
    )
    def test_where_the_classifier_is_not_all_there_is_none(self, tmp_path: Path, model: Config) -> None:
        segmenter = MMSegSegmenter(network_of(tmp_path, **model))
        (found,) = segmenter.segment(images_of(1, 64, 96))
        assert found.head_input is None
        assert segmenter.head is None
