from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from oodray.datasets.check import CheckReport, check_dataset
from oodray.datasets.findings import (
    AbsentClass,
    BrokenSample,
    Finding,
    HiddenLabels,
    MixedRepackings,
    Noticed,
    Oddity,
    OddShare,
    OddSizes,
    OddStorage,
    Repacking,
    WrongCount,
)
from oodray.datasets.images import encode_png
from oodray.datasets.layouts import get_layout
from oodray.errors import DatasetError

ADE, FOLDER, ROAD = get_layout("ade-ood"), get_layout("folder"), get_layout("road-anomaly")


def add(root: Path, name: str, label: NDArray[np.uint8] | None, size: tuple[int, int] | None = None) -> None:
    """A black image and its label in the layout of ADE-OoD."""
    for folder in ("images", "annotations"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    shape = size or (label.shape if label is not None else (2, 2))
    (root / "images" / f"{name}.jpg").write_bytes(encode_png(np.zeros((*shape, 3), np.uint8)))
    if label is not None:
        (root / "annotations" / f"{name}_mask.png").write_bytes(encode_png(label))


def label(*rows: list[int]) -> NDArray[np.uint8]:
    return np.array(rows, np.uint8)


def findings(report: CheckReport) -> list[Finding]:
    """The findings without the one on the number of images."""
    assert isinstance(report.findings[0], WrongCount)
    assert "was published with 111 images" in report.findings[0].warning
    return report.findings[1:]


def test_a_sound_dataset(tmp_path: Path) -> None:
    add(tmp_path, "a", label([0, 1, 255], [7, 1, 0]))
    add(tmp_path, "b", label([0, 0], [3, 0], [0, 255]))
    add(tmp_path, "c", label([0, 0, 0], [1, 0, 0]))
    report = check_dataset(ADE, tmp_path)
    assert (report.title, report.root) == ("ADE-OoD", tmp_path)
    assert (report.images, report.published, report.labelled) == (3, 111, 3)
    assert report.sizes == {(2, 3): 2, (3, 2): 1}
    assert report.codes == {0: 11, 1: 3, 3: 1, 7: 1, 255: 2}
    assert report.labels == {0: 13, 1: 3, 255: 2}
    assert report.share(1) == pytest.approx(3 / 18)
    assert report.without_ood == ["images/b"]
    assert findings(report) == []
    assert not report.ok  # 3 images of 111


def test_images_without_labels(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_png(label([0])))
    report = check_dataset(FOLDER, tmp_path)
    assert report.ok
    assert report.labelled == 0
    assert math.isnan(report.share(1))
    assert (report.sizes, report.labels, report.codes, report.without_ood) == ({(1, 1): 1}, {}, {}, [])


def test_what_is_wrong_with_a_sample_is_found(tmp_path: Path) -> None:
    good = label([0, 1])
    add(tmp_path, "good", good)
    add(tmp_path, "label missing", None)
    add(tmp_path, "label broken", good)
    (tmp_path / "annotations" / "label broken_mask.png").write_bytes(b"")
    add(tmp_path, "label larger", label([1, 1, 1], [1, 1, 1]), size=(2, 2))
    add(tmp_path, "image broken", label([1, 1]))
    (tmp_path / "images" / "image broken.jpg").write_bytes(b"<html>")
    report = check_dataset(ADE, tmp_path)
    expected = [
        BrokenSample("images/image broken", "the image file is a web page"),
        BrokenSample("images/label broken", "the label file is empty"),
        BrokenSample("images/label larger", "the label is 3x2 but the image 2x2"),
        BrokenSample("images/label missing", "cannot read "),
    ]
    for finding, start in zip(findings(report), expected, strict=True):
        assert isinstance(finding, BrokenSample)
        assert finding.image_id == start.image_id
        assert finding.reason.startswith(start.reason)
    assert report.labelled == 5
    assert report.labels == {0: 1, 1: 1}  # of the good one alone
    assert report.codes == {0: 1, 1: 9}
    assert sum(report.sizes.values()) == 4


def test_image_and_label_of_one_sample_can_both_be_wrong(tmp_path: Path) -> None:
    add(tmp_path, "a", label([0]))
    (tmp_path / "images" / "a.jpg").write_bytes(b"")
    (tmp_path / "annotations" / "a_mask.png").write_bytes(b"")
    assert len(findings(check_dataset(ADE, tmp_path))) == 2


def test_unknown_codes_are_found_and_counted(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    (frames / "0.labels").mkdir(parents=True)
    (frames / "0.jpg").write_bytes(encode_png(np.zeros((1, 4, 3), np.uint8)))
    (frames / "0.labels" / "labels_semantic.png").write_bytes(encode_png(label([0, 3, 3, 2])))
    report = check_dataset(ROAD, tmp_path)
    finding = report.findings[1]
    assert isinstance(finding, BrokenSample)
    assert finding.image_id == "frames/0"
    assert finding.reason.startswith("the label holds unknown codes: 3;")
    assert report.codes == {0: 1, 3: 2, 2: 1}
    assert report.labels == {}


@pytest.mark.parametrize(
    ("pixels", "absent"),
    [([0, 7], [1]), ([1, 255], [0]), ([255, 255], [0, 1])],
)
def test_a_dataset_needs_both_classes(pixels: list[int], absent: list[int], tmp_path: Path) -> None:
    add(tmp_path, "a", label(pixels))
    assert findings(check_dataset(ADE, tmp_path)) == [AbsentClass(missing) for missing in absent]


def test_every_broken_sample_is_a_finding(tmp_path: Path) -> None:
    for index in range(25):
        add(tmp_path, f"{index:02d}", None if index % 2 else label([0] * (index + 1)))
    *broken, absent = findings(check_dataset(ADE, tmp_path))
    assert [finding.image_id for finding in broken if isinstance(finding, BrokenSample)] == [
        f"images/{index:02d}" for index in range(1, 25, 2)
    ]
    assert absent == AbsentClass(1)


def test_an_absent_dataset_is_a_dataset_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist"):
        check_dataset(ADE, tmp_path / "absent")


def test_the_real_road_anomaly(data: Path) -> None:
    root = data / "RoadAnomaly_jpg"
    if not root.is_dir():
        pytest.skip(f"no RoadAnomaly at {root}")
    report = check_dataset(ROAD, root)
    assert report.ok, report.findings
    assert (report.images, report.labelled) == (60, 60)
    assert report.sizes == {(720, 1280): 60}
    assert set(report.codes) == {0, 2}
    assert report.share(1) == pytest.approx(0.0985, abs=1e-4)
    assert report.without_ood == []
    assert report.oddities == []


def test_the_real_camvid(data: Path) -> None:
    root = data / "camvid"
    if not root.is_dir():
        pytest.skip(f"no CamVid at {root}")
    report = check_dataset(get_layout("camvid"), root)
    assert report.ok, report.findings
    assert report.oddities == []
    assert (report.images, report.labelled, report.sizes) == (101, 101, {(360, 480): 101})
    assert set(report.codes) == set(range(12))
    assert report.share(1) == 0


class TestOddities:
    """What is no mistake, but worth knowing."""

    def test_hidden_labels(self, tmp_path: Path) -> None:
        folders = [tmp_path / "images", tmp_path / "labels_masks"]
        for name, codes in (("validation0000", [0, 1]), ("test0", [255, 255]), ("test1", None)):
            for folder in folders:
                folder.mkdir(exist_ok=True)
            (folders[0] / f"{name}.jpg").write_bytes(encode_png(np.zeros((1, 2, 3), np.uint8)))
            if codes:
                (folders[1] / f"{name}_labels_semantic.png").write_bytes(encode_png(label(codes)))
        report = check_dataset(get_layout("road-anomaly-21"), tmp_path)
        assert report.oddities[-1:] == [HiddenLabels(2)]
        assert report.without_ood == []
        [finding] = report.findings
        assert isinstance(finding, WrongCount)
        assert "was published with 110 images" in finding.warning

    @pytest.mark.parametrize(
        ("folders", "codes", "expected"),
        [
            (("original", "labels"), [[0, 1]], [Repacking(1, 2)]),
            (("images", "labels_masks"), [[0, 2]], []),
            (("images", "labels_masks"), [[0, 2], [0, 1]], [MixedRepackings((1, 2))]),
        ],
    )
    def test_codes_of_repackings(
        self, folders: tuple[str, str], codes: list[list[int]], expected: list[Oddity], tmp_path: Path
    ) -> None:
        for folder in folders:
            (tmp_path / folder).mkdir()
        for index, row in enumerate(codes):
            (tmp_path / folders[0] / f"{index}.jpg").write_bytes(encode_png(np.zeros((1, 2, 3), np.uint8)))
            (tmp_path / folders[1] / f"{index}.png").write_bytes(encode_png(label(row)))
        report = check_dataset(ROAD, tmp_path)
        told, *rest = report.oddities
        assert isinstance(told, Noticed)
        assert "a repacking" in told.text
        assert rest == [OddSizes(len(codes), (720, 1280)), *expected, OddShare(50.0, 9.85)]

    def test_how_images_are_stored(self, tmp_path: Path) -> None:
        rgb, rgba = Image.new("RGB", (2, 2)), Image.new("RGBA", (2, 2))
        rgb.save(tmp_path / "a.webp")
        rgba.save(tmp_path / "b.png")
        gamma = PngImagePlugin.PngInfo()
        gamma.add(b"gAMA", (45455).to_bytes(4, "big"))
        rgb.save(tmp_path / "c.png", pnginfo=gamma)
        rgb.save(tmp_path / "d.jpg")
        report = check_dataset(FOLDER, tmp_path)
        assert report.ok
        assert report.oddities == [
            OddStorage(1, "WebP, which older tools cannot read"),
            OddStorage(1, "a gamma chunk, which some tools apply; oodray takes the pixels as they are stored"),
            OddStorage(1, "an alpha channel, which is dropped"),
        ]
