from __future__ import annotations

import json
from pathlib import Path

import pytest
from trees import found, touch

from oodray.datasets import scenes
from oodray.datasets.layouts import LAYOUTS, count_warning, get_layout
from oodray.errors import DatasetError

ADE, FOLDER, ROAD = get_layout("ade-ood"), get_layout("folder"), get_layout("road-anomaly")


# --- one layout each


def test_road_anomaly(tmp_path: Path) -> None:
    labels = [f"frames/{name}.labels/labels_semantic.png" for name in ("000", "a.b", "dog")]
    touch(tmp_path, "frames/000.jpg", "frames/a.b.jpg", "frames/dog.webp", "frames/unlisted.jpg", *labels)
    (tmp_path / "frame_list.json").write_text(json.dumps(["dog.webp", "a.b.jpg", "000.jpg"]))
    assert found(ROAD, tmp_path) == {
        "frames/000": ("frames/000.jpg", labels[0]),
        "frames/a.b": ("frames/a.b.jpg", labels[1]),
        "frames/dog": ("frames/dog.webp", labels[2]),
    }


def test_road_anomaly_without_list_takes_all_frames(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "frames/b.webp",
        "frames/a.jpg",
        "frames/a.labels/labels_semantic.png",
        "frames/a.labels/x.jpg",
    )
    assert list(found(ROAD, tmp_path)) == ["frames/a", "frames/b"]


def test_a_listed_frame_that_is_absent_stays(tmp_path: Path) -> None:
    touch(tmp_path, "frames/a.jpg", "frames/a.labels/labels_semantic.png")
    (tmp_path / "frame_list.json").write_text('["a.jpg", "b.jpg"]')
    assert list(found(ROAD, tmp_path)) == ["frames/a", "frames/b"]
    (tmp_path / "frame_list.json").write_text('["c.jpg", "b.jpg"]')
    with pytest.raises(DatasetError, match=r"none of the 2 images is there, the first being .*frames/c\.jpg"):
        ROAD.find(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[", "is not valid JSON"),
        (b"\xff\xfe\xfd", "is not valid JSON"),
        (b"{}", "is not a list of names of image files"),
        (b'"a.jpg"', "is not a list of names"),
        (b'["a.jpg", 3]', "is not a list of names"),
        (b'["a.jpg", "../a.jpg"]', "is not a list of names"),
        (b'["/etc/a.jpg"]', "is not a list of names"),
        (b'["..", ""]', "is not a list of names"),
        (b'["a"]', "is not a list of names"),
        (b"[]", "no images below"),
        (b'["a.jpg", "a.jpg"]', "two images have the name 'frames/a'"),
        (b'["a.jpg", "\\u0000.jpg"]', None),
        (b'["a.jpg", "\\ud800.jpg"]', "is not valid UTF-8"),
    ],
)
def test_frame_lists_of_any_content(text: bytes, message: str | None, tmp_path: Path) -> None:
    touch(tmp_path, "frames/a.jpg", "frames/a.labels/labels_semantic.png")
    (tmp_path / "frame_list.json").write_bytes(text)
    if message is None:
        assert len(ROAD.find(tmp_path)) == 2  # the name of no file: reading it fails later, as one image
        return
    with pytest.raises(DatasetError, match=message):
        ROAD.find(tmp_path)


def test_ade_ood(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "images/x_1.jpg",
        "images/y.jpg",
        "annotations/x_1_mask.png",
        "annotations/y_mask.png",
        "README.txt",
    )
    assert found(ADE, tmp_path) == {
        "images/x_1": ("images/x_1.jpg", "annotations/x_1_mask.png"),
        "images/y": ("images/y.jpg", "annotations/y_mask.png"),
    }


def test_a_missing_label_keeps_its_path(tmp_path: Path) -> None:
    touch(tmp_path, "images/x.jpg", "images/y.jpg", "annotations/x_mask.png")
    assert found(ADE, tmp_path)["images/y"] == ("images/y.jpg", "annotations/y_mask.png")


def test_labels_that_are_all_missing_are_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "images/x.jpg", "images/y.jpg", "annotations/x.png")
    with pytest.raises(DatasetError, match=r"none of the 2 label files is there, the first being .*x_mask\.png"):
        ADE.find(tmp_path)


def test_demo(tmp_path: Path) -> None:
    touch(tmp_path, "images/scene-00.png", "images/scene-01.png", "labels/scene-00.png")
    assert found(get_layout("demo"), tmp_path) == {
        "images/scene-00": ("images/scene-00.png", "labels/scene-00.png"),
        "images/scene-01": ("images/scene-01.png", "labels/scene-01.png"),
    }


def test_demo_counts_the_scenes_that_are_drawn() -> None:
    assert get_layout("demo").images == scenes.DEMO_SCENES


def test_preparing_draws_the_demo_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "write_demo", lambda root: touch(root, "images/a.png", "labels/a.png"))
    for layout in LAYOUTS.values():
        layout.prepare(tmp_path / layout.name)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert len(get_layout("demo").find(tmp_path / "demo")) == 1


def test_a_demo_that_cannot_be_written_is_a_dataset_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(root: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scenes, "write_demo", fail)
    with pytest.raises(DatasetError, match=f"cannot write the demo scenes to {tmp_path}: No space left"):
        get_layout("demo").prepare(tmp_path)


# --- folder


def test_folder_takes_all_images_below(tmp_path: Path) -> None:
    images = ["a.jpg", "b/c.JPEG", "b/d/e.Png", "f.webp", "folder.png/j.png", "g.bmp", "h.tif", "i.TIFF"]
    touch(tmp_path, *images, "notes.txt", "video.mp4", "jpg", "masks.npz")
    assert [uri for uri, _ in found(FOLDER, tmp_path).values()] == images


def test_folder_ignores_what_is_hidden(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "._a.png", ".cache/b.png", "c/.d/e.png", ".jpg")
    assert list(found(FOLDER, tmp_path)) == ["a"]


def test_folder_in_a_hidden_folder(tmp_path: Path) -> None:
    assert list(found(FOLDER, touch(tmp_path, ".data/a.png") / ".data")) == ["a"]


@pytest.mark.parametrize("other", ["images", "labels"])
def test_folder_with_images_or_labels_alone_has_no_labels(other: str, tmp_path: Path) -> None:
    touch(tmp_path, f"{other}/a.png", "b.png")
    assert found(FOLDER, tmp_path) == {f"{other}/a": (f"{other}/a.png", None), "b": ("b.png", None)}


def test_folder_with_labels(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/b/c.d.webp", "images/e.png", "other/f.png")
    touch(tmp_path, "labels/a.png", "labels/b/c.d.png", "labels/e.jpg")
    assert found(FOLDER, tmp_path) == {
        "images/a": ("images/a.jpg", "labels/a.png"),
        "images/b/c.d": ("images/b/c.d.webp", "labels/b/c.d.png"),
        "images/e": ("images/e.png", None),
    }


def test_folder_with_labels_of_no_image_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "labels/a.txt")
    with pytest.raises(DatasetError, match=rf"expected being .*labels/a\.png; .* give --root {tmp_path}/images"):
        FOLDER.find(tmp_path)
    assert list(found(FOLDER, tmp_path / "images")) == ["a"]


# --- the registry


def test_names_are_the_keys() -> None:
    assert list(LAYOUTS) == ["demo", "road-anomaly", "ade-ood", "folder"]
    assert all(get_layout(name).name == name for name in LAYOUTS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("RoadAnomaly", r"'RoadAnomaly' \(did you mean road-anomaly\?\); known are"),
        ("ade", "did you mean ade-ood"),
        ("xyz", r"'xyz'; known are demo, "),
    ],
)
def test_an_unknown_name_gets_a_suggestion(name: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        get_layout(name)


def test_count_warning() -> None:
    assert count_warning(ROAD, range(60)) is None
    assert count_warning(FOLDER, range(3)) is None
    for count in (59, 61):
        assert f"60 images, found: {count}" in (count_warning(ROAD, range(count)) or "")
