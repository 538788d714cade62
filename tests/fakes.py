"""Networks without a network, as a user would write one: `--model fakes:colours` from this folder."""

from __future__ import annotations

import math
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from oodray import Segmentation
from oodray.datasets.images import LabelCodes

MARK = (255, 0, 255)
"""The colour of the first pixel of an image that some networks here cannot take."""

DEADLY_CODE = 200
MOST_HOARDED = 8 * 2**10
"""MiB."""

TAU = 1.5
"""A threshold between the confidences of `Colours` for bright colours and for dark ones."""

WEIGHTS = torch.tensor([[4.0, 0.0, -1.0], [-1.0, 3.0, 1.0], [0.5, -2.0, 3.0], [1.0, 1.0, -3.0]])
BIAS = torch.tensor([-1.0, -0.5, 0.0, 0.25])


class Colours:
    """Logits are linear in the colours, at a quarter of the size; features are coarse colours and positions."""

    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        return [self.segment_one(image) for image in images]

    def segment_one(self, image: NDArray[np.uint8]) -> Segmentation:
        rgb = torch.from_numpy(image).permute(2, 0, 1) / 255
        quarter = F.adaptive_avg_pool2d(rgb, _size(image, 4))
        coarse = F.adaptive_avg_pool2d(rgb, _size(image, 16))
        rows, columns = (torch.linspace(0, 0.2, count) for count in coarse.shape[1:])
        position = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
        logits = torch.einsum("kc,chw->khw", WEIGHTS, quarter) + BIAS[:, None, None]
        return Segmentation(logits, torch.cat([coarse, position]))


class Slow(Colours):
    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        time.sleep(0.5)
        return super().segment(images)


class Alone(Colours):
    """Cannot take a call while it is at another one, as a network that fills its GPU."""

    def __init__(self) -> None:
        self.at_work = threading.Lock()

    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        if not self.at_work.acquire(blocking=False):
            raise RuntimeError("two calls at once")
        try:
            time.sleep(0.02)
            return super().segment(images)
        finally:
            self.at_work.release()


class Unhurried(Colours):
    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        time.sleep(0.02)
        return super().segment(images)


class Witness(Slow):
    """Notes on which machine it is, in the folder that `OODRAY_WITNESSES` names."""

    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        import ray

        Path(os.environ["OODRAY_WITNESSES"], ray.get_runtime_context().get_node_id()).touch()
        return super().segment(images)


class FailsOnMark(Colours):
    def segment_one(self, image: NDArray[np.uint8]) -> Segmentation:
        if _is_marked(image):
            raise RuntimeError("cannot take magenta")
        return super().segment_one(image)


class NanOnMark(Colours):
    def segment_one(self, image: NDArray[np.uint8]) -> Segmentation:
        found = super().segment_one(image)
        return Segmentation(found.logits * math.nan, found.features) if _is_marked(image) else found


class CrashesOnMark(Colours):
    def segment_one(self, image: NDArray[np.uint8]) -> Segmentation:
        if _is_marked(image):
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory ends
        return super().segment_one(image)


class HangsOnMark(Colours):
    def segment_one(self, image: NDArray[np.uint8]) -> Segmentation:
        if _is_marked(image):
            re.match(r"(a+)+$", "a" * 60 + "b")  # for years, and never lets another thread run
        return super().segment_one(image)


class LacksMemory(Colours):
    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        if len(images) > 1 or _is_marked(images[0]):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return super().segment(images)


class OneTooMany(Colours):
    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        return [*super().segment(images), self.segment_one(images[0])]


class Flat(Colours):
    def segment_one(self, image: NDArray[np.uint8]) -> Segmentation:
        found = super().segment_one(image)
        return Segmentation(found.logits, found.features.flatten())


class HungryOnMark(Colours):
    """Takes memory until something ends it, or there is more than any test asks for."""

    def segment_one(self, image: NDArray[np.uint8]) -> Segmentation:
        if _is_marked(image):
            hoard: list[NDArray[np.float64]] = []
            while len(hoard) < MOST_HOARDED:
                hoard.append(np.ones(2**17))  # a MiB
            time.sleep(60)
        return super().segment_one(image)


class DeadlyCodes(LabelCodes):
    """Ends the process that decodes a certain label."""

    def labels(self, codes: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        if (codes == DEADLY_CODE).any():
            os.kill(os.getpid(), signal.SIGSEGV)  # as a decoder that trips over a file
        return super().labels(codes)


def colours() -> Colours:
    return Colours()


def hungry_on_mark() -> Colours:
    return HungryOnMark()


def slow() -> Colours:
    return Slow()


def alone() -> Colours:
    return Alone()


def unhurried() -> Colours:
    return Unhurried()


def witness() -> Colours:
    return Witness()


def fails_on_mark() -> Colours:
    return FailsOnMark()


def nan_on_mark() -> Colours:
    return NanOnMark()


def crashes_on_mark() -> Colours:
    return CrashesOnMark()


def hangs_on_mark() -> Colours:
    return HangsOnMark()


def lacks_memory() -> Colours:
    return LacksMemory()


def one_too_many() -> Colours:
    return OneTooMany()


def flat() -> Colours:
    return Flat()


def never_starts() -> Colours:
    raise RuntimeError("the licence server is down")


def _size(image: NDArray[np.uint8], stride: int) -> tuple[int, int]:
    height, width, _ = image.shape
    return math.ceil(height / stride), math.ceil(width / stride)


def _is_marked(image: NDArray[np.uint8]) -> bool:
    return tuple(image[0, 0].tolist()) == MARK
