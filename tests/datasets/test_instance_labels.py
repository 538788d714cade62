"""Instance images: those beside labels, those of a folder, and those that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oodray.datasets.instance_labels import InstanceLabels
from oodray.errors import DatasetError, ImageError

IDS = np.array([[0, 26001], [26002, 26002]], np.uint16)


def written(path: Path, ids: np.ndarray = IDS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)
    return path


@pytest.mark.parametrize(
    ("label", "beside"),
    [
        ("frames/7.labels/labels_semantic.png", "frames/7.labels/labels_instance.png"),
        ("gt/a_000_gtCoarse_labelTrainIds.png", "gt/a_000_gtCoarse_instanceIds.png"),
    ],
)
def test_what_lies_beside_a_label_is_taken(tmp_path: Path, label: str, beside: str) -> None:
    uri = str(tmp_path / label)
    assert InstanceLabels().ids("any", uri, (2, 2)) is None
    written(tmp_path / beside)
    found = InstanceLabels().ids("any", uri, (2, 2))
    assert found is not None
    assert found.tolist() == IDS.tolist()


def test_a_label_of_another_name_has_none(tmp_path: Path) -> None:
    written(tmp_path / "labels_instance.png")
    assert InstanceLabels().ids("a", str(tmp_path / "a.png"), (2, 2)) is None
    assert InstanceLabels().ids("a", "/data/shard.tar#a.png", (2, 2)) is None


@pytest.mark.parametrize(
    ("image_id", "label", "name"),
    [
        ("images/cow0001", "labels_masks/cow0001_labels_semantic.png", "cow0001_instanceIds.png"),
        (
            "test/02_S/02_S_000_140_leftImg8bit",
            "labels/0003_02_S_000_140_labels.png",
            "test/02_S/02_S_000_140_gtCoarse_instanceIds.png",
        ),
    ],
)
def test_a_folder_of_oodis_is_paired_by_frame(tmp_path: Path, image_id: str, label: str, name: str) -> None:
    written(tmp_path / "of" / name)
    labels = {image_id: f"/elsewhere/{label}", "images/other": "/elsewhere/other.png"}
    ids = InstanceLabels.below(tmp_path / "of", labels)
    found = ids.ids(image_id, labels[image_id], (2, 2))
    assert found is not None
    assert found.tolist() == IDS.tolist()
    assert ids.ids("images/other", "/elsewhere/other.png", (2, 2)) is None


def test_a_folder_without_any_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "cow_labels.png")
    with pytest.raises(DatasetError, match=r"holds no instance images: they are called NAME_instanceIds\.png"):
        InstanceLabels.below(tmp_path, {"cow": None})


def test_another_size_and_a_broken_file_are_errors_that_name_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "a_instanceIds.png")
    ids = InstanceLabels.below(tmp_path, {"a": "/a.png"})
    with pytest.raises(ImageError, match=r"a_instanceIds.png is 2x2, its label 3x2"):
        ids.ids("a", "/a.png", (2, 3))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ImageError, match=r"the instance image .*a_instanceIds.png of a: "):
        ids.ids("a", "/a.png", (2, 2))


@pytest.mark.parametrize("name", ["nowhere", "a_file.png"])
def test_a_folder_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    written(tmp_path / "a_file.png")
    with pytest.raises(DatasetError, match=rf"cannot read the instance images in .*{name}: "):
        InstanceLabels.below(tmp_path / name, {"a_file": None})


def below(folder: Path, *image_ids: str) -> InstanceLabels:
    return InstanceLabels.below(folder, {image_id: f"/elsewhere/{image_id}.png" for image_id in image_ids})


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for number, folder in enumerate(("a", "b"), 1):
        written(tmp_path / folder / "001_instanceIds.png", IDS * np.uint16(number))
    ids = below(tmp_path, "a/001", "test/b/001")
    for image_id, expected in (("a/001", IDS), ("test/b/001", 2 * IDS)):
        found = ids.ids(image_id, "/elsewhere/001.png", (2, 2))
        assert found is not None
        assert found.tolist() == expected.tolist()
    with pytest.raises(
        DatasetError, match=r"two instance images have the name of 001: .*a/001_inst.* and .*b/001_inst"
    ):
        below(tmp_path, "001")


def test_a_file_is_not_of_the_image_of_another_folder(tmp_path: Path) -> None:
    written(tmp_path / "a/001_instanceIds.png")
    ids = below(tmp_path, "a/001", "b/001")
    assert ids.ids("a/001", "/elsewhere/001.png", (2, 2)) is not None
    assert ids.ids("b/001", "/elsewhere/001.png", (2, 2)) is None


def test_a_file_that_may_be_of_two_images_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "001_instanceIds.png")
    message = f"{path} may be of a/001 as well as of b/001: .* a/001_instanceIds.png or b/001_instanceIds.png"
    with pytest.raises(DatasetError, match=message):
        below(tmp_path, "a/001", "b/001")


def test_files_of_other_images_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "cow_instanceIds.png")
    with pytest.raises(DatasetError, match=r"expected is 001_instanceIds\.png, for example; there are cow_instanceIds"):
        below(tmp_path, "a/001")
