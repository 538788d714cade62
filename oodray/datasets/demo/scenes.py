"""The demo dataset: procedural street scenes with exact labels, drawn by numpy and Pillow from a seed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oodray.datasets.demo.ood_objects import ood_objects
from oodray.datasets.demo.photograph import photograph
from oodray.datasets.demo.scenery import draw_ground, draw_sky, roadside
from oodray.datasets.demo.street import CLASSES, PALETTE, VOID, Mask, Street
from oodray.datasets.demo.traffic import poles, vehicles
from oodray.storage.atomic import replacing
from oodray.storage.place import Place

__all__ = ["CLASSES", "DEMO_SCENES", "PALETTE", "Scene", "render_scene", "write_demo"]

DEMO_SCENES = 24
"""Scenes in the demo dataset."""

_A_FEW = 4
"""Scenes that are drawn sooner than another process starts."""

_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
"""Has glibc keep what is freed for the next scene: to get it from the system anew takes a seventh of the time."""

_PROGRAM = """
import os, sys
os.nice(5)  # what the process that waits for the scenes does meanwhile comes first: it takes longer
from oodray.datasets.demo.scenes import write_scenes
from oodray.storage.place import storage_path
root, split, *indices = sys.argv[1:]
write_scenes(storage_path(root), split, [*map(int, indices)])
"""

_SPLITS = {"train": 0, "val": 1, "demo": 2}


@dataclass(frozen=True)
class Scene:
    """One image and what is in it; all three arrays are uint8 and of one height and width."""

    image: NDArray[np.uint8]
    """`(H, W, 3)` RGB."""
    semantic: NDArray[np.uint8]
    """`(H, W)` class ids, 255 on objects of no class."""
    label: NDArray[np.uint8]
    """`(H, W)`: 0 in-distribution, 1 OoD, 255 ignore (the rim of an OoD object)."""


def render_scene(index: int, *, split: str, height: int = 320, width: int = 640, seed: int = 0) -> Scene:
    """Draw scene `index` of a split: "train" and "val" hold only CLASSES, "demo" adds objects of other kinds.

    The same arguments give the same scene; no two splits share one.

    Raises:
        ValueError: the split is unknown.

    >>> render_scene(0, split="train", height=64, width=128).image.shape
    (64, 128, 3)
    """
    if split not in _SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(_SPLITS)}")
    street = Street(np.random.default_rng([seed, _SPLITS[split], index]), height, width)
    draw_sky(street)
    draw_ground(street)
    things = [*roadside(street), *poles(street), *vehicles(street)]
    if split == "demo":
        things += ood_objects(street, index)
    for _, draw in sorted(things, key=lambda thing: -thing[0]):
        draw()
    return Scene(photograph(street), street.semantic, _with_rim(street.semantic == VOID))


def _with_rim(strange: Mask) -> NDArray[np.uint8]:
    """Label 1 on the objects and 255 one pixel around them, where the blur mixes the two."""
    padded = np.pad(strange, 1)
    near = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return np.where(strange, 1, np.where(near, 255, 0)).astype(np.uint8)


def write_demo(root: Place, scenes: int = DEMO_SCENES, *, split: str = "demo") -> None:
    """Write the first scenes of a split to `root/images/scene-00.png` and `root/labels/scene-00.png` (codes 0, 1, 255).

    Files that are there and whole are kept. A file appears whole or not at all.

    Raises:
        RunError: a file cannot be written.
    """
    missing = [index for index in range(scenes) if _missing(root, index)]
    if len(missing) > _A_FEW and _has_been_written_beside(root, split, missing):
        return
    # What another process could not write is tried here, where its error is raised.
    write_scenes(root, split, missing)


def write_scenes(root: Place, split: str, indices: Sequence[int]) -> None:
    """Write what is missing of some scenes, as `write_demo` does, in threads of this process."""
    # numpy and Pillow let other threads run while they draw and compress.
    with ThreadPoolExecutor() as threads:
        for _ in threads.map(partial(_write_scene, root, split), indices):
            pass


def _has_been_written_beside(root: Place, split: str, indices: Sequence[int]) -> bool:
    """Draw in another process, as this one may import torch meanwhile: each would wait for the other's interpreter."""
    arguments = [str(root), split, *map(str, indices)]
    environment = os.environ | _KEEP_MEMORY | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _PROGRAM, *arguments]
    try:
        return subprocess.run(command, check=False, capture_output=True, env=environment).returncode == 0
    except OSError:
        return False  # no room for a process


def _write_scene(root: Place, split: str, index: int) -> None:
    missing = _missing(root, index)
    if missing:
        scene = render_scene(index, split=split)
        for kind in missing:
            _write_png(_file(root, kind, index), scene.image if kind == "images" else scene.label)


def _missing(root: Place, index: int) -> list[str]:
    """The folders in which a scene has no file, or one that is not whole."""
    return [kind for kind in ("images", "labels") if not _is_whole(_file(root, kind, index))]


def _file(root: Place, kind: str, index: int) -> Place:
    return root / kind / f"scene-{index:02d}.png"


def _is_whole(path: Place) -> bool:
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as picture:
            picture.verify()
    except (OSError, SyntaxError):  # Pillow reports a broken PNG chunk as a SyntaxError.
        return False
    return True


def _write_png(path: Place, pixels: NDArray[np.uint8]) -> None:
    with replacing(path) as temporary:
        # A tenth larger than at the usual level, in half of its time.
        Image.fromarray(pixels).save(temporary, format="PNG", compress_level=1)
