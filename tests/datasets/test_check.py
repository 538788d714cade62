from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from oodray.datasets.check import CheckReport, check_dataset
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


def findings(report: CheckReport) -> list[str]:
    """The findings without the one on the number of images."""
    assert "was published with 111 images" in report.findings[0]
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


def test_lines(tmp_path: Path) -> None:
    add(tmp_path, "a", label([0, 1, 255], [7, 1, 0]))
    add(tmp_path, "b", label([0, 0], [3, 0], [0, 255]))
    add(tmp_path, "c", label([0, 0, 0], [1, 0, 0]))
    assert check_dataset(ADE, tmp_path).lines() == [
        f"ADE-OoD in {tmp_path}",
        "images       3 of 111 published, 3 with a label",
        "sizes        3x2: 2, 2x3: 1",
        "labels       in-distribution 72.22%, OoD 16.67%, ignore 11.11%",
        "codes        0: 11 px, 1: 3 px, 3: 1 px, 7: 1 px, 255: 2 px",
        "without OoD  images/b",
        "findings     1",
        "  ADE-OoD was published with 111 images, found: 3; the numbers do not compare with published ones",
    ]


def test_images_without_labels(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_png(label([0])))
    report = check_dataset(FOLDER, tmp_path)
    assert report.ok
    assert report.labelled == 0
    assert math.isnan(report.share(1))
    assert report.lines()[1:] == [
        "images       1, 0 with a label",
        "sizes        1x1: 1",
        "labels       none",
        "codes        none",
        "without OoD  none",
        "findings     none",
    ]


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
        "images/image broken: the image file is a web page",
        "images/label broken: the label file is empty",
        "images/label larger: the label is 3x2 but the image 2x2",
        "images/label missing: cannot read ",
    ]
    for finding, start in zip(findings(report), expected, strict=True):
        assert finding.startswith(start)
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
    assert "frames/0: the label holds unknown codes: 3;" in report.findings[1]
    assert report.codes == {0: 1, 3: 2, 2: 1}
    assert report.labels == {}


@pytest.mark.parametrize(
    ("pixels", "absent"),
    [([0, 7], ["OoD"]), ([1, 255], ["in-distribution"]), ([255, 255], ["in-distribution", "OoD"])],
)
def test_a_dataset_needs_both_classes(pixels: list[int], absent: list[str], tmp_path: Path) -> None:
    add(tmp_path, "a", label(pixels))
    expected = [f"no labelled pixel is {name}: AP and FPR95 are undefined" for name in absent]
    assert findings(check_dataset(ADE, tmp_path)) == expected


def test_long_lists_are_shortened(tmp_path: Path) -> None:
    for index in range(25):
        add(tmp_path, f"{index:02d}", None if index % 2 else label([0] * (index + 1)))
    report = check_dataset(ADE, tmp_path)
    assert len(report.findings) == 14
    report = CheckReport(
        "T", tmp_path, 30, None, 30, {}, {}, {0: 1}, list("abcdefghijklmnopqrstuvwxyz"), ["x"] * 22, []
    )
    lines = report.lines()
    assert lines[5].endswith("s, t, and 6 more")
    assert lines[6:] == ["findings     22", *["  x"] * 20, "  and 2 more"]


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
        assert report.oddities == [
            "2 images have a hidden label, absent or all ignored: they do not count in any metric"
        ]
        assert report.without_ood == []
        assert len(report.findings) == 1
        assert "was published with 110 images" in report.findings[0]
        assert report.lines()[-1] == f"odd          {report.oddities[0]}"

    @pytest.mark.parametrize(
        ("folders", "codes", "expected"),
        [
            (("original", "labels"), [[0, 1]], "OoD pixels have the code 1, as in a repacking; the original has 2"),
            (("images", "labels_masks"), [[0, 2]], None),
            (("images", "labels_masks"), [[0, 2], [0, 1]], "the codes 1, 2: labels of two repackings are mixed"),
        ],
    )
    def test_codes_of_repackings(
        self, folders: tuple[str, str], codes: list[list[int]], expected: str | None, tmp_path: Path
    ) -> None:
        for folder in folders:
            (tmp_path / folder).mkdir()
        for index, row in enumerate(codes):
            (tmp_path / folders[0] / f"{index}.jpg").write_bytes(encode_png(np.zeros((1, 2, 3), np.uint8)))
            (tmp_path / folders[1] / f"{index}.png").write_bytes(encode_png(label(row)))
        report = check_dataset(ROAD, tmp_path)
        about_codes = [oddity for oddity in report.oddities if "code" in oddity]
        assert len(about_codes) == (expected is not None)
        assert all(expected and oddity.endswith(expected) for oddity in about_codes)
        assert f"{len(codes)} images have another size than the published 1280x720" in report.oddities
        assert "50.00 % of the pixels that count are OoD; of the original files 9.85 % are" in report.oddities

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
            "1 images: WebP, which older tools cannot read",
            "1 images: a gamma chunk, which some tools apply; oodray takes the pixels as they are stored",
            "1 images: an alpha channel, which is dropped",
        ]
