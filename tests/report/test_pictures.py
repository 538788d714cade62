from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from places import on_disk
from small_run import SmallRun, marked_label

from oodray.errors import DatasetError, ResultsError, RunError
from oodray.report.maps import Maps
from oodray.report.outline import LINE
from oodray.report.palette import colours as cluster_colours
from oodray.report.panels import (
    IGNORE_COLOUR,
    IN_DISTRIBUTION_COLOUR,
    MOST_CLUSTERS_NAMED,
    OOD_COLOUR,
    ImageResult,
    heat_colours,
    panels_of,
)
from oodray.report.pictures import EXTREMES, Choice, write_pictures
from oodray.report.sheet import (
    GAP,
    LARGEST_PANEL,
    MARGIN,
    NARROWEST_COLUMN,
    SMALLER_PANEL,
    WIDEST_SHEET,
    Panel,
    compose,
    panel_size,
    swatches,
)
from oodray.results.folder import ResultsFolder
from oodray.storage.place import path_inside

Pixels = NDArray[np.uint8]


@pytest.fixture
def small_run(tmp_path: Path) -> SmallRun:
    return SmallRun(tmp_path)


def pixels(picture: Image.Image) -> Pixels:
    return np.asarray(picture.convert("RGB"))


def box(chosen: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of the chosen pixels; there must be one."""
    rows, columns = np.nonzero(chosen)
    return rows.min(), columns.min(), rows.max() + 1, columns.max() + 1


def is_colour(picture: Pixels, colour: Any) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = np.all(picture == np.asarray(colour, np.uint8), axis=-1)
    return same


def image_result(height: int = 30, width: int = 40, **changed: Any) -> ImageResult:
    """The upper left quarter is marked: OoD, cluster 1, red in a blue image."""
    marked = np.zeros((height, width), np.uint8)
    marked[: height // 2, : width // 2] = 1
    image = np.where(marked[..., None] == 1, (250, 0, 0), (0, 0, 250)).astype(np.uint8)
    content: dict[str, Any] = {
        "image": image,
        "label": marked,
        "clusters": marked,
        "mask": 255 * marked,
        "ratios": {0: 0.1, 1: 0.9},
        "ood": frozenset({1}),
        "tau": 2.0,
        "ood_ratio": 0.25,
    }
    return ImageResult(**(content | changed))


def test_the_mark_is_at_the_same_place_in_all_panels() -> None:
    marks = ((250, 0, 0), LINE, OOD_COLOUR, cluster_colours(2)[1], heat_colours()[round(255 * 0.9)])
    for panel, mark in zip(panels_of(image_result()), marks, strict=True):
        assert box(is_colour(pixels(panel.picture), mark)) == (0, 0, 15, 20), panel.caption
    label = pixels(panels_of(image_result())[2].picture)
    assert is_colour(label, IN_DISTRIBUTION_COLOUR).sum() == 30 * 40 - 15 * 20


def test_a_sheet_has_its_panels_in_rows(small_run: SmallRun) -> None:
    small_run.add("frames/000", label=marked_label())
    (path,) = write_pictures(small_run.write(), "frames/000")
    assert path == small_run.folder.pictures / "frames" / "000.png"
    with Image.open(on_disk(path)) as picture:
        sheet = pixels(picture)
    assert sheet.shape[1] == 2 * MARGIN + 3 * NARROWEST_COLUMN + 2 * GAP
    top, left, bottom, _ = box(is_colour(sheet, (0, 0, 250)))
    assert (bottom - top, left) == (30, MARGIN)
    below = is_colour(sheet[bottom:], cluster_colours(1)[0])
    assert below[:, MARGIN : MARGIN + 40].sum() >= 30 * 40 - 6 * 10


@pytest.mark.parametrize("panels", [1, 4, 5, 9])
def test_no_sheet_is_wider_than_it_may_be(panels: int) -> None:
    picture = Image.new("RGB", (LARGEST_PANEL, 9))
    sheet = compose("", "", [Panel("", picture, swatches([], 1))] * panels)
    assert sheet.width <= WIDEST_SHEET


def test_large_images_are_scaled_down_alike() -> None:
    panels = panels_of(image_result(1440, 2560))
    assert {panel.picture.size for panel in panels} == {(480, 270)}
    for panel in panels:
        if panel.caption.startswith("clusters"):
            continue  # numbers stand in it
        shown = pixels(panel.picture).astype(int)
        inside, outside = shown[8:127, 8:232], np.concatenate([shown[143:, :232], shown[143:, 248:]], axis=1)
        for region in (inside, outside):
            assert np.ptp(region, axis=(0, 1)).max() <= 1
        assert np.abs(inside[0, 0] - outside[0, 0]).max() > 30


def test_clusters_are_numbered_in_place() -> None:
    shown = pixels(panels_of(image_result(1440, 2560))[3].picture)
    white = is_colour(shown, (255, 255, 255))
    assert white[:135, :240].any()
    assert white.sum() < 2000


def test_ids_are_never_blended() -> None:
    """Every column is another label; a blend of two labels would be of a third colour."""
    label = np.resize(np.array([0, 1, 255], np.uint8), (900, 1300))
    shown = pixels(panels_of(image_result(900, 1300, label=label))[2].picture)
    colours = {tuple(colour) for colour in np.unique(shown.reshape(-1, 3), axis=0).tolist()}
    assert colours == {IN_DISTRIBUTION_COLOUR, OOD_COLOUR, IGNORE_COLOUR}


def test_the_mask_leaves_the_rest_of_the_image_untinted() -> None:
    mask = pixels(panels_of(image_result())[1].picture)
    assert mask[-1, -1].tolist() == [0, 0, 250]
    assert mask[7, 10].tolist() == np.round(0.65 * np.array((250, 0, 0)) + 0.35 * np.array(OOD_COLOUR)).tolist()


def test_ratios_at_both_ends_of_the_bar() -> None:
    ratio = panels_of(image_result(ratios={0: 0.0, 1: 1.0}))[4]
    shown = pixels(ratio.picture)
    assert shown[0, 0].tolist() == heat_colours()[255].tolist()
    assert shown[-1, -1].tolist() == heat_colours()[0].tolist()
    bar = pixels(ratio.legend)
    assert bar[10, 0].tolist() == heat_colours()[0].tolist()
    assert bar[10, -1].tolist() == heat_colours()[255].tolist()


def test_heat_colours_ascend_in_brightness() -> None:
    brightness = heat_colours() @ np.array([0.299, 0.587, 0.114])
    assert np.all(np.diff(brightness) > -0.5)
    assert brightness[0] < 5
    assert brightness[-1] > 230


def test_every_cluster_has_its_own_colour() -> None:
    assert len(np.unique(cluster_colours(255), axis=0)) == 255


def test_many_clusters_keep_the_legend_small() -> None:
    few, many = (
        panels_of(image_result(ratios={cluster: cluster / 255 for cluster in range(count)}))[3].legend
        for count in (MOST_CLUSTERS_NAMED + 1, 255)
    )
    assert many.height <= few.height + 30
    assert is_colour(pixels(many), cluster_colours(255)[254]).any()
    assert not is_colour(pixels(many), cluster_colours(255)[0]).any()


def test_no_label(small_run: SmallRun) -> None:
    small_run.add("a")
    assert write_pictures(small_run.write(), "a")[0].is_file()
    captions = [panel.caption for panel in panels_of(image_result(label="no label"))]
    assert captions == ["image", "mask", "clusters and their ratios r", "ratio: share of unsure pixels"]


def test_a_label_file_that_is_gone_or_of_another_size_does_not_stop_the_picture(
    small_run: SmallRun,
) -> None:
    gone = small_run.add("gone", label=marked_label())
    small_run.add("other", label=marked_label()[:5])
    folder = small_run.write()
    Path(str(gone.label_uri)).unlink()
    pictures = [write_pictures(folder, name)[0].read_bytes() for name in ("gone", "other")]
    assert pictures[0] != pictures[1]


def test_without_an_id_the_extremes(small_run: SmallRun) -> None:
    for name, score in (("a", 0.3), ("b", 0.9), ("c", 0.1), ("d", 0.9), ("e", 0.5)):
        small_run.add(name, score=score)
    small_run.fail("broken", "cannot read it")
    folder = small_run.write()

    def drawn(**choice: Any) -> list[str]:
        return [path.stem for path in write_pictures(folder, choice=Choice(**choice))]

    assert drawn(top=1, bottom=1) == ["b", "c"]
    assert drawn(top=2, bottom=2) == ["b", "d", "a", "c"]
    assert drawn(top=1) == ["b"]
    assert drawn(every=True) == ["b", "d", "e", "a", "c"]
    assert drawn() == []
    assert EXTREMES == 3
    assert [path.stem for path in write_pictures(folder)] == ["b", "d", "e", "a", "c"]
    with pytest.raises(DatasetError, match="has a label, so which are worst is not known"):
        drawn(worst=True)


def test_nothing_to_show(small_run: SmallRun) -> None:
    small_run.fail("a", "cannot read it")
    with pytest.raises(ResultsError, match="no image to show yet; `oodray status"):
        write_pictures(small_run.write())


def test_an_id_that_is_not_there(small_run: SmallRun) -> None:
    for name in ("frames/000", "frames/001", "frames/002", "left"):
        small_run.add(name)
    folder = small_run.write(unwritten=1)
    for asked in ("frames/0000", "frame/000"):
        with pytest.raises(ResultsError, match=f"no image '{asked}'; did you mean 'frames/000'"):
            write_pictures(folder, asked)
    with pytest.raises(ResultsError, match=r"no image '000'; ids that contain it: frames/000$"):
        write_pictures(folder, "000")
    with pytest.raises(ResultsError, match=r"no image ''; known ids: frames/000, frames/001, frames/002, and 1 more$"):
        write_pictures(folder, "")
    with pytest.raises(ResultsError, match="left is not done yet"):
        write_pictures(folder, "left")


def test_an_image_that_failed(small_run: SmallRun) -> None:
    small_run.fail("a", "the image is damaged")
    with pytest.raises(ResultsError, match="a failed, so there is nothing to show: the image is damaged"):
        write_pictures(small_run.write(), "a")


def test_an_image_file_that_is_gone_or_has_changed(small_run: SmallRun) -> None:
    gone, changed = small_run.add("gone"), small_run.add("changed")
    folder = small_run.write()
    os.replace(gone.image_uri, gone.image_uri + ".moved")  # noqa: PTH105 - a text
    Image.new("RGB", (7, 5)).save(changed.image_uri)
    with pytest.raises(ResultsError, match=rf"without its image file {gone.image_uri}: .*No such file"):
        write_pictures(folder, "gone")
    with pytest.raises(ResultsError, match="is 7x5 pixels now, then it was 40x30"):
        write_pictures(folder, "changed")


def test_a_picture_that_cannot_be_written(small_run: SmallRun) -> None:
    small_run.add("a")
    folder = small_run.write()
    on_disk(folder.pictures).write_text("in the way")
    with pytest.raises(RunError, match=r"cannot write .*a\.png: File exists"):
        write_pictures(folder, "a")


def test_a_picture_that_was_there_stays_where_drawing_fails(
    small_run: SmallRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_run.add("a")
    folder = small_run.write()
    (path,) = write_pictures(folder, "a")
    before = path.read_bytes()

    def full(self: Image.Image, where: Path, **options: object) -> None:
        where.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(RunError, match=r"cannot write .*a\.png: No space left on device"):
        write_pictures(folder, "a")
    assert [found.read_bytes() for found in folder.pictures.iterdir()] == [before]


def test_no_results_folder(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"no run\.json"):
        write_pictures(ResultsFolder(tmp_path))


def test_hostile_names(small_run: SmallRun) -> None:
    names = ["two\nlines", "wide/" * 40 + "x", "a.b", "日本 ü" * 20]
    for name in names:
        small_run.add(name)
    folder = small_run.write()
    for name in names:
        (path,) = write_pictures(folder, name)
        assert path == folder.pictures / f"{name}.png"
        with Image.open(on_disk(path)) as picture:
            assert picture.width == 2 * MARGIN + 4 * NARROWEST_COLUMN + 3 * GAP


def test_ids_that_differ_have_pictures_of_their_own(small_run: SmallRun) -> None:
    for name in ("a/b", "a__b", "a"):
        small_run.add(name)
    paths = write_pictures(small_run.write())
    assert [str(path_inside(path, small_run.folder.pictures)) for path in paths] == [
        "a.png",
        "a/b.png",
        "a__b.png",
    ]
    assert len({path.read_bytes() for path in paths}) == 3


@pytest.mark.parametrize("name", ["../up", "a/../../up", "/up"])
def test_no_picture_is_written_elsewhere(small_run: SmallRun, name: str) -> None:
    small_run.add(name)
    folder = small_run.write()
    before = sorted(small_run.path.rglob("*"))
    with pytest.raises(ResultsError, match="leads out of"):
        write_pictures(folder, name)
    assert sorted(small_run.path.rglob("*")) == before


def test_panels_of_different_heights_share_their_top() -> None:
    legend = swatches([], 1)
    panels = [Panel("", Image.new("RGB", (9, height), (1, 2, 3)), legend) for height in (10, 50)]
    shown = is_colour(pixels(compose("", "", panels)), (1, 2, 3))
    half = shown.shape[1] // 2
    assert box(shown[:, :half])[0] == box(shown[:, half:])[0]
    assert box(shown[:, :half])[2] + 40 == box(shown[:, half:])[2]


def test_a_legend_breaks_into_lines_and_stays_inside() -> None:
    one, many = (swatches([((9, 9, 9), "a longer entry")] * count, 400) for count in (1, 20))
    assert one.width == many.width == 400
    assert many.height == 10 * one.height
    squares = is_colour(pixels(many), (9, 9, 9))
    assert squares.sum() == 20 * 20 * 20


@given(st.integers(1, 2**26), st.integers(1, 2**26))
def test_panel_size_fits_and_keeps_the_shape(height: int, width: int) -> None:
    shown_width, shown_height = panel_size(height, width)
    assert min(shown_width, shown_height) >= 1
    assert max(shown_width, shown_height) <= LARGEST_PANEL
    if max(height, width) <= LARGEST_PANEL:
        assert (shown_width, shown_height) == (width, height)
    else:
        scale = LARGEST_PANEL / max(height, width)
        assert abs(shown_width - max(1, width * scale)) <= 0.5
        assert abs(shown_height - max(1, height * scale)) <= 0.5


def test_confidence_and_classes_are_drawn_where_they_are_known() -> None:
    result = image_result()
    confidence = np.where(result.label == 1, -1.5, 6.5).astype(np.float16)
    classes = np.where(result.label == 1, 200, 1).astype(np.int16)
    alike: tuple[dict[str, Any], ...] = ({}, {"label": "no label"})
    for changed in alike:
        maps = Maps(confidence=confidence, classes=classes, class_names=("road", "sky"))
        panels = {panel.caption: panel for panel in panels_of(image_result(maps=maps, **changed))}
        assert len(panels) == 7 - len(changed)
        shown = np.asarray(panels["confidence: largest logit"].picture).astype(int).sum(axis=2)
        assert shown[0, 0] > 600, "unsure is bright"
        assert shown[-1, -1] < 60
        ids = np.asarray(panels["classes that the network sees"].picture)
        assert (ids[0, 0] == cluster_colours(256)[200]).all()
        assert (ids[-1, -1] == cluster_colours(256)[1]).all()


def test_seven_panels_come_in_two_rows_of_their_own_width(small_run: SmallRun) -> None:
    full = image_result(600, 900, maps=Maps(confidence=np.ones((600, 900)), classes=np.zeros((600, 900), int)))
    sheet = compose("a", "b", panels_of(full))
    assert sheet.width <= WIDEST_SHEET
    assert {panel.picture.width for panel in panels_of(full)} == {SMALLER_PANEL}
    assert {panel.picture.width for panel in panels_of(image_result(600, 900))} == {LARGEST_PANEL}


def test_colours_differ_for_those_who_see_no_green() -> None:
    """The eight first colours, as people with deuteranopia see them: the matrix of Machado et al. (2009)."""
    linear = (cluster_colours(8) / 255) ** 2.2
    seen = linear @ np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]).T
    shown = 255 * np.clip(seen, 0, 1) ** (1 / 2.2)
    apart = np.linalg.norm(shown[:, None] - shown[None], axis=2)[np.triu_indices(8, 1)]
    assert apart.min() > 30
