"""Roads with things on them, and the repackings in which many repositories hold the usual sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from trees import found, touch

from oodray.datasets.layouts import count_warning, get_layout
from oodray.datasets.remarks import remarks

CODES = np.array([0, 7, 18, 254, 255], np.uint8)


@pytest.mark.parametrize("subset", ["static", "temporal"])
def test_issu_takes_the_files_of_its_subset(subset: str, tmp_path: Path) -> None:
    for name in ("static_a_1", "temporal_b_2"):
        touch(tmp_path, f"images/{name}.png", f"labels_masks/{name}.png")
    for track in ("issu", "issu-obstacle"):
        [(image, label)] = found(get_layout(f"{track}-{subset}"), tmp_path).values()
        assert image.startswith(f"images/{subset}_")
        assert label == image.replace("images/", "labels_masks/")


def test_issu_reads_the_same_labels_by_track() -> None:
    assert get_layout("issu-static").label_codes.labels(CODES).tolist() == [0, 0, 0, 1, 255]
    assert get_layout("issu-obstacle-temporal").label_codes.labels(CODES).tolist() == [0, 255, 255, 1, 255]


def test_small_obstacle(tmp_path: Path) -> None:
    touch(tmp_path, "test/seq_1/image/00.png", "test/seq_1/labels/00.png", "test/seq_1/depth/00.png")
    layout = get_layout("small-obstacle")
    assert list(found(layout, tmp_path).values()) == [("test/seq_1/image/00.png", "test/seq_1/labels/00.png")]
    assert layout.label_codes.labels(np.array([0, 1, 2, 254, 255], np.uint8)).tolist() == [255, 0, 1, 1, 255]


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("road-anomaly-21", "png"),
        ("road-obstacle-21", "webp"),
        ("fishyscapes-static", "jpg"),
        ("fishyscapes-lost-and-found", "png"),
    ],
)
def test_the_repacking_of_courses_is_recognised_and_told(name: str, suffix: str, tmp_path: Path) -> None:
    touch(tmp_path, f"images/0.{suffix}", "labels_masks/0.png", f"images/1.{suffix}", "labels_masks/1.png")
    with remarks() as told:
        samples = found(get_layout(name), tmp_path)
    assert samples == {f"images/{n}": (f"images/{n}.{suffix}", f"labels_masks/{n}.png") for n in "01"}
    assert ["repacking" in remark.text for remark in told] == [True]


def test_the_published_names_come_first(tmp_path: Path) -> None:
    touch(tmp_path, "images/validation0000.jpg", "labels_masks/validation0000_labels_semantic.png")
    touch(tmp_path, "labels_masks/validation0000.png")
    [(_, label)] = found(get_layout("road-anomaly-21"), tmp_path).values()
    assert label == "labels_masks/validation0000_labels_semantic.png"


@pytest.mark.parametrize(("name", "images"), [("road-anomaly-21", 10), ("road-obstacle-21", 30)])
def test_a_whole_validation_set_is_no_odd_number(name: str, images: int) -> None:
    assert count_warning(get_layout(name), range(images)) is None
    assert count_warning(get_layout(name), range(images - 1)) is not None
