"""Networks of other libraries: as plain modules here, and as themselves where the library is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from oodray.errors import ModelError
from oodray.models.modules import ModuleSegmenter, OnnxSegmenter, normalised, of_smp, of_torchvision

IMAGES: list[NDArray[np.uint8]] = list(np.random.default_rng(0).integers(0, 256, (2, 40, 70, 3), dtype=np.uint8))


class Stages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3 if not index else 4, 4, 3, stride=4, padding=1) for index in range(2))

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        first = self.convs[0](pixels)
        return {"first": first, "out": self.convs[1](first)}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = Stages(), nn.Conv2d(4, 5, 1)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return {"out": self.head(self.backbone(pixels)["first"])}


def test_logits_are_the_networks_and_features_those_of_stride_16() -> None:
    torch.manual_seed(0)
    network = Net()
    found = ModuleSegmenter(network, features="backbone", divisor=32).segment(IMAGES)
    pixels = normalised(IMAGES, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 32)
    assert pixels.shape == (2, 3, 64, 96)
    with torch.no_grad():
        expected, stages = network(pixels)["out"], network.backbone(pixels)
    torch.testing.assert_close(torch.stack([one.logits for one in found]), expected[..., :10, :18])
    torch.testing.assert_close(found[1].features, stages["out"][1, :, :3, :5])


def test_a_part_that_is_not_there() -> None:
    with pytest.raises(ModelError, match=r"no part 'encoder'; it has backbone, backbone\.convs"):
        ModuleSegmenter(Net(), features="encoder")


def test_torchvision(tmp_path: Path) -> None:
    segmentation: Any = pytest.importorskip("torchvision.models.segmentation", reason="torchvision is not a dependency")
    torch.manual_seed(0)
    network = segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5).eval()
    torch.save(network.state_dict(), tmp_path / "net.pth")
    [found, _] = of_torchvision("lraspp_mobilenet_v3_large", tmp_path / "net.pth", classes=5).segment(IMAGES)
    with torch.no_grad():
        expected = network(normalised(IMAGES, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))["out"]
    torch.testing.assert_close(found.logits, expected[0])
    with pytest.raises(ModelError, match="has no network 'unet'"):
        of_torchvision("unet", tmp_path / "net.pth", classes=5)


def test_an_auxiliary_head_of_torchvision_is_not_used(tmp_path: Path) -> None:
    """Every published checkpoint of FCN and DeepLabV3 has one."""
    models: Any = pytest.importorskip("torchvision.models", reason="torchvision is not a dependency")
    named = {"weights": None, "weights_backbone": None, "num_classes": 5, "aux_loss": True}
    network = models.get_model("deeplabv3_mobilenet_v3_large", **named).eval()
    torch.save(network.state_dict(), tmp_path / "net.pth")
    [found, _] = of_torchvision("deeplabv3_mobilenet_v3_large", tmp_path / "net.pth", classes=5).segment(IMAGES)
    with torch.no_grad():
        expected = network(normalised(IMAGES, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))["out"]
    torch.testing.assert_close(found.logits, expected[0])


def test_segmentation_models_pytorch(tmp_path: Path) -> None:
    smp: Any = pytest.importorskip("segmentation_models_pytorch", reason="it is not a dependency")
    torch.manual_seed(0)
    network = smp.create_model("Unet", "resnet18", encoder_weights=None, classes=5).eval()
    torch.save(network.state_dict(), tmp_path / "net.pth")
    [found, _] = of_smp("Unet", "resnet18", tmp_path / "net.pth", classes=5).segment(IMAGES)
    with torch.no_grad():
        expected = network(normalised(IMAGES, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 32))
    torch.testing.assert_close(found.logits, expected[0, :, :40, :70])
    assert found.features.shape == (256, 3, 5)
    with pytest.raises(ModelError, match="cannot make Unat"):
        of_smp("Unat", "resnet18", tmp_path / "net.pth", classes=5)


def test_onnx(tmp_path: Path) -> None:
    onnx: Any = pytest.importorskip("onnx", reason="onnx is not a dependency")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not a dependency")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    weight = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["pixels", "weight"], ["logits"], strides=[4, 4]),
            helper.make_node("AveragePool", ["pixels"], ["features"], kernel_shape=[16, 16], strides=[16, 16]),
        ],
        "net",
        [helper.make_tensor_value_info("pixels", floats, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info(name, floats, None) for name in ("logits", "features")],
        [onnx.numpy_helper.from_array(weight.numpy(), "weight")],
    )
    path = tmp_path / "net.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    [found, _] = OnnxSegmenter(path, logits="logits", features="features", divisor=16).segment(IMAGES)
    pixels = normalised(IMAGES, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 16)
    expected = nn.functional.conv2d(pixels, weight, stride=4)
    torch.testing.assert_close(found.logits, expected[0, :, :10, :18], rtol=1e-4, atol=1e-4)
    assert found.features.shape == (3, 3, 5)
    with pytest.raises(ModelError, match="has no output 'masks'; it has logits, features"):
        OnnxSegmenter(path, logits="masks", features="features")
