"""The procedural scenes as mmsegmentation training and validation data."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from mmseg.registry import DATASETS
from numpy.typing import NDArray
from torch.utils.data import Dataset

from oodray.datasets.demo.scenes import CLASSES, PALETTE, Scene, render_scene
from oodray.training.samples import Sample, pack


@DATASETS.register_module()
class WholeScenes(Dataset[Sample]):
    """Validation scenes, whole, packed for mmsegmentation."""

    metainfo: ClassVar = {"classes": CLASSES, "palette": PALETTE}

    def __init__(self, scenes: int) -> None:
        self.scenes = scenes

    def __len__(self) -> int:
        return self.scenes

    def __getitem__(self, index: int) -> Sample:
        scene = render_scene(index, split="val")
        return pack(scene.image, scene.semantic)


@DATASETS.register_module()
class SceneCrops(Dataset[Sample]):
    """Training scenes: a random crop, mirrored and relit at random, of a scene that is drawn once and kept.

    Randomness comes from numpy's global generator, which mmengine seeds in every loader process.
    """

    metainfo: ClassVar = {"classes": CLASSES, "palette": PALETTE}

    def __init__(self, scenes: int, crop: tuple[int, int]) -> None:
        self.crop = crop
        self._scenes: list[Scene | None] = [None] * scenes

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> Sample:
        scene = self._scenes[index] or render_scene(index, split="train")
        self._scenes[index] = scene
        height, width = self.crop
        top = np.random.randint(scene.semantic.shape[0] - height + 1)
        left = np.random.randint(scene.semantic.shape[1] - width + 1)
        window = np.s_[top : top + height, left : left + width]
        image, semantic = scene.image[window], scene.semantic[window]
        if np.random.rand() < 0.5:
            image, semantic = image[:, ::-1], semantic[:, ::-1]
        return pack(_relight(image), semantic)


def _relight(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    contrast, brightness = np.random.uniform(0.8, 1.25), np.random.uniform(-20, 20)
    colour = np.random.uniform(0.93, 1.07, size=3)
    return np.clip(image * (contrast * colour) + brightness, 0, 255).astype(np.uint8)
