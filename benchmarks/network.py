"""InternImage-L with UPerNet on a CPU: against itself with PyTorch's own operator, and against the machine's limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import Comparison, compare, seconds
from oodray.method.kmeans import kmeans_of_each
from oodray.models.dtype import multiplies_bfloat16
from oodray.models.internimage.architecture import ARCHITECTURES
from oodray.models.internimage.segmenter import InternImageSegmenter, normalised
from oodray.models.internimage.upernet import InternImageUPerNet
from oodray.models.segmenter import Segmentation
from oodray.scores.maps import pixel_maps

HEIGHT, WIDTH = 512, 1024
REPEATS = 3  # a network takes seconds
SWEEP = tuple(range(3, 11))


@dataclass(frozen=True)
class Part:
    """Convolutions and products of a part of the network, and how fast they went."""

    what: str
    gflop: float
    seconds: float

    @property
    def rate(self) -> float:
        """GFLOP/s."""
        return self.gflop / self.seconds


def run() -> tuple[list[Comparison], list[Part]]:
    """Comparisons, and the parts of the network with the machine's own rates first, in float32."""
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    segmenter = internimage_l("float32")
    networks = {"float32": segmenter}
    if multiplies_bfloat16():
        networks["bfloat16"] = internimage_l("bfloat16")

    def reference() -> Segmentation:
        with patch("oodray.models.internimage.dcnv3.kernel_name", return_value="reference"):
            return segmenter.segment([image])[0]

    comparisons = [
        compare(
            f"InternImage-L + UPerNet, {HEIGHT}x{WIDTH}, {dtype}",
            ours=("numba", lambda network=network: network.segment([image])[0]),
            theirs=("grid_sample, float32", reference),
            difference=lambda a, b: float((a.logits - b.logits).norm() / b.logits.norm()),
            repeats=REPEATS,
        )
        for dtype, network in networks.items()
    ]
    found = segmenter.segment([image])[0]
    return [*comparisons, _upsampling(found.logits), _clustering(found, segmenter, image)], _parts(segmenter, image)


def internimage_l(dtype: str) -> InternImageSegmenter:
    """Random weights, the same for every dtype; offsets of about a pixel, where a new network has none."""
    torch.manual_seed(0)
    network = InternImageUPerNet(ARCHITECTURES["internimage-l"])
    for module in network.modules():
        if hasattr(module, "offset") and hasattr(module, "dw_conv"):
            torch.nn.init.normal_(module.offset.weight, std=0.1)
    return InternImageSegmenter(network, dtype=dtype)


def _upsampling(logits: Tensor) -> Comparison:
    """The confidence of an image from 150 maps of logits; the difference is of float16 numbers, over the largest."""

    def at_once() -> Any:
        resized = F.interpolate(logits[None], (HEIGHT, WIDTH), mode="bilinear", align_corners=False)
        return resized[0].amax(0).half().numpy()

    return compare(
        f"confidence at {HEIGHT}x{WIDTH} of {len(logits)} classes",
        ours=("in strips", lambda: pixel_maps(logits, HEIGHT, WIDTH, []).confidence),
        theirs=("all maps resized, then the maximum", at_once),
        difference=lambda a, b: float(np.abs(a.astype(np.float64) - b).max() / np.abs(b).max()),
    )


def _clustering(found: Segmentation, segmenter: InternImageSegmenter, image: Any) -> Comparison:
    """What a sweep adds to the network's time."""
    points = found.features.flatten(1).T[None]
    return compare(
        f"K-Means for K = {SWEEP[0]}..{SWEEP[-1]} of {points.shape[1]} x {points.shape[2]} features, n_init = 4",
        ours=("torch", lambda: kmeans_of_each(points, SWEEP, [list(SWEEP)])),
        theirs=("the network, float32", lambda: segmenter.segment([image])),
        difference=lambda *_: float("nan"),
        repeats=REPEATS,
    )


@torch.inference_mode()
def _parts(segmenter: InternImageSegmenter, image: Any) -> list[Part]:
    inputs = normalised([image], "cpu")
    backbone, head = segmenter.network.backbone, segmenter.network.decode_head
    stages = backbone(inputs)
    maps = torch.randn(1, 512, HEIGHT // 4, WIDTH // 4).to(memory_format=torch.channels_last)
    convolution = torch.nn.Conv2d(512, 512, 3, padding=1).to(memory_format=torch.channels_last)
    matrix = torch.randn(4096, 4096)
    ways: dict[str, Callable[[], Any]] = {
        "the machine: a product of 4096 x 4096": lambda: matrix @ matrix,
        "the machine: a 3x3 convolution of 512 channels": lambda: convolution(maps),
        "backbone": lambda: backbone(inputs),
        "head": lambda: head(stages),
        "network": lambda: segmenter.segment([image]),
    }
    return [Part(what, _gflop(way), median(seconds(way) for _ in range(REPEATS))) for what, way in ways.items()]


def _gflop(way: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        way()
    return counter.get_total_flops() / 1e9
