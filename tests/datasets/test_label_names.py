"""Which files are labels of which images; `datasets/test_own.py` tries the same on a disk."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

import pytest

from oodray.datasets.label_names import Pairing, pair_off


def paired(*names: str) -> Pairing:
    return pair_off(map(PurePosixPath, names))


def labels(pairing: Pairing) -> dict[str, str | None]:
    return {str(image): None if label is None else str(label) for image, label in pairing.labels.items()}


@pytest.mark.parametrize(
    "label",
    [
        *("im.png", "im.PNG", "im.Tif", "im.bmp", "im_mask.png", "im_MASK.PNG", "im_gt.png", "IM.png"),
        *("im_gtFine_labelTrainIds.png", "im_labels_semantic.png", "im_labels.tiff"),
    ],
)
@pytest.mark.parametrize(
    ("images", "folder"),
    [
        *(
            ("images/", "labels/"),
            ("Images/", "Labels/"),
            ("img_dir/a/", "ann_dir/a/"),
            ("", "masks/"),
            ("a/", "a/gt/"),
        ),
        *(("train/images/b/", "train/annotations/b/"), ("JPEGImages/", "mask/")),
    ],
)
def test_labels_in_folders_and_under_names_of_their_own(images: str, folder: str, label: str) -> None:
    assert labels(paired(f"{images}im.jpg", folder + label)) == {f"{images}im.jpg": folder + label}


def test_labels_of_a_camera_image() -> None:
    image, label = "leftImg8bit/val/bonn/bonn_1_leftImg8bit.png", "gtFine/val/bonn/bonn_1_gtFine_labelTrainIds.png"
    others = [f"gtFine/val/bonn/bonn_1_gtFine_{kind}" for kind in ("color.png", "instanceIds.png", "polygons.json")]
    found = paired(image, label, *others)
    assert labels(found) == {image: label}
    assert found.unmatched == []  # they are about an image that has its label


def test_labels_beside_their_images() -> None:
    found = paired("im0.jpg", "im0_mask.png", "sub/im1.png", "sub/im1_labels.PNG", "tooth_mask.jpg", "face_mask.png")
    assert labels(found) == {
        "im0.jpg": "im0_mask.png",
        "sub/im1.png": "sub/im1_labels.PNG",
        "tooth_mask.jpg": None,
        "face_mask.png": None,  # of a face that is not there: an image
    }


def test_the_plainest_name_wins() -> None:
    names = ["labels/a_mask.png", "labels/a.tif", "labels/a.png", "labels/a_gt.png"]
    assert labels(paired("images/a.jpg", *names)) == {"images/a.jpg": "labels/a.png"}
    assert labels(paired("images/a.jpg", *names[:2])) == {"images/a.jpg": "labels/a.tif"}
    assert labels(paired("images/a.jpg", names[3], names[0])) == {"images/a.jpg": "labels/a_mask.png"}


def test_an_image_may_itself_be_called_like_a_label() -> None:
    found = paired("images/a.jpg", "images/a_mask.jpg", "labels/a.png", "labels/a_mask.png")
    assert labels(found) == {"images/a.jpg": "labels/a.png", "images/a_mask.jpg": "labels/a_mask.png"}


def test_an_image_that_has_a_label_needs_none_beside_it() -> None:
    found = paired("images/a.jpg", "images/a_mask.png", "labels/a.png", "labels/a_mask.png", "images/b.jpg")
    assert labels(found) == {
        "images/a.jpg": "labels/a.png",
        "images/a_mask.png": "labels/a_mask.png",
        "images/b.jpg": None,
    }
    found = paired("images/a.jpg", "images/a_mask.png", "labels/a.png")
    assert labels(found) == {"images/a.jpg": "labels/a.png", "images/a_mask.png": None}
    assert found.beside == []


def test_images_whose_names_begin_alike_are_told_apart() -> None:
    found = paired("images/im1.jpg", "images/im10.jpg", "images/im1_0.jpg", "labels/im10.png", "labels/im1_0_gt.png")
    assert labels(found)["images/im1.jpg"] is None
    assert labels(found)["images/im10.jpg"] == "labels/im10.png"
    assert labels(found)["images/im1_0.jpg"] == "labels/im1_0_gt.png"


def test_names_that_differ_in_case_alone_go_by_the_letter() -> None:
    found = paired("images/a.jpg", "images/A.jpg", "labels/a.png", "labels/A.png")
    assert labels(found) == {"images/a.jpg": "labels/a.png", "images/A.jpg": "labels/A.png"}
    assert paired("images/ab.jpg", "images/AB.jpg", "labels/Ab.png", "labels/ab.png").unmatched == [
        PurePosixPath("labels/Ab.png")
    ]


def test_an_umlaut_may_be_written_in_two_ways() -> None:
    composed, apart = (unicodedata.normalize(form, "stra\u00dfe-\u00fc") for form in ("NFC", "NFD"))
    assert composed != apart
    assert labels(paired(f"images/{apart}.jpg", f"labels/{composed}.png")) == {
        f"images/{apart}.jpg": f"labels/{composed}.png"
    }


def test_what_is_left_in_a_folder_of_labels_is_told() -> None:
    found = paired(
        *("images/a.jpg", "images/b.jpg", "images/c.jpg", "labels/a.png", "labels/a_color.png"),
        *("labels/z.png", "labels/b.npy", "labels/b.json", "labels/c.jpg", "labels/classes.txt", "labels/sub/a.png"),
    )
    assert labels(found) == {"images/a.jpg": "labels/a.png", "images/b.jpg": None, "images/c.jpg": None}
    assert sorted(map(str, found.unmatched)) == [
        *("labels/b.json", "labels/b.npy", "labels/c.jpg", "labels/sub/a.png", "labels/z.png")
    ]


def test_where_nothing_pairs_off_all_are_images() -> None:
    found = paired("images/a.jpg", "masks/b.png", "photos/gt/c.jpg")
    assert list(labels(found)) == ["images/a.jpg", "masks/b.png", "photos/gt/c.jpg"]
    assert found.doubtful == [PurePosixPath("masks"), PurePosixPath("photos/gt")]


def test_of_two_folders_of_labels_the_more_usual_one_counts() -> None:
    found = paired("images/a.jpg", "masks/a.png", "labels/a.png")
    assert labels(found) == {"images/a.jpg": "labels/a.png"}
    assert (found.unmatched, found.doubtful) == ([], [])


def test_images_outside_of_the_folder_that_has_labels_are_told() -> None:
    found = paired("images/a.jpg", "labels/a.png", "other/f.png", "g.png")
    assert labels(found) == {"images/a.jpg": "labels/a.png"}
    assert found.outside == [PurePosixPath("g.png"), PurePosixPath("other/f.png")]


def test_splits_each_with_labels_of_their_own() -> None:
    names = [f"{split}/{kind}" for split in ("train", "val") for kind in ("images/a.jpg", "labels/a.png")]
    assert labels(paired(*names, "test/images/a.jpg")) == {
        "test/images/a.jpg": None,
        "train/images/a.jpg": "train/labels/a.png",
        "val/images/a.jpg": "val/labels/a.png",
    }


def test_no_file_at_all() -> None:
    assert paired() == Pairing()
