from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from model_oracles import fill_network, write_config

from oodray.models.loading import load_segmenter
from oodray.models.mmseg import MMSegSegmenter, build_network
from oodray.models.source import resolve_model


class TestConfig:
    def test_makes_a_segmenter(self, tmp_path: Path) -> None:
        backbone = {"channels": 8, "depths": [1] * 4, "groups": [1] * 4}
        head = {"in_channels": [8, 16, 32, 64], "channels": 8, "num_classes": 5}
        config = write_config(tmp_path, backbone=backbone, decode_head=head)
        network = build_network(config)
        fill_network(network)
        torch.save(network.state_dict(), tmp_path / "mine.pth")
        image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
        segmenter = load_segmenter(resolve_model(str(config), str(tmp_path / "mine.pth")))
        (segmentation,), (expected,) = segmenter.segment([image]), MMSegSegmenter(network).segment([image])
        assert torch.equal(segmentation.logits, expected.logits)
        assert torch.equal(segmentation.features, expected.features)
