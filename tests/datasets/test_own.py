"""A folder of one's own: what is taken for what, and what is said about it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import found, touch

from oodray.datasets.check import check_dataset
from oodray.datasets.findings import Noticed, WhiteMasks
from oodray.datasets.layouts import get_layout
from oodray.datasets.remarks import Remark, remarks
from oodray.datasets.white_masks import white_masks_warning
from oodray.errors import DatasetError
from oodray.report.dataset_check import check_lines

FOLDER, WHITE = get_layout("folder"), get_layout("folder-255")


def heard(root: Path) -> list[Remark]:
    with remarks() as made:
        FOLDER.find(root)
    return made


def test_a_plain_dataset_needs_no_word(tmp_path: Path) -> None:
    assert heard(touch(tmp_path, "images/a.jpg", "images/b.jpg", "labels/a.png", "labels/README.md", "notes.txt")) == []


@pytest.mark.parametrize(
    ("names", "words", "wrong"),
    [
        (["images/a.jpg", "labels/a.png", "labels/b.png"], "1 file (labels/b.png) beside the labels", True),
        (["images/a.jpg", "images/b.jpg", "labels/a.png", "labels/b.npy"], "(labels/b.npy) beside the labels", True),
        (["a.jpg", "a_mask.png"], "1 file (a_mask.png) taken for labels of the images beside", False),
        (["a.jpg", "a_mask.jpg"], "1 file (a_mask.jpg) taken for images, though", False),
        (["a.jpg", "masks/b.png"], "masks/ is called like a folder of labels", False),
        (["images/a.jpg", "labels/a.png", "b.png"], "1 file (b.png) left out, outside", False),
        (["a.jpg", "b.HEIC", "c.gif"], "2 files (b.HEIC, c.gif) left out, of formats", True),
    ],
)
def test_what_is_not_plain_is_said(names: list[str], words: str, wrong: bool, tmp_path: Path) -> None:
    [remark] = heard(touch(tmp_path, *names))
    assert words in remark.text
    assert remark.wrong is wrong


def test_what_systems_keep_for_themselves_is_left_out(tmp_path: Path) -> None:
    thumbnails = ["@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg", "sub/#recycle/b.jpg", "__MACOSX/images/c.jpg", "Thumbs.db"]
    touch(tmp_path, "images/a.jpg", "labels/a.png", "labels/@eaDir/a.png/SYNOPHOTO_THUMB_M.png", *thumbnails)
    assert found(FOLDER, tmp_path) == {"images/a": ("images/a.jpg", "labels/a.png")}
    assert heard(tmp_path) == []


def test_a_mask_in_jpeg_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/b.jpg", "labels/a.png", "labels/b.jpg")
    [remark] = heard(tmp_path)
    assert "labels/b.jpg" in remark.text
    assert "JPEG changes codes" in remark.text


def test_labels_of_hidden_tests_are_told(tmp_path: Path) -> None:
    layout = get_layout("road-anomaly-21")
    names = ["images/airplane0000.jpg", "labels_masks/airplane0000_labels_semantic.png"]
    own = ["images/validation0000.jpg", "labels_masks/validation0000_labels_semantic.png"]
    with remarks() as made:
        layout.find(touch(tmp_path, *own))
        assert made == []
        layout.find(touch(tmp_path, *names))
    [remark] = made
    assert "airplane0000_labels_semantic.png" in remark.text


@pytest.mark.parametrize("name", ["a.jpe", "a.JFIF"])
def test_further_names_of_jpeg(name: str, tmp_path: Path) -> None:
    assert found(FOLDER, touch(tmp_path, name)) == {"a": (name, None)}


def test_the_check_finds_a_label_of_no_image(tmp_path: Path) -> None:
    root = white_masks(tmp_path, 0, 1)
    (root / "labels/b.png").rename(root / "labels/bb.png")
    report = check_dataset(FOLDER, root)
    assert not report.ok
    [finding] = report.findings
    assert isinstance(finding, Noticed)
    assert "labels/bb.png" in "\n".join(check_lines(report))


# --- masks of 0 and 255


def white_masks(root: Path, *codes: int) -> Path:
    """Two images with masks of some codes."""
    mask = np.array(codes, np.uint8)[np.arange(24).reshape(4, 6) % len(codes)]
    for name in ("a", "b"):
        for folder, pixels in (("images", np.zeros((4, 6, 3), np.uint8)), ("labels", mask)):
            (root / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(root / folder / f"{name}.png")
    return root


def test_white_masks_are_told_before_a_run_and_by_the_check(tmp_path: Path) -> None:
    root = white_masks(tmp_path, 0, 255)
    warning = white_masks_warning(FOLDER, [str(root / "labels/a.png"), None, str(root / "labels/b.png")])
    assert warning is not None
    assert "the first 2 labels hold 0 and 255 alone" in warning
    assert "pass --dataset folder-255" in warning
    report = check_dataset(FOLDER, root)
    assert any(isinstance(finding, WhiteMasks) for finding in report.findings)
    assert "pass --dataset folder-255" in "\n".join(check_lines(report))


def test_white_is_ood_where_that_is_asked_for(tmp_path: Path) -> None:
    root = white_masks(tmp_path, 0, 255)
    report = check_dataset(WHITE, root)
    assert report.ok
    assert report.share(1) == 0.5
    assert white_masks_warning(WHITE, [str(root / "labels/a.png")]) is None


@pytest.mark.parametrize("codes", [(0, 1), (0, 1, 255), (0,), (0, 2, 255)])
def test_other_masks_are_no_white_ones(codes: tuple[int, ...], tmp_path: Path) -> None:
    root = white_masks(tmp_path, *codes)
    assert white_masks_warning(FOLDER, [str(root / "labels/a.png")]) is None
    assert not any(isinstance(finding, WhiteMasks) for finding in check_dataset(FOLDER, root).findings)


def test_a_set_with_nothing_unknown_may_have_masks_of_0_and_255(tmp_path: Path) -> None:
    root = white_masks(tmp_path, 0, 255)
    assert white_masks_warning(get_layout("cityscapes"), [str(root / "labels/a.png")]) is None


def test_labels_that_cannot_be_read_are_left_to_the_run(tmp_path: Path) -> None:
    assert white_masks_warning(FOLDER, [str(tmp_path / "none.png")]) is None


# --- folders that may not be read

SEARCH = """
import os, sys
from pathlib import Path
from oodray.datasets.layouts import get_layout
from oodray.datasets.remarks import remarks
if os.getuid() == 0:  # to whom every folder is open
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
with remarks() as heard:
    print(*(sample.image_id for sample in get_layout("folder").find(Path(sys.argv[1]))))
print(*(remark.text for remark in heard), sep="\\n")
"""


@pytest.mark.parametrize("kind", ["folder", "folder inside", "link into it"])
def test_a_folder_that_may_not_be_read_is_left_out(kind: str, environment: dict[str, str]) -> None:
    # Below /tmp, because the folders of pytest belong to its user alone.
    with tempfile.TemporaryDirectory() as folder:
        root = touch(Path(folder), "images/a.png", "images/b.png", "labels/a.png")
        Path(folder).chmod(0o755)
        locked = root / {"folder": "lost+found", "folder inside": "images/locked", "link into it": "lost+found"}[kind]
        (locked / "inside").mkdir(parents=True)
        if kind == "link into it":
            (root / "images/c.png").symlink_to(locked / "inside")
        locked.chmod(0)
        try:
            command = [sys.executable, "-c", SEARCH, folder]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        finally:
            locked.chmod(0o755)
    assert done.stderr == ""
    ids, *said = done.stdout.splitlines()
    assert ids == ("images/a images/b images/c" if kind == "link into it" else "images/a images/b")
    assert f"{os.fspath(locked)} may not be read: what is in it is left out" in said[0]


# --- a process that knows no UTF-8


def test_a_locale_is_blamed_and_not_the_file(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "stra\u00dfe.png").touch()
    command = [sys.executable, "-m", "oodray", "datasets", "check", "folder", "--root", str(tmp_path)]
    ascii_alone = environment | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command, env=ascii_alone, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "this process reads file names as ascii" in done.stderr
    assert "set PYTHONUTF8=1, or LC_ALL=C.UTF-8" in done.stderr
    assert "rename" not in done.stderr


def photographs(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / name)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.jpg", ["a"]),
        ("*.jpg", ["a", "b"]),
        ("?.png", ["c"]),
        ("2024-*/*.jpg", ["2024-05/d", "2024-06/d"]),
        ("**/d.jpg", ["2024-05/d", "2024-06/d"]),
        ("*", ["a", "b", "c"]),  # what is no image is left out
        ("odd[1].jpg", ["odd[1]"]),  # a name with the characters of a pattern is a name
    ],
)
def test_an_image_and_a_pattern_are_roots(pattern: str, expected: list[str], tmp_path: Path) -> None:
    photographs(tmp_path, "a.jpg", "b.jpg", "c.png", "2024-05/d.jpg", "2024-06/d.jpg")
    (tmp_path / "notes.txt").write_text("x")
    if "odd" in pattern:
        photographs(tmp_path, "odd[1].jpg")
    samples = get_layout("folder").find(tmp_path / pattern)
    assert [sample.image_id for sample in samples] == expected
    assert all(Path(sample.image_uri).is_file() and sample.label_uri is None for sample in samples)


def test_a_pattern_of_nothing_says_so(tmp_path: Path) -> None:
    photographs(tmp_path, "a.jpg")
    for pattern in ("*.webp", "no/*.jpg"):
        with pytest.raises(DatasetError, match=rf"no image file is called {re.escape(str(tmp_path / pattern))}"):
            get_layout("folder").find(tmp_path / pattern)


def test_a_pattern_does_not_lead_outside_of_its_folder(tmp_path: Path) -> None:
    photographs(tmp_path, "secret/s.jpg", "photos/a.jpg")
    (tmp_path / "photos/b.jpg").symlink_to(tmp_path / "secret/s.jpg")
    with pytest.raises(DatasetError, match="leads outside"):
        get_layout("folder").find(tmp_path / "photos/*.jpg")
    assert len(get_layout("folder").find(tmp_path / "photos/*.jpg", allow_outside=True)) == 2
