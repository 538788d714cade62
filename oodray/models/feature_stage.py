"""Which of a network's maps is clustered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from oodray.errors import ModelError

FEATURE_STRIDE = 16
FEATURE_STAGE = 2  # counted from 0


def nearest_to_stride_16(
    stages: Sequence[Tensor], image: Sequence[int], stage: int | None = None, *, tie: Literal["third", "last"] = "third"
) -> Tensor:
    """The map `(N, D, h, w)` whose stride is nearest to 16, or the one asked for.

    Args:
        stages: the maps of a network.
        image: height and width of its input, in pixels.
        stage: which one to take instead, counted from 0.
        tie: of several with the same stride, as in dilated backbones and plain transformers, the third or the one next
            to it, or the last.

    Raises:
        ModelError: there is no such map; the message lists those that there are.
    """
    shapes = ", ".join(f"{index}: {tuple(map_.shape[1:])}" for index, map_ in enumerate(stages))
    if not stages:
        raise ModelError("the network gives no maps of features; --features NAME takes those of another network")
    if stage is not None:
        if not 0 <= stage < len(stages):
            raise ModelError(
                f"there is no feature stage {stage}; of an image of {image[1]}x{image[0]} pixels the network gives "
                f"(channels, height, width) {shapes}"
            )
        return stages[stage]

    def distance(index: int) -> tuple[float, int]:
        axes = zip(stages[index].shape[-2:], image, strict=True)
        # Strided convolutions round up, so small images do not have the size over the stride. 8 is as near as 32.
        wrong = sum(abs(math.log2(count / math.ceil(size / FEATURE_STRIDE))) for count, size in axes)
        return round(wrong, 6), abs(index - FEATURE_STAGE) if tie == "third" else -index

    return stages[min(range(len(stages)), key=distance)]
