"""MUAD, BDD100K and BRAVO, and folders that hold several known sets at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import found, touch

from oodray.cli import main
from oodray.datasets.images import encode_png
from oodray.datasets.layouts import get_layout, recognised
from oodray.datasets.remarks import remarks
from oodray.errors import DatasetError


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(pixels.astype(np.uint8)))


@pytest.mark.parametrize(
    ("folder", "label"),
    [
        ("ood/", "1_leftLabel"),
        ("test_ood/", "1"),
        ("test_OOD/", "1_leftImg8bit"),
        ("test_sets/test_OOD/", "1"),
        ("", "1_leftLabel"),
    ],
)
def test_muad_by_any_name(folder: str, label: str, tmp_path: Path) -> None:
    touch(tmp_path, f"{folder}leftImg8bit/1_leftImg8bit.png", f"{folder}leftLabel/{label}.png")
    [files] = found(get_layout("muad-ood"), tmp_path).values()
    assert files == (f"{folder}leftImg8bit/1_leftImg8bit.png", f"{folder}leftLabel/{label}.png")


def test_bdd100k_in_its_newer_form(tmp_path: Path) -> None:
    touch(tmp_path, "images/10k/val/a.jpg", "labels/sem_seg/masks/val/a.png")
    assert list(found(get_layout("bdd100k"), tmp_path).values()) == [
        ("images/10k/val/a.jpg", "labels/sem_seg/masks/val/a.png")
    ]


class TestBddAnomaly:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        for split, name, code in (("train", "a", 16), ("val", "b", 18), ("val", "c", 17), ("train", "d", 255)):
            touch(tmp_path, f"seg/images/{split}/{name}.jpg")
            write(tmp_path / f"seg/labels/{split}/{name}_train_id.png", np.array([[0, code]]))
        return tmp_path

    def test_images_with_ood_pixels_are_looked_for(self, root: Path) -> None:
        with remarks() as told:
            files = found(get_layout("bdd-anomaly"), root)
        assert list(files) == ["seg/images/train/a", "seg/images/val/c"]
        assert files["seg/images/val/c"][1] == "seg/labels/val/c_train_id.png"
        assert ["2 of 4 images hold a train or a motorcycle" in remark.text for remark in told] == [True]

    def test_bicycles_may_be_ood_too(self, root: Path) -> None:
        with remarks() as told:
            files = found(get_layout("bdd-anomaly-bicycle"), root)
        assert list(files) == ["seg/images/train/a", "seg/images/val/b", "seg/images/val/c"]
        assert ["3 of 4 images hold a train, a motorcycle or a bicycle" in remark.text for remark in told] == [True]

    @pytest.mark.parametrize("lines", [True, False])
    def test_a_list_names_them(self, root: Path, lines: bool) -> None:
        rows = [{"fpath_img": "seg/images/val/b.jpg", "fpath_segm": "x"}]
        text = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
        (root / "anom.odgt").write_text(text, "utf-8")
        assert list(found(get_layout("bdd-anomaly"), root)) == ["seg/images/val/b"]

    @pytest.mark.parametrize("text", ["{", "[1]", '[{"fpath_img": 3}]', '[{"fpath_img": "a.txt"}]'])
    def test_another_list_is_refused(self, root: Path, text: str) -> None:
        (root / "anom.odgt").write_text(text, "utf-8")
        with pytest.raises(DatasetError, match=r"anom.odgt (is no list of images|names files that are no images)"):
            get_layout("bdd-anomaly").find(root)


class TestBravo:
    def test_predictions_beside_the_images_are_none(self, tmp_path: Path) -> None:
        names = ("1.png", "1_mask.png", "1_gt.png", "1_conf.png", "1_pred.png", "2.png")
        touch(tmp_path, *(f"bravo_synobjs/baby/{name}" for name in names))
        files = found(get_layout("bravo-synobjs"), tmp_path)
        # Where there are masks, each image should have one.
        assert files == {
            f"bravo_synobjs/baby/{n}": (f"bravo_synobjs/baby/{n}.png", f"bravo_synobjs/baby/{n}_mask.png") for n in "12"
        }

    def test_hidden_masks_are_told(self, tmp_path: Path) -> None:
        touch(tmp_path, "lindau/lindau_000000_000019_leftImg8bit.png")
        with remarks() as told:
            [(_, label)] = found(get_layout("bravo-synrain"), tmp_path).values()
        assert label is None
        assert "nothing can be measured" in told[0].text


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """Sets as the courses of many universities hand them out: PNG codes 0 and 1 or 0 and 2."""
    for folder, suffix, code in (
        ("RoadAnomaly21", "png", 1),
        ("RoadObsticle21", "webp", 2),
        ("RoadAnomaly", "jpg", 2),
        ("fs_static", "jpg", 1),
        ("FS_LostFound_full", "png", 1),
    ):
        for number in range(2):
            (tmp_path / folder / "images").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 2)).save(tmp_path / folder / "images" / f"{number}.{suffix}")
            write(tmp_path / folder / "labels_masks" / f"{number}.png", np.array([[0, 0, 255, code]] * 2))
    touch(tmp_path, "something/images/a.png", "RoadAnomaly_old/a.txt")
    return tmp_path


def test_several_sets_are_recognised_by_their_folders(several: Path) -> None:
    assert {path.name: layout.name for path, layout in recognised(several)} == {
        "FS_LostFound_full": "fishyscapes-lost-and-found",
        "RoadAnomaly": "road-anomaly",
        "RoadAnomaly21": "road-anomaly-21",
        "RoadObsticle21": "road-obstacle-21",
        "fs_static": "fishyscapes-static",
    }
    assert [layout.name for _, layout in recognised(several / "RoadAnomaly21")] == ["road-anomaly-21"]


def test_issu_is_known_by_the_subsets_that_are_there(tmp_path: Path) -> None:
    root = tmp_path / "dataset_ISSUTrack"
    touch(root, "images/static_1.png", "labels_masks/static_1.png")
    assert [layout.name for _, layout in recognised(tmp_path)] == ["issu-static"]


def check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["oodray", "datasets", "check", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out + said.err


def test_they_are_checked_in_one_call(
    several: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = check(capsys, monkeypatch, str(several))
    assert code == 1  # there are 2 of 10 images
    assert said.count("with a label") == 5
    assert f"--dataset road-obstacle-21 --root {several}/RoadObsticle21" in said
    assert "OoD pixels have the code 2, as in a repacking; the original has 1" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["road-anomaly"], "no --root DIR was given"),
        (["road-anomali"], "neither the name of a dataset nor a folder; did you mean 'road-anomaly'"),
        (["{root}/something"], "no folder in .* is called like a known dataset"),
        (["{root}", "--label-codes", "1=id"], "--label-codes belongs to one dataset"),
    ],
)
def test_what_cannot_be_checked_is_said(
    arguments: list[str],
    message: str,
    several: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import re

    code, said = check(capsys, monkeypatch, *(text.format(root=several) for text in arguments))
    assert code == 2
    assert re.search(message, " ".join(said.split()))


def test_a_whole_validation_set_is_called_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        write(tmp_path / f"images/validation{number:04}.png", np.zeros((2, 2, 3)))
        write(tmp_path / f"labels_masks/validation{number:04}_labels_semantic.png", np.array([[0, 1], [0, 255]]))
    code, said = check(capsys, monkeypatch, "road-anomaly-21", "--root", str(tmp_path))
    assert code == 0
    assert "10, a part that is evaluated alone, of 110 published" in said
    assert "do not compare" not in said
