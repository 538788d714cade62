"""Labels of one's own: what their codes mean, and the folder that they lie in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from trees import touch

from oodray.datasets.check import check_dataset
from oodray.datasets.images import encode_png
from oodray.datasets.layouts import layout_of
from oodray.datasets.listing import Sample
from oodray.errors import ConfigError, DatasetError, ImageError


def samples(root: Path, labels: str) -> dict[str, str | None]:
    found: list[Sample] = layout_of({"dataset": "folder", "labels": labels}).find(root)
    return {sample.image_id: sample.label_uri for sample in found}


@pytest.mark.parametrize("dataset", ["folder", "list", "webdataset", "hf-parquet"])
def test_codes_are_those_that_are_named_and_255_is_ignored(dataset: str) -> None:
    codes = layout_of({"dataset": dataset, "label_codes": "2=ood, 0:1=ID"}).label_codes
    assert codes.labels(np.array([0, 1, 2, 255], np.uint8)).tolist() == [0, 0, 1, 255]
    with pytest.raises(ImageError, match="unknown codes: 3"):
        codes.labels(np.array([3], np.uint8))


def test_255_may_be_named() -> None:
    codes = layout_of({"dataset": "folder", "label_codes": "0=id,255=ood"}).label_codes
    assert codes.labels(np.array([0, 255], np.uint8)).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2", "'2' says nothing of a label code: write CODE=id"),
        ("2=anomaly", "'2=anomaly' says nothing of a label code"),
        ("2=ood", "names no in-distribution code: add CODE=id"),
        ("2=ood,2=id", "the label code 2 is named twice"),
        ("0.5=id", "whole numbers"),
        ("-1=id", "within 0..65535"),
        ("0:70000=id", "within 0..65535"),
        ("", "says nothing of a label code"),
    ],
)
def test_what_is_no_list_of_codes_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        layout_of({"dataset": "folder", "label_codes": text})


@pytest.mark.parametrize(("option", "value"), [("label_codes", "0=id"), ("labels", "gt")])
@pytest.mark.parametrize("dataset", ["road-anomaly", "cityscapes"])
def test_known_sets_take_neither(option: str, value: str, dataset: str) -> None:
    with pytest.raises(DatasetError, match=f"--{option.replace('_', '-')} .*does not go with --dataset {dataset}"):
        layout_of({"dataset": dataset, option: value})


def test_a_folder_below_the_root_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/b/c.jpg", "images/d.jpg", "my truth/a.png", "my truth/b/c_mask.png")
    touch(tmp_path, "labels/a.png", "masks/a.png")  # those of something else
    truth = tmp_path / "my truth"
    expected = {"images/a": f"{truth}/a.png", "images/b/c": f"{truth}/b/c_mask.png", "images/d": None}
    assert samples(tmp_path, "my truth") == expected
    assert samples(tmp_path, str(truth)) == expected
    assert samples(tmp_path, "images/../my truth") == expected


def test_a_folder_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = touch(tmp_path / "photos", "a.jpg", "b/c.jpg")
    touch(tmp_path / "truth", "a.png", "b/c.png")
    expected = {"a": f"{tmp_path}/truth/a.png", "b/c": f"{tmp_path}/truth/b/c.png"}
    assert samples(root, str(tmp_path / "truth")) == expected
    monkeypatch.chdir(tmp_path)
    assert samples(root, "truth") == expected


def test_a_link_from_the_folder_of_labels_to_elsewhere_is_refused(tmp_path: Path) -> None:
    root = touch(tmp_path / "photos", "a.jpg")
    touch(tmp_path, "secret.png", "truth/b.png")
    (tmp_path / "truth" / "a.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DatasetError, match="leads outside of the dataset's folder"):
        samples(root, str(tmp_path / "truth"))


def test_a_folder_that_is_not_there_or_labels_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "truth/b.png")
    with pytest.raises(DatasetError, match=r"--labels gt: there is no folder .*/gt"):
        samples(tmp_path, "gt")
    with pytest.raises(DatasetError, match=r"no file in .*truth is the label of an image"):
        samples(tmp_path, "truth")


def test_the_check_counts_by_these_codes(tmp_path: Path) -> None:
    for folder in ("images", "truth"):
        (tmp_path / folder).mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encode_png(np.zeros((1, 4, 3), np.uint8)))
    (tmp_path / "truth" / "a.png").write_bytes(encode_png(np.array([[0, 255, 255, 255]], np.uint8)))
    layout = layout_of({"dataset": "folder", "labels": "truth", "label_codes": "0=id,255=ood"})
    report = check_dataset(layout, tmp_path)
    assert report.ok
    assert dict(report.labels) == {0: 1, 1: 3}
