from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from trees import found, touch

from oodray.datasets.layout import Layout, Pair, image_files
from oodray.datasets.layouts import LAYOUTS, get_layout
from oodray.datasets.listing import Sample
from oodray.errors import DatasetError
from oodray.storage.place import Place

IN_FOLDERS = {name: layout for name, layout in LAYOUTS.items() if name != "list"}
"""The layouts whose --root is a folder."""

FOLDER, ROAD = get_layout("folder"), get_layout("road-anomaly")


@pytest.mark.parametrize("layout", IN_FOLDERS.values(), ids=IN_FOLDERS)
def test_an_absent_dataset_is_explained(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as error:
        layout.find(tmp_path / "absent")
    message = str(error.value)
    assert message.startswith(f"{layout.title}: the folder {tmp_path / 'absent'} does not exist\n")
    assert all(line in message for line in layout.tree.splitlines())
    assert layout.where in message


@pytest.mark.parametrize("layout", IN_FOLDERS.values(), ids=IN_FOLDERS)
def test_an_empty_folder_is_explained(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has no folder" if layout.folders else "no images below"):
        layout.find(tmp_path)


@pytest.mark.parametrize("layout", IN_FOLDERS.values(), ids=IN_FOLDERS)
def test_folders_without_files_are_explained(layout: Layout, tmp_path: Path) -> None:
    for folder in layout.folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(DatasetError, match=f"no images below {tmp_path}"):
        layout.find(tmp_path)


@pytest.mark.parametrize("layout", IN_FOLDERS.values(), ids=IN_FOLDERS)
def test_a_file_is_no_root(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not a folder"):
        layout.find(touch(tmp_path, "images.zip") / "images.zip")


def test_one_level_too_high_or_too_low_is_noticed(tmp_path: Path) -> None:
    root = touch(tmp_path, "RoadAnomaly_jpg/frames/000.jpg", "another/x") / "RoadAnomaly_jpg"
    for wrong in (tmp_path, root / "frames"):
        with pytest.raises(DatasetError, match=f"has no folder frames/; did you mean --root {root} "):
            ROAD.find(wrong)


def test_a_relative_root_gives_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(touch(tmp_path, "set/a.png"))
    assert FOLDER.find(Path("set")) == [Sample("a", str(tmp_path / "set" / "a.png"), None)]


def test_samples_are_sorted_by_id(tmp_path: Path) -> None:
    # By file name, "a.b.png" would come before "a.png"; by path, "a/x.png" before "a-b/x.png".
    touch(tmp_path, "b.png", "a/x.png", "a-b/x.png", "a.png", "a.b.png", "B.png", "ä.png", "10.png", "9.png")
    assert list(found(FOLDER, tmp_path)) == ["10", "9", "B", "a", "a-b/x", "a.b", "a/x", "b", "ä"]


def test_spaces_and_unicode_are_fine(tmp_path: Path) -> None:
    touch(tmp_path, "Straße 1/Reh & Hirsch (2).final.JPG", "道路/'\"\n.png")
    assert list(found(FOLDER, tmp_path)) == ["Straße 1/Reh & Hirsch (2).final", "道路/'\"\n"]


def test_a_name_that_is_not_utf8_is_refused_by_name(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.png")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(DatasetError, match=r"caf\\udce9\.png' is not valid UTF-8"):
        FOLDER.find(tmp_path)


def test_a_root_that_is_not_utf8_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"caf\\udce9' is not valid UTF-8"):
        FOLDER.find(tmp_path / os.fsdecode(b"caf\xe9"))


@pytest.mark.parametrize("names", [("x/a.jpg", "x/a.png"), ("x/a.JPG", "x/a.jpg")])
def test_two_files_of_one_id_are_refused(names: tuple[str, str], tmp_path: Path) -> None:
    touch(tmp_path, *names)
    with pytest.raises(DatasetError) as error:
        FOLDER.find(tmp_path)
    assert all(str(tmp_path / name) in str(error.value) for name in names)
    assert "'x/a'" in str(error.value)


def test_an_unreadable_folder_is_a_dataset_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DatasetError, match=f"cannot read {tmp_path}: Permission denied"):
        FOLDER.find(tmp_path)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/c.png", "set/a/b.png")
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "a" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "set" / "a")
    (tmp_path / "set" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "link").symlink_to(tmp_path / "set")
    ids = [sample.image_id for sample in FOLDER.find(tmp_path / "link", allow_outside=True)]
    assert ids == ["a/b", "gone", "linked/back/b", "linked/c"]


def test_results_folders_are_no_part_of_a_dataset(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "runs/folder/run.json", "runs/folder/manifest.parquet", "runs/folder/pictures/a.png")
    touch(tmp_path, "runs/b.png", "drive/run.json", "drive/c.png")
    assert list(found(FOLDER, tmp_path)) == ["a", "drive/c", "runs/b"]
    # A root that was asked for is taken, and so is what lies in it.
    assert list(found(FOLDER, tmp_path / "runs" / "folder")) == ["pictures/a"]


def test_image_files_of_one_folder(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a.jpg", "c/d.png")
    assert [path.name for path in image_files(tmp_path)] == ["a.jpg", "b.png"]
    with pytest.raises(NotADirectoryError):
        image_files(tmp_path / "a.jpg")


def test_a_new_layout_is_a_few_lines(tmp_path: Path) -> None:
    class Pairs(Layout):
        name = "pairs"
        title = "Pairs"
        images = None
        where = "nowhere"
        tree = "ROOT/NAME/left.png"
        folders = ()
        label_codes = ROAD.label_codes

        def pairs(self, root: Place) -> Iterable[Pair]:
            for image in root.glob("*/left.png"):
                yield image, image.parent / "label.png"

    touch(tmp_path, "b/left.png", "a/left.png", "a/label.png")
    assert found(Pairs(), tmp_path) == {
        "a/left": ("a/left.png", "a/label.png"),
        "b/left": ("b/left.png", "b/label.png"),
    }
