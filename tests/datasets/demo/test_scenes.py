"""The procedural scenes: reproducible, learnable, and strange only where the label says so."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from oodray.datasets.demo import scenes as scenes_module
from oodray.datasets.demo.scenes import CLASSES, DEMO_SCENES, PALETTE, Scene, render_scene, write_demo, write_scenes
from oodray.errors import RunError

SMALL = {"height": 160, "width": 320}


@cache
def scenes(split: str, number: int) -> tuple[Scene, ...]:
    return tuple(render_scene(index, split=split, **SMALL) for index in range(number))


def class_shares(number: int = 30) -> NDArray[np.float64]:
    """Share of the pixels per training scene and class."""
    counts = [np.bincount(s.semantic.ravel(), minlength=len(CLASSES)) for s in scenes("train", number)]
    return np.array(counts) / scenes("train", 1)[0].semantic.size


@pytest.mark.parametrize("split", ["train", "val", "demo"])
def test_same_arguments_give_the_same_scene(split: str) -> None:
    first, again = (render_scene(3, split=split, seed=5, **SMALL) for _ in range(2))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.semantic, again.semantic)
    assert np.array_equal(first.label, again.label)


def test_a_scene_does_not_depend_on_the_global_generator_nor_changes_it() -> None:
    before = render_scene(1, split="train", **SMALL)
    np.random.seed(7)
    state = np.random.get_state()[1].copy()  # type: ignore[index]
    assert np.array_equal(render_scene(1, split="train", **SMALL).image, before.image)
    assert np.array_equal(np.random.get_state()[1], state)  # type: ignore[index]


def test_index_split_and_seed_each_change_the_scene() -> None:
    base = {"index": 0, "split": "train", "seed": 0}
    variants = [
        base,
        base | {"index": 1},
        base | {"split": "val"},
        base | {"split": "demo"},
        base | {"seed": 1},
    ]
    images = {render_scene(**v, **SMALL).image.tobytes() for v in variants}  # type: ignore[arg-type]
    assert len(images) == len(variants)


def test_splits_share_no_scene() -> None:
    per_split = [{s.image.tobytes() for s in scenes(split, 12)} for split in ("train", "val", "demo")]
    assert len(set.union(*per_split)) == 36


def test_an_unknown_split_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="unknown split 'test': choose one of train, val, demo"):
        render_scene(0, split="test")


@pytest.mark.parametrize(("height", "width"), [(320, 640), (64, 128), (97, 201), (240, 240)])
@pytest.mark.parametrize("split", ["train", "demo"])
def test_arrays_have_the_size_asked_for(split: str, height: int, width: int) -> None:
    scene = render_scene(2, split=split, height=height, width=width)
    assert scene.image.shape == (height, width, 3)
    assert scene.semantic.shape == scene.label.shape == (height, width)
    assert scene.image.dtype == scene.semantic.dtype == scene.label.dtype == np.uint8


@pytest.mark.parametrize("split", ["train", "val"])
def test_training_scenes_hold_nothing_strange(split: str) -> None:
    for scene in scenes(split, 12):
        assert scene.semantic.max() < len(CLASSES)
        assert not scene.label.any()


def test_demo_labels_and_semantics_agree() -> None:
    for scene in scenes("demo", DEMO_SCENES):
        assert set(np.unique(scene.semantic)) <= {*range(len(CLASSES)), 255}
        assert set(np.unique(scene.label)) <= {0, 1, 255}
        assert np.array_equal(scene.label == 1, scene.semantic == 255)


def test_the_ignored_rim_is_what_touches_an_object() -> None:
    for scene in scenes("demo", 6):
        rows, columns = np.nonzero(scene.label == 1)
        expected = np.zeros_like(scene.label)
        for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            r, c = rows + down, columns + right
            inside = (r >= 0) & (r < expected.shape[0]) & (c >= 0) & (c < expected.shape[1])
            expected[r[inside], c[inside]] = 255
        expected[rows, columns] = 1
        assert np.array_equal(scene.label, expected)


def test_every_demo_scene_has_an_object_and_together_they_cover_3_to_6_percent() -> None:
    shares = [float((scene.label == 1).mean()) for scene in scenes("demo", DEMO_SCENES)]
    assert min(shares) > 0.005
    assert 0.03 < np.mean(shares) < 0.06
    assert max(shares) < 0.2


def test_objects_look_strange() -> None:
    """Their colours are rare in the training scenes, as a histogram of coarse RGB cells tells."""

    def cells(image: NDArray[np.uint8]) -> NDArray[np.intp]:
        r, g, b = np.moveaxis(image // 32, -1, 0).astype(np.intp)
        return np.asarray(r * 64 + g * 8 + b)

    known = np.bincount(np.concatenate([cells(s.image).ravel() for s in scenes("train", 30)]), minlength=512)
    usual = known / known.sum()
    demo = scenes("demo", DEMO_SCENES)
    strange = np.concatenate([cells(s.image)[s.label == 1] for s in demo])
    normal = np.concatenate([cells(s.image)[s.label == 0] for s in demo])
    assert np.median(usual[strange]) < 0.5 * np.median(usual[normal])


def test_every_class_is_common_and_large_enough_to_learn() -> None:
    shares = class_shares()
    for name, pixels, present in zip(CLASSES, shares.mean(0), (shares > 0.001).mean(0), strict=True):
        assert pixels > 0.015, name
        assert present > 0.6, name


def test_no_class_swallows_the_training_scenes() -> None:
    assert class_shares().mean(0).max() < 0.35


def test_images_use_the_range_of_light() -> None:
    for scene in scenes("train", 12):
        assert 30 < scene.image.mean() < 225
        assert scene.image.std() > 25


def test_classes_have_one_distinct_colour_each() -> None:
    assert len(set(CLASSES)) == len(set(PALETTE)) == len(CLASSES) == len(PALETTE)


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_write_demo_writes_pairs_that_read_back(tmp_path: Path) -> None:
    write_demo(tmp_path, scenes=2)
    assert files(tmp_path) == [
        "images/scene-00.png",
        "images/scene-01.png",
        "labels/scene-00.png",
        "labels/scene-01.png",
    ]
    for index in range(2):
        scene = render_scene(index, split="demo")
        with Image.open(tmp_path / f"images/scene-{index:02d}.png") as image:
            assert np.array_equal(np.asarray(image), scene.image)
        with Image.open(tmp_path / f"labels/scene-{index:02d}.png") as label:
            assert label.mode == "L"
            assert np.array_equal(np.asarray(label), scene.label)


def test_many_scenes_are_drawn_by_another_process_and_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenes_module, "_A_FEW", 1)
    write_scenes(tmp_path / "here", "demo", range(2))
    monkeypatch.setattr(scenes_module, "write_scenes", lambda *_: pytest.fail("drawn here"))
    write_demo(tmp_path / "there", 2)
    assert files(tmp_path / "there") == files(tmp_path / "here")
    for name in files(tmp_path / "here"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_what_another_process_cannot_draw_is_tried_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes_module, "_A_FEW", 1)
    (tmp_path / "images").touch()
    with pytest.raises(RunError, match=r"cannot write .*images"):
        write_demo(tmp_path, 2)
    (tmp_path / "images").unlink()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    write_demo(tmp_path, 2)
    assert len(files(tmp_path)) == 2 * 2


def test_write_demo_leaves_whole_files_alone(tmp_path: Path) -> None:
    write_demo(tmp_path, scenes=1)
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in files(tmp_path)}
    write_demo(tmp_path, scenes=1)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in files(tmp_path)} == before


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "flipped"])
@pytest.mark.parametrize("name", ["images/scene-00.png", "labels/scene-00.png"])
def test_write_demo_repairs_one_file_and_touches_no_other(tmp_path: Path, name: str, damage: str) -> None:
    write_demo(tmp_path, scenes=1)
    path = tmp_path / name
    whole = path.read_bytes()
    other = next(tmp_path / each for each in files(tmp_path) if each != name)
    untouched = other.stat().st_mtime_ns
    if damage == "missing":
        path.unlink()
    else:
        half = len(whole) // 2
        flipped = whole[:half] + bytes([whole[half] ^ 255]) + whole[half + 1 :]
        path.write_bytes({"empty": b"", "cut": whole[:half], "flipped": flipped}[damage])
    write_demo(tmp_path, scenes=1)
    assert path.read_bytes() == whole
    assert other.stat().st_mtime_ns == untouched
    assert len(files(tmp_path)) == 2


def test_a_write_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Image.Image, fp: Path, **_: object) -> None:
        Path(fp).write_bytes(b"\x89PNG half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(RunError, match=r"cannot write .*scene-00\.png: disk full"):
        write_demo(tmp_path, scenes=1)
    assert files(tmp_path) == []
