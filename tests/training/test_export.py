from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from oodray.models.segmenter import Segmentation
from oodray.models.weights.checkpoints import read_state_dict
from oodray.training.export import export_weights, write_card

CLASSES = ("road", "sky", "car", "truck")

Example = tuple[NDArray[np.uint8], NDArray[np.uint8]]


class Prepared:
    """A segmenter whose logits were written down beforehand, in the order of the images."""

    def __init__(self, logits: list[NDArray[np.float32]]) -> None:
        self.logits = iter(logits)

    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        return [Segmentation(torch.from_numpy(next(self.logits)), torch.zeros(1, 1, 1)) for _ in images]


def examples(random: np.random.Generator, classes: list[int]) -> list[Example]:
    """Three images of two sizes; their pixels are of the given classes, or ignored."""
    sizes = [(20, 31), (20, 31), (17, 24)]
    return [
        (np.zeros((*size, 3), np.uint8), random.choice([*classes, 255], size=size).astype(np.uint8)) for size in sizes
    ]


def random_logits(random: np.random.Generator, labels: list[Example], classes: int) -> list[NDArray[np.float32]]:
    """Logits at image size that favour the true class a little."""
    maps = [random.normal(0, 2, (len(CLASSES), *semantic.shape)).astype(np.float32) for _, semantic in labels]
    for logits, (_, semantic) in zip(maps, labels, strict=True):
        logits[:classes] += 2 * (semantic == np.arange(classes)[:, None, None])
        logits[classes:] -= 100
    return maps


def counted_iou(labels: list[Example], logits: list[NDArray[np.float32]], cls: int) -> float:
    """Intersection over union in percent, as sets of pixels."""
    truly, found = set(), set()
    for image, ((_, semantic), scores) in enumerate(zip(labels, logits, strict=True)):
        for row, column in np.argwhere(semantic != 255).tolist():
            if semantic[row, column] == cls:
                truly.add((image, row, column))
            if scores[:, row, column].argmax() == cls:
                found.add((image, row, column))
    return 100 * len(truly & found) / len(truly | found)


class TestExportWeights:
    def test_floating_point_becomes_float16_and_the_rest_stays(self, tmp_path: Path) -> None:
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        network(torch.rand(2, 3, 8, 8))  # moves the running mean and the counter
        before = {key: value.clone() for key, value in network.state_dict().items()}
        export_weights(network, tmp_path / "weights.pth")
        stored = read_state_dict(tmp_path / "weights.pth")
        assert stored.keys() == before.keys()
        for key, value in stored.items():
            counter = key.endswith("num_batches_tracked")
            assert value.dtype == (torch.int64 if counter else torch.float16)
            assert torch.equal(value, before[key] if counter else before[key].half())
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())

    def test_what_was_written_loads_strictly(self, tmp_path: Path) -> None:
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
        export_weights(network, tmp_path / "weights.pth")
        again = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
        again.load_state_dict(read_state_dict(tmp_path / "weights.pth"), strict=True)
        image = torch.rand(1, 3, 8, 8)
        torch.testing.assert_close(again(image), network(image), rtol=0, atol=5e-3)


class TestWriteCard:
    def test_is_what_counting_pixels_gives(self, tmp_path: Path) -> None:
        random = np.random.default_rng(5)
        labels = examples(random, [0, 1, 2, 3])
        logits = random_logits(random, labels, 4)
        card = write_card(tmp_path / "card.json", Prepared(logits), labels, CLASSES)
        expected = [counted_iou(labels, logits, cls) for cls in range(4)]
        assert 20 < min(expected) < max(expected) < 90  # neither chance nor perfect
        assert list(card["iou"]) == list(CLASSES)
        assert list(card["iou"].values()) == pytest.approx(expected, abs=0.005001)
        assert card["miou"] == pytest.approx(np.mean(expected), abs=0.005001)
        assert card["images"] == 3
        assert json.loads((tmp_path / "card.json").read_text(encoding="utf-8")) == card

    def test_a_class_that_nobody_saw_has_no_iou(self, tmp_path: Path) -> None:
        random = np.random.default_rng(6)
        labels = examples(random, [0, 1, 2])
        logits = random_logits(random, labels, 3)
        card = write_card(tmp_path / "card.json", Prepared(logits), labels, CLASSES)
        expected = [counted_iou(labels, logits, cls) for cls in range(3)]
        assert card["iou"]["truck"] is None
        assert card["miou"] == pytest.approx(np.mean(expected), abs=0.005001)
        assert "NaN" not in (tmp_path / "card.json").read_text(encoding="utf-8")

    def test_a_class_that_is_only_predicted_counts_as_missed(self, tmp_path: Path) -> None:
        labels = [(np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.uint8))]
        logits = np.zeros((4, 4, 6), np.float32)
        logits[0], logits[2, :, :2] = 1, 2
        card = write_card(tmp_path / "card.json", Prepared([logits]), labels, CLASSES)
        assert card["iou"] == {"road": 66.67, "sky": None, "car": 0.0, "truck": None}
        assert card["miou"] == 33.33

    def test_logits_of_any_resolution_are_brought_to_the_size_of_the_image(self, tmp_path: Path) -> None:
        labels = [(np.zeros((8, 6, 3), np.uint8), np.repeat([0, 2], 4)[:, None].repeat(6, 1).astype(np.uint8))]
        # Bilinear between rows 0 and 1 of the logits: 0, 0, then weights 1/8, 3/8, 5/8, 7/8, then 1, 1.
        logits = np.zeros((4, 2, 1), np.float32)
        logits[0, 0], logits[2, 1] = 8, 8
        card = write_card(tmp_path / "card.json", Prepared([logits]), labels, CLASSES)
        assert (card["iou"]["road"], card["iou"]["car"]) == (100, 100)
