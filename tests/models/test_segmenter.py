from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from oodray.errors import ImageError
from oodray.models.segmenter import Segmentation, Segmenter, check_segmentations


class TestProtocol:
    def test_is_met_by_anything_that_can_segment(self) -> None:
        class Network:
            def segment(self, images: list[Any]) -> list[Segmentation]:
                return []

        assert isinstance(Network(), Segmenter)
        assert not isinstance(object(), Segmenter)


class TestCheckSegmentations:
    GOOD = Segmentation(torch.zeros(2, 3, 4), torch.zeros(5, 1, 1))

    def test_good_ones_are_handed_on(self) -> None:
        found = [self.GOOD, self.GOOD]
        assert check_segmentations(found, 2) is found

    @pytest.mark.parametrize(
        ("bad", "problem"),
        [
            (torch.zeros(1, 2, 3, 4), r"torch.float32 \(1, 2, 3, 4\)"),
            (torch.zeros(2, 0, 4), r"\(2, 0, 4\)"),
            (torch.zeros(2, 3, 4, dtype=torch.int64), "torch.int64"),
            (np.zeros((2, 3, 4)), "type ndarray"),
            (None, "type NoneType"),
        ],
    )
    def test_others_are_named(self, bad: Any, problem: str) -> None:
        for name in ("logits", "features"):
            with pytest.raises(ImageError, match=f"returned {name} of .*{problem}"):
                check_segmentations([replace(self.GOOD, **{name: bad})], 1)
