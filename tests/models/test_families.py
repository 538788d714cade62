"""Networks of mmsegmentation that its package ships configs for, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from test_mmseg import at_image_size, images_of, logits_of_mmseg

from oodray.errors import ModelError
from oodray.models.loading import load_segmenter
from oodray.models.mmseg import MMSegSegmenter, build_network
from oodray.models.source import ModelSource, resolve_model

SHIPPED = {
    "deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024.py": 8,
    "pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py": 8,
    "swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py": 16,
    "segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py": 16,
    "bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024.py": 16,
    "cgnet/cgnet_fcn_4xb4-60k_cityscapes-680x680.py": 8,
    "erfnet/erfnet_fcn_4xb4-160k_cityscapes-512x1024.py": 2,
    "segmenter/segmenter_vit-t_mask_8xb1-160k_ade20k-512x512.py": 16,
    "stdc/stdc1_4xb12-80k_cityscapes-512x1024.py": 16,
    "fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024.py": 8,
}
"""Configs, and the stride of the features that are clustered: the map nearest to 16."""


def shipped(name: str) -> Path:
    """The config of that name, as `--model` finds it."""
    weights = Path(__file__)
    config = resolve_model(name, str(weights)).config
    assert config is not None
    return config


@pytest.mark.filterwarnings("ignore:When align_corners=True")
@pytest.mark.parametrize(("name", "stride"), SHIPPED.items())
def test_logits_are_those_of_mmsegmentation(name: str, stride: int) -> None:
    torch.manual_seed(0)
    network: Any = build_network(shipped(name)).eval()
    # Some slide over the image in windows of theirs, which is tested elsewhere, at a size that takes long.
    network.test_cfg = ConfigDict(mode="whole")
    images = images_of(1, 128, 192)
    segmentations = MMSegSegmenter(network).segment(images)
    expected = logits_of_mmseg(network, images)
    torch.testing.assert_close(at_image_size(segmentations, images[0]), expected, rtol=1e-3, atol=1e-3)
    assert expected.std() > 0
    assert segmentations[0].features.shape[1:] == (128 // stride, 192 // stride)


@pytest.fixture(scope="module")
def erfnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of ERFNet."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("erfnet") / "weights.pth"
    torch.save(build_network(shipped(ERFNET)).state_dict(), path)
    return path


ERFNET = next(name for name in SHIPPED if name.startswith("erfnet"))


def test_a_config_of_the_package_and_a_checkpoint_are_enough(erfnet: Path) -> None:
    segmenter = load_segmenter(resolve_model(ERFNET, str(erfnet)))
    (segmentation,) = segmenter.segment(images_of(1, 64, 96))
    assert segmentation.logits.shape[0] == 19
    assert segmentation.features.shape == (16, 32, 48)


def test_a_feature_stage_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    name = next(name for name in SHIPPED if name.startswith("segformer"))
    weights = tmp_path / "weights.pth"
    torch.save(build_network(shipped(name)).state_dict(), weights)
    chosen = load_segmenter(resolve_model(name, str(weights), feature_stage=1)).segment(images_of(1, 64, 96))
    assert chosen[0].features.shape == (64, 8, 12)
    with pytest.raises(ModelError, match=r"no feature stage 4; .* 0: \(32, 32, 32\), 1: \(64, 16, 16\)"):
        load_segmenter(resolve_model(name, str(weights), feature_stage=4))


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py", "mmdet"),
        ("convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py", "mmpretrain"),
    ],
)
def test_a_package_that_is_not_here_is_named(name: str, package: str) -> None:
    with pytest.raises(ModelError, match=f"from the package {package}, which is not here: pip install {package}"):
        build_network(shipped(name))


def test_a_network_that_cannot_run_says_so_at_once(erfnet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = resolve_model(ERFNET, str(erfnet))

    def fail(*_: object) -> None:
        raise RuntimeError("size mismatch")

    monkeypatch.setattr(MMSegSegmenter, "_forward", fail)
    with pytest.raises(ModelError, match="cannot segment an image of 1024x512 pixels: RuntimeError: size mismatch"):
        load_segmenter(source)


def test_what_does_not_go_together_is_refused(erfnet: Path) -> None:
    with pytest.raises(ModelError, match="pass one"):
        resolve_model(ERFNET, str(erfnet), feature_stage=1, features="hf:a/b")
    with pytest.raises(ModelError, match="the factory chooses its features"):
        resolve_model("os.path:join", feature_stage=1)
    assert isinstance(resolve_model(ERFNET, str(erfnet), feature_stage=0), ModelSource)
