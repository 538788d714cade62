"""The images that novelty is tried on, with their labels: 0 known, 1 OoD, 255 ignored.

    camvid-val, camvid-test   CamVid, cars, pedestrians and bicyclists being OoD
    pasted-SHARE              CamVid's val frames with an object pasted in that covers SHARE percent of the image
    demo                      the scenes that oodray draws
    road-anomaly              RoadAnomaly

Objects are the shapes and patterns of the demo, which no network of CamVid has seen. In `pasted` sets the held-out
classes are ignored, so that the pasted object is all that is OoD.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oodray.datasets.demo.ood_objects import _OBJECTS
from oodray.datasets.demo.scenes import render_scene
from oodray.datasets.demo.textures import draw_shape, unit_square

HELD_OUT, VOID = (8, 9, 10), 11
SHARES = (0.2, 1.0, 5.0, 20.0)
SETS = ("camvid-val", *(f"pasted-{share:g}" for share in SHARES), "demo", "camvid-test", "road-anomaly")
DEMO_SCENES = 48


@dataclass(frozen=True, eq=False)
class Labelled:
    """An image `(H, W, 3)` uint8 RGB and its labels `(H, W)` uint8."""

    name: str
    image: NDArray[np.uint8]
    label: NDArray[np.uint8]


def images_of(name: str, data: Path) -> Iterator[Labelled]:
    """The images of a set in their order; `data` is the folder with CamVid and RoadAnomaly."""
    if name == "demo":
        yield from _demo()
    elif name == "road-anomaly":
        yield from _road_anomaly(data / "RoadAnomaly_jpg")
    elif name.startswith("pasted-"):
        yield from _pasted(data / "camvid", float(name.removeprefix("pasted-")) / 100)
    else:
        yield from _camvid(data / "camvid", name.removeprefix("camvid-"))


def _camvid(root: Path, split: str) -> Iterator[Labelled]:
    for name, image, codes in _frames(root, split):
        label = np.isin(codes, HELD_OUT).astype(np.uint8)
        label[codes == VOID] = 255
        yield Labelled(name, image, label)


def _pasted(root: Path, share: float) -> Iterator[Labelled]:
    for index, (name, image, codes) in enumerate(_frames(root, "val")):
        label = np.where(np.isin(codes, (*HELD_OUT, VOID)), 255, 0).astype(np.uint8)
        yield Labelled(name, *_with_object(image, label, share, index))


def _with_object(
    image: NDArray[np.uint8], label: NDArray[np.uint8], share: float, index: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An object whose pixels are so large a share of the image, somewhere in its lower two thirds."""
    rng = np.random.default_rng([index, round(share * 10_000)])
    shape, pattern, aspect = _OBJECTS[index % len(_OBJECTS)]
    height, width = label.shape
    wanted = share * height * width
    tall = max(6, round((wanted / aspect / 0.6) ** 0.5))
    for _ in range(4):  # the shape fills some part of its box
        tall = min(tall, height - 2)
        drawn = draw_shape(shape, tall, min(round(tall * aspect), width - 2)) > 0
        tall = max(6, round(tall * (wanted / max(1, drawn.sum())) ** 0.5))
    x, y = unit_square(*drawn.shape)
    colours = np.clip(pattern(rng, x, y) * (1.12 - 0.35 * y)[..., None], 0, 1)
    top = int(rng.integers(min(height // 3, height - drawn.shape[0]), height - drawn.shape[0] + 1))
    left = int(rng.integers(0, width - drawn.shape[1] + 1))
    box = np.s_[top : top + drawn.shape[0], left : left + drawn.shape[1]]
    image, label = image.copy(), label.copy()
    noisy = np.clip(colours * 255 + rng.normal(0, 6, colours.shape), 0, 255).astype(np.uint8)
    image[box][drawn] = noisy[drawn]
    label[box][drawn] = 1
    return image, label


def _frames(root: Path, split: str) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
    for path in sorted((root / split).iterdir()):
        codes = np.asarray(Image.open(root / f"{split}annot" / f"{path.stem}.png"))
        yield path.stem, np.asarray(Image.open(path).convert("RGB")), codes


def _demo() -> Iterator[Labelled]:
    for index in range(DEMO_SCENES):
        scene = render_scene(index, split="demo")
        yield Labelled(f"{index:03}", scene.image, scene.label)


def _road_anomaly(root: Path) -> Iterator[Labelled]:
    for frame in json.loads((root / "frame_list.json").read_text(encoding="utf-8")):
        stem = Path(frame).stem
        codes = np.asarray(Image.open(root / "frames" / f"{stem}.labels" / "labels_semantic.png"))
        image = np.asarray(Image.open(root / "frames" / frame).convert("RGB"))
        yield Labelled(stem, image, (codes == 2).astype(np.uint8))
