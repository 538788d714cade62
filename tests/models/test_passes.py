"""Means over networks, views and dropout, against means of whole maps in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

import oodray
from oodray.errors import ConfigError, ImageError, ModelError
from oodray.models.dropout import dropout_seed
from oodray.models.loading import load
from oodray.models.passes import Passes, View, views_of
from oodray.models.segmenter import Segmentation

Image = NDArray[np.uint8]

PHOTO: Image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


class Counted(nn.Conv2d):
    calls = 0

    def forward(self, pixels: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(pixels)


class Blurred(nn.Module):
    """A backbone, which counts its calls; then a head with dropout."""

    def __init__(self, seed: int, classes: int = 4, rate: float = 0.5) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.backbone = Counted(3, 8, 5, stride=4, padding=2)
            self.head = nn.Sequential(nn.ReLU(inplace=True), nn.Dropout2d(rate), nn.Conv2d(8, classes, 1))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(pixels)
        features += 0.25  # what was kept of the backbone must not be written to
        return 3 * self.head(features), features


class Net:
    def __init__(self, seed: int = 0, **options: Any) -> None:
        self.network = Blurred(seed, **options).eval()

    @torch.inference_mode()
    def segment(self, images: list[Image]) -> list[Segmentation]:
        pixels = torch.stack([torch.from_numpy(image).permute(2, 0, 1) / 255 - 0.5 for image in images])
        return [Segmentation(*maps) for maps in zip(*self.network(pixels), strict=True)]


class Masks(Net):
    """As a mask classifier: a class for each query."""

    def segment(self, images: list[Image]) -> list[Segmentation]:
        found = super().segment(images)
        return [Segmentation.of_queries(CLASS_LOGITS, one.logits, one.features) for one in found]


CLASS_LOGITS = 2 * torch.randn(4, 4, generator=torch.Generator().manual_seed(0))


def probabilities(net: Net, image: Image, size: tuple[int, int]) -> Tensor:
    logits = net.segment([image])[0].logits.double()
    resized: Tensor = F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]
    shares: Tensor = resized.softmax(0)
    return shares


def entropy(p: Tensor) -> Tensor:
    found: Tensor = torch.special.entr(p).sum(0)
    return found


def assert_means(found: Segmentation, passes: list[Tensor]) -> None:
    mean = torch.stack(passes).mean(0)
    torch.testing.assert_close(found.logits.double(), mean.log(), rtol=1e-5, atol=1e-5)
    information = entropy(mean) - torch.stack([entropy(one) for one in passes]).mean(0)
    assert information.max() > 1e-3
    torch.testing.assert_close(found.scores["mutual-information"].double(), information, rtol=1e-4, atol=2e-6)


def test_probabilities_of_networks_are_averaged_at_the_size_of_the_image() -> None:
    nets = [Net(0), Net(1), Net(2)]
    [found] = Passes([(f"net {index}", net) for index, net in enumerate(nets)], [View()]).segment([PHOTO])
    assert_means(found, [probabilities(net, PHOTO, (40, 56)) for net in nets])
    assert torch.equal(found.features, nets[0].segment([PHOTO])[0].features)


def test_a_mirror_image_is_turned_back() -> None:
    net = Net(0)
    [found] = Passes([("net", net)], views_of((), flip=True)).segment([PHOTO])
    turned = probabilities(net, np.ascontiguousarray(PHOTO[:, ::-1]), (40, 56)).flip(-1)
    assert_means(found, [probabilities(net, PHOTO, (40, 56)), turned])


def test_sizes_are_averaged_at_that_of_the_image_and_features_are_those_of_its_own() -> None:
    import cv2

    net = Net(0)
    [found] = Passes([("net", net)], views_of((0.5, 1.0, 1.25), flip=False)).segment([PHOTO])
    seen = [PHOTO, *(cv2.resize(PHOTO, size, interpolation=cv2.INTER_LINEAR) for size in ((28, 20), (70, 50)))]
    assert_means(found, [probabilities(net, image.astype(np.uint8), (40, 56)) for image in seen])
    assert torch.equal(found.features, net.segment([PHOTO])[0].features)


def by_hand(net: Net, image_id: str, number: int, seed: int = 0) -> Tensor:
    """A pass of the whole network with active dropout."""
    dropout = net.network.head[1]
    dropout.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(dropout_seed(seed, image_id, number))
        found = probabilities(net, PHOTO, (40, 56))
    dropout.eval()
    return found


def test_dropout_is_that_of_whole_passes_and_the_backbone_works_once() -> None:
    net = Net(0)
    [found] = Passes([("net", net)], [View()], dropout=6).segment_named([PHOTO], ["a"])
    assert net.network.backbone.calls == 1
    assert_means(found, [by_hand(net, "a", number) for number in range(6)])
    # It leaves the network as it was.
    assert torch.equal(net.segment([PHOTO])[0].logits, Net(0).segment([PHOTO])[0].logits)


def test_dropout_of_an_image_depends_on_its_name_and_the_seed_alone() -> None:
    passes = Passes([("net", Net(0))], [View()], dropout=3)
    alone = passes.segment_named([PHOTO], ["b"])[0].logits
    torch.rand(1)
    assert torch.equal(passes.segment_named([PHOTO, PHOTO], ["a", "b"])[1].logits, alone)
    assert not torch.equal(passes.segment_named([PHOTO], ["a"])[0].logits, alone)
    seeded = Passes([("net", Net(0))], [View()], dropout=3, seed=1)
    assert not torch.equal(seeded.segment_named([PHOTO], ["b"])[0].logits, alone)


def test_without_dropout_there_is_nothing_to_repeat() -> None:
    with pytest.raises(ModelError, match="--mc-dropout: net has no dropout with a rate above 0"):
        Passes([("net", Net(0, rate=0.0))], [View()], dropout=3)


def test_scores_of_queries_are_the_means_of_the_views() -> None:
    net = Masks(0)
    found = Passes([("net", net)], views_of((), flip=True)).segment([PHOTO])[0]
    by_view = []
    for image, turn in ((PHOTO, False), (np.ascontiguousarray(PHOTO[:, ::-1]), True)):
        masks = net.segment([image])[0].mask_logits
        assert masks is not None
        s = F.interpolate(masks[None].double(), (40, 56), mode="bilinear", align_corners=False)[0].sigmoid()
        semantic = torch.einsum("qc,qhw->chw", CLASS_LOGITS.double().softmax(-1)[:, :-1], s)
        by_view.append(semantic.flip(-1) if turn else semantic)
    of_semantic: dict[str, Callable[[Tensor], Tensor]] = {
        "mask2anomaly": lambda of: 1 - of.amax(0),
        "rba": lambda of: -of.tanh().sum(0),
    }
    for name, score in of_semantic.items():
        expected = torch.stack([score(semantic) for semantic in by_view]).mean(0)
        torch.testing.assert_close(found.scores[name].double(), expected, rtol=1e-5, atol=1e-6)
    mean = torch.stack([semantic / semantic.sum(0) for semantic in by_view]).mean(0)
    torch.testing.assert_close(found.logits.double(), mean.log(), rtol=1e-5, atol=1e-5)
    scores = oodray.detect(PHOTO, found, k=2, tau=-0.5, scores=["mask2anomaly", "predictive-entropy", "msp"]).scores
    np.testing.assert_allclose(scores["predictive-entropy"], entropy(mean), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scores["msp"], 1 - mean.amax(0), rtol=1e-4, atol=1e-6)


def test_with_a_network_without_queries_among_them_there_are_no_scores_of_queries() -> None:
    found = Passes([("a", Masks(0, classes=4)), ("b", Net(0, classes=3))], [View()]).segment([PHOTO])[0]
    with pytest.raises(ImageError, match="the score rba needs a mask classifier"):
        oodray.detect(PHOTO, found, k=2, tau=-0.5, scores="rba")


def test_a_member_that_fails_is_named() -> None:
    class Broken(Net):
        def segment(self, images: list[Image]) -> list[Segmentation]:
            raise RuntimeError("no luck")

    with pytest.raises(ImageError, match="the member second failed: RuntimeError: no luck"):
        Passes([("first", Net(0)), ("second", Broken())], [View()]).segment([PHOTO])
    with pytest.raises(ImageError, match="the member second gives 5 classes, the first gives 4"):
        Passes([("first", Net(0)), ("second", Net(0, classes=5))], [View()]).segment([PHOTO])


@pytest.mark.parametrize("score", ["predictive-entropy", "mutual-information"])
def test_a_single_pass_has_no_scores_of_passes(score: str) -> None:
    with pytest.raises(ImageError, match=f"the score {score} needs several passes"):
        oodray.detect(PHOTO, Net(0).segment([PHOTO])[0], k=2, tau=0.0, scores=[score])


def test_from_python() -> None:
    network = load("internimage-n-demo", device="cpu", flip=True, mc_dropout=2)
    assert network.tau is None
    with pytest.raises(ConfigError, match="no tau is known"):
        oodray.detect(PHOTO, network)
    found = oodray.detect(PHOTO, network, tau=-0.5, scores=["mutual-information", "ratio"], image_id="a")
    again = oodray.detect(PHOTO, network, tau=-0.5, scores=["mutual-information"], image_id="a")
    assert np.array_equal(found.scores["mutual-information"], again.scores["mutual-information"])
    assert found.scores["mutual-information"].max() > 0
    pair = load(["internimage-n-demo", "internimage-n-demo"], device="cpu")
    one = load("internimage-n-demo", device="cpu")
    logits = F.interpolate(one.segment([PHOTO])[0].logits[None], (40, 56), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(pair.segment([PHOTO])[0].logits, logits.log_softmax(0), rtol=1e-4, atol=1e-5)
    with pytest.raises(ModelError, match="3 --checkpoint for 2 --model"):
        load(["internimage-n-demo", "internimage-n-demo"], checkpoint=["a", "b", "c"], device="cpu")
