from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mask_classifiers import eomt, saved
from numpy.typing import NDArray

from oodray.errors import ModelError
from oodray.models.inspection import inspect_network, parameters_of
from oodray.models.loading import load
from oodray.models.segmenter import Segmentation
from oodray.report.networks import inspection_lines


def test_a_network_with_one_map_of_logits() -> None:
    found = inspect_network(load("internimage-n-demo", device="cpu"), (64, 128))
    assert found.offers() == {
        "logits": "10 classes, 10 channels of 16x32, stride 4",
        "features": "128 channels of 4x8, stride 16",
    }
    lacking = dict(found.scores())
    assert lacking["energy"] is lacking["ratio"] is None
    assert (lacking["rba"], lacking["mutual-information"]) == ("queries", "passes")
    assert found.parameters == 3_327_966
    assert found.seconds > 0
    assert found.memory > 10
    lines = dict(line.split("\t", 1) for line in inspection_lines(found))
    assert lines["image"] == "128x64"
    assert lines["parameters"] == "3.3 M"
    assert lines["tau"] == "3.52734375"


def test_a_mask_classifier(tmp_path: Path) -> None:
    folder = saved(eomt, tmp_path)
    found = inspect_network(load(folder, device="cpu"), (64, 128))
    assert found.offers()["queries"] == "6, masks of 16x16 in each of 2 windows"
    assert dict(found.scores())["rba"] is None
    both = load([folder, folder], device="cpu", flip=True)
    assert dict(inspect_network(both, (64, 128)).scores())["mutual-information"] is None
    assert parameters_of(both) == 2 * (found.parameters or 0)


def test_a_network_that_cannot_segment() -> None:
    class Broken:
        def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
            raise RuntimeError("no luck")

    network = load("internimage-n-demo", device="cpu")
    vars(network)["segmenter"] = Broken()
    with pytest.raises(ModelError, match="cannot segment an image of 20x10 pixels: RuntimeError: no luck"):
        inspect_network(network, (10, 20))
