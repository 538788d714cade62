"""Score files as methods and evaluators name them."""

from __future__ import annotations

from pathlib import Path

import pytest

from oodray.datasets.score_files import find_score_files, method_name
from oodray.errors import DatasetError

FRAME = "04_Maurener_Weg_8_000000_000030"
IMAGE = f"leftImg8bit/train/04_Maurener_Weg_8/{FRAME}_leftImg8bit"
LABEL = f"/fs/labels/0003_{FRAME}_labels.png"


@pytest.mark.parametrize(
    "name",
    [
        *("0003_anomaly.npy", "3_anomaly.npy", f"0003_{FRAME}_anomaly.npy", f"0003_{FRAME}_rgb_anomaly.npy"),
        *(f"{FRAME}.hdf5", f"{FRAME}_leftImg8bit.npz", f"deep/{FRAME}.mat"),
    ],
)
def test_fishyscapes_and_segment_me_if_you_can(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert find_score_files(tmp_path, [IMAGE], {IMAGE: LABEL}) == {IMAGE: path}


def test_a_number_alone_is_that_of_the_label(tmp_path: Path) -> None:
    (tmp_path / "0004_anomaly.npy").touch()
    with pytest.raises(DatasetError, match=rf"expected is {FRAME}_leftImg8bit\.npy or 3_anomaly\.npy, for example"):
        find_score_files(tmp_path, [IMAGE], {IMAGE: LABEL})


def test_numbers_without_zeros_name_one_label_each(tmp_path: Path) -> None:
    labels: dict[str, str | None] = {f"{number}": f"/fs/labels/{number:04}_a{number}_labels.png" for number in (1, 10)}
    images = {f"leftImg8bit/a{number}": uri for number, uri in labels.items()}
    touched(tmp_path, "1_anomaly.npy", "10_anomaly.npy", "1_segmentation.npy", "10_segmentation.npy")
    found = find_score_files(tmp_path, images, images)
    assert {image_id: path.name for image_id, path in found.items()} == {
        "leftImg8bit/a1": "1_anomaly.npy",
        "leftImg8bit/a10": "10_anomaly.npy",
    }


def test_several_methods_are_offered(tmp_path: Path) -> None:
    for method in ("RbA", "PEBAL"):
        (tmp_path / method / "val").mkdir(parents=True)
        (tmp_path / method / "val" / "00.npy").touch()
    with pytest.raises(DatasetError, match=r"several methods: PEBAL, RbA; import them one by one, .*/PEBAL to begin"):
        find_score_files(tmp_path, ["images/00"])
    assert find_score_files(tmp_path / "RbA", ["images/00"]) == {"images/00": tmp_path / "RbA" / "val" / "00.npy"}


def touched(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_the_map_of_one_image_is_not_that_of_another_of_the_same_name(tmp_path: Path) -> None:
    touched(tmp_path, "t5/1.npy", "t7/1.npy")
    assert find_score_files(tmp_path, ["t5/1", "t6/1"]) == {"t5/1": tmp_path / "t5/1.npy"}


def test_a_name_of_two_images_is_refused(tmp_path: Path) -> None:
    touched(tmp_path, "1.npy")
    with pytest.raises(DatasetError, match=r"1\.npy may be of a/1 as well as of b/1: .*a/1\.npy or b/1\.npy"):
        find_score_files(tmp_path, ["a/1", "b/1"])


def test_a_file_that_two_images_would_get_is_refused(tmp_path: Path) -> None:
    touched(tmp_path, "x/a_score.npy")
    with pytest.raises(DatasetError, match=r"a_score\.npy may be of a as well as of a_score"):
        find_score_files(tmp_path, ["a", "a_score"])


@pytest.mark.parametrize("above", ["", "mine/val/"])
def test_folders_tell_images_of_one_name_apart(above: str, tmp_path: Path) -> None:
    ids = ["img/t5/1_leftImg8bit", "img/t6/1_leftImg8bit"]
    touched(tmp_path, f"{above}t5/1.npy", f"{above}t6/1_leftImg8bit_conf.png")
    found = find_score_files(tmp_path, ids)
    assert [found[image_id].parent.name for image_id in ids] == ["t5", "t6"]


def test_what_is_called_as_a_whole_id_is_of_that_image_alone(tmp_path: Path) -> None:
    touched(tmp_path, "1.npy", "a/1.npy")
    assert find_score_files(tmp_path, ["1", "a/1"]) == {"1": tmp_path / "1.npy", "a/1": tmp_path / "a/1.npy"}


@pytest.mark.parametrize(
    ("folder", "dataset", "name"),
    [
        ("/out/anomaly_p/RbA/AnomalyTrack-validation", "road-anomaly-21", "RbA"),
        ("/out/SML/FishyscapesLAF", "fishyscapes-lost-and-found", "SML"),
        ("/out/SML/LostAndFound-testNoKnown", "lost-and-found", "SML"),
        ("/out/road_anomaly/mine", "road-anomaly", "mine"),
        ("/out/mine/scores", "ade-ood", "mine"),
        ("/scores", "ade-ood", "scores"),
        ("/run-maps/mine.v2.tar.xz", "ade-ood", "mine.v2"),
        ("/run-maps/mine.tgz", "ade-ood", "mine"),
    ],
)
def test_the_name_of_the_score_is_that_of_the_method(folder: str, dataset: str, name: str) -> None:
    assert method_name(Path(folder), dataset) == name
