from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from trees import found, touch

from oodray.datasets.demo import scenes
from oodray.datasets.images import decode_image, decode_mask, encode_png
from oodray.datasets.layouts import LAYOUTS, count_warning, get_layout
from oodray.errors import DatasetError, ImageError

ADE, FOLDER, ROAD = get_layout("ade-ood"), get_layout("folder"), get_layout("road-anomaly")


# --- one layout each


def test_road_anomaly(tmp_path: Path) -> None:
    labels = [f"frames/{name}.labels/labels_semantic.png" for name in ("000", "a.b", "dog")]
    touch(tmp_path, "frames/000.jpg", "frames/a.b.jpg", "frames/dog.webp", "frames/unlisted.jpg", *labels)
    (tmp_path / "frame_list.json").write_text(json.dumps(["dog.webp", "a.b.jpg", "000.jpg"]))
    assert found(ROAD, tmp_path) == {
        "frames/000": ("frames/000.jpg", labels[0]),
        "frames/a.b": ("frames/a.b.jpg", labels[1]),
        "frames/dog": ("frames/dog.webp", labels[2]),
    }


def test_road_anomaly_without_list_takes_all_frames(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "frames/b.webp",
        "frames/a.jpg",
        "frames/a.labels/labels_semantic.png",
        "frames/a.labels/x.jpg",
    )
    assert list(found(ROAD, tmp_path)) == ["frames/a", "frames/b"]


def test_a_listed_frame_that_is_absent_stays(tmp_path: Path) -> None:
    touch(tmp_path, "frames/a.jpg", "frames/a.labels/labels_semantic.png")
    (tmp_path / "frame_list.json").write_text('["a.jpg", "b.jpg"]')
    assert list(found(ROAD, tmp_path)) == ["frames/a", "frames/b"]
    (tmp_path / "frame_list.json").write_text('["c.jpg", "b.jpg"]')
    with pytest.raises(DatasetError, match=r"none of the 2 images is there, the first being .*frames/c\.jpg"):
        ROAD.find(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[", "is not valid JSON"),
        (b"\xff\xfe\xfd", "is not valid JSON"),
        (b"{}", "is not a list of names of image files"),
        (b'"a.jpg"', "is not a list of names"),
        (b'["a.jpg", 3]', "is not a list of names"),
        (b'["a.jpg", "../a.jpg"]', "is not a list of names"),
        (b'["/etc/a.jpg"]', "is not a list of names"),
        (b'["..", ""]', "is not a list of names"),
        (b'["a"]', "is not a list of names"),
        (b"[" * 200_000, "is not valid JSON"),
        (b"[]", "no images below"),
        (b'["a.jpg", "a.jpg"]', "two images have the name 'frames/a'"),
        (b'["a.jpg", "\\u0000.jpg"]', None),
        (b'["a.jpg", "\\ud800.jpg"]', "is not valid UTF-8"),
    ],
)
def test_frame_lists_of_any_content(text: bytes, message: str | None, tmp_path: Path) -> None:
    touch(tmp_path, "frames/a.jpg", "frames/a.labels/labels_semantic.png")
    (tmp_path / "frame_list.json").write_bytes(text)
    if message is None:
        assert len(ROAD.find(tmp_path)) == 2  # the name of no file: reading it fails later, as one image
        return
    with pytest.raises(DatasetError, match=message):
        ROAD.find(tmp_path)


def test_ade_ood(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "images/x_1.jpg",
        "images/y.jpg",
        "annotations/x_1_mask.png",
        "annotations/y_mask.png",
        "README.txt",
    )
    assert found(ADE, tmp_path) == {
        "images/x_1": ("images/x_1.jpg", "annotations/x_1_mask.png"),
        "images/y": ("images/y.jpg", "annotations/y_mask.png"),
    }


def test_a_missing_label_keeps_its_path(tmp_path: Path) -> None:
    touch(tmp_path, "images/x.jpg", "images/y.jpg", "annotations/x_mask.png")
    assert found(ADE, tmp_path)["images/y"] == ("images/y.jpg", "annotations/y_mask.png")


def test_labels_that_are_all_missing_are_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "images/x.jpg", "images/y.jpg", "annotations/x.png")
    with pytest.raises(DatasetError, match=r"none of the 2 label files is there, the first being .*x_mask\.png"):
        ADE.find(tmp_path)


def test_demo(tmp_path: Path) -> None:
    touch(tmp_path, "images/scene-00.png", "images/scene-01.png", "labels/scene-00.png")
    assert found(get_layout("demo"), tmp_path) == {
        "images/scene-00": ("images/scene-00.png", "labels/scene-00.png"),
        "images/scene-01": ("images/scene-01.png", "labels/scene-01.png"),
    }


def test_the_validation_scenes_hold_nothing_unknown(tmp_path: Path) -> None:
    scenes.write_demo(tmp_path, 2, split="val")
    assert len(get_layout("demo-validation").find(tmp_path)) == 2
    for index in range(2):
        scene = scenes.render_scene(index, split="val")
        image, codes = (tmp_path / kind / f"scene-{index:02d}.png" for kind in ("images", "labels"))
        assert np.array_equal(decode_image(image.read_bytes()), scene.image)
        assert not decode_mask(codes.read_bytes()).any()


def test_demo_counts_the_scenes_that_are_drawn() -> None:
    assert get_layout("demo").images == scenes.DEMO_SCENES


def test_preparing_draws_the_demo_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "write_demo", lambda root, *_, **__: touch(root, "images/a.png", "labels/a.png"))
    for layout in LAYOUTS.values():
        layout.prepare(tmp_path / layout.name)
    assert {path.name for path in tmp_path.iterdir()} == {"demo", "demo-validation"}
    assert len(get_layout("demo").find(tmp_path / "demo")) == 1


def test_a_demo_that_cannot_be_written_is_a_dataset_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(root: Path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scenes, "write_demo", fail)
    with pytest.raises(DatasetError, match=f"cannot write the demo scenes to {tmp_path}: No space left"):
        get_layout("demo").prepare(tmp_path)


# --- folder


def test_folder_takes_all_images_below(tmp_path: Path) -> None:
    images = ["a.jpg", "b/c.JPEG", "b/d/e.Png", "f.webp", "folder.png/j.png", "g.bmp", "h.tif", "i.TIFF"]
    touch(tmp_path, *images, "notes.txt", "video.mp4", "jpg", "masks.npz")
    assert [uri for uri, _ in found(FOLDER, tmp_path).values()] == images


def test_folder_ignores_what_is_hidden(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "._a.png", ".cache/b.png", "c/.d/e.png", ".jpg")
    assert list(found(FOLDER, tmp_path)) == ["a"]


def test_folder_in_a_hidden_folder(tmp_path: Path) -> None:
    assert list(found(FOLDER, touch(tmp_path, ".data/a.png") / ".data")) == ["a"]


@pytest.mark.parametrize("other", ["images", "labels"])
def test_folder_with_images_or_labels_alone_has_no_labels(other: str, tmp_path: Path) -> None:
    touch(tmp_path, f"{other}/a.png", "b.png")
    assert found(FOLDER, tmp_path) == {f"{other}/a": (f"{other}/a.png", None), "b": ("b.png", None)}


def test_folder_with_labels(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/b/c.d.webp", "images/e.png", "other/f.png")
    touch(tmp_path, "labels/a.png", "labels/b/c.d.png", "labels/e.jpg")
    assert found(FOLDER, tmp_path) == {
        "images/a": ("images/a.jpg", "labels/a.png"),
        "images/b/c.d": ("images/b/c.d.webp", "labels/b/c.d.png"),
        "images/e": ("images/e.png", None),
    }


def test_folder_with_labels_of_no_image_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "labels/a.txt")
    with pytest.raises(DatasetError, match=rf"expected being .*labels/a\.png; .* give --root {tmp_path}/images"):
        FOLDER.find(tmp_path)
    assert list(found(FOLDER, tmp_path / "images")) == ["a"]


# --- the registry


def test_names_are_the_keys() -> None:
    assert set(LAYOUTS) == {
        *(
            "demo",
            "demo-validation",
            "folder",
            "list",
            "webdataset",
            "hf-parquet",
            "folder-255",
            "road-anomaly",
            "ade-ood",
            "road-anomaly-21",
            "road-obstacle-21",
            "fishyscapes-static",
        ),
        *("fishyscapes-lost-and-found", "lost-and-found", "street-hazards"),
        *("issu-static", "issu-temporal", "issu-obstacle-static", "issu-obstacle-temporal", "small-obstacle"),
        *(
            "muad-ood",
            "bdd-anomaly",
            "bdd-anomaly-bicycle",
            "bravo-synobjs",
            "bravo-outofcontext",
            "bravo-synrain",
            "bravo-synflare",
        ),
        *("camvid", "camvid-held-out", "camvid-held-out-validation", "cityscapes", "ade20k", "bdd100k"),
    }
    assert all(get_layout(name).name == name for name in LAYOUTS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("RoadAnomaly", "unknown dataset 'RoadAnomaly'; did you mean 'road-anomaly'"),
        ("ade-od", "did you mean 'ade-ood'"),
        ("xyz", "'xyz'; known datasets: demo, "),
    ],
)
def test_an_unknown_name_gets_a_suggestion(name: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        get_layout(name)


def test_count_warning() -> None:
    assert count_warning(ROAD, range(60)) is None
    assert count_warning(FOLDER, range(3)) is None
    for count in (59, 61):
        assert f"60 images, found: {count}" in (count_warning(ROAD, range(count)) or "")


# --- layouts that differ from one another in names and codes alone

PUBLIC = {
    "road-anomaly-21": ("images/validation0001.jpg", "labels_masks/validation0001_labels_semantic.png"),
    "road-obstacle-21": ("images/curvy-street_1.webp", "labels_masks/curvy-street_1_labels_semantic.png"),
    "fishyscapes-lost-and-found": (
        "leftImg8bit/train/04_Maurener_Weg_8/04_Maurener_Weg_8_000000_000030_leftImg8bit.png",
        "labels/0000_04_Maurener_Weg_8_000000_000030_labels.png",
    ),
    "fishyscapes-static": (
        "images/0007_frankfurt_000001_046779_rgb.jpg",
        "labels/0007_frankfurt_000001_046779_labels.png",
    ),
    "lost-and-found": (
        "leftImg8bit/test/02_Hanns/02_Hanns_000000_000010_leftImg8bit.png",
        "gtCoarse/test/02_Hanns/02_Hanns_000000_000010_gtCoarse_labelTrainIds.png",
    ),
    "street-hazards": ("test/images/test/t5/300.png", "test/annotations/test/t5/300.png"),
    "cityscapes": (
        "leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png",
        "gtFine/val/lindau/lindau_000000_000019_gtFine_labelTrainIds.png",
    ),
    "ade20k": ("images/validation/ADE_val_00000001.jpg", "annotations/validation/ADE_val_00000001.png"),
    "camvid": ("val/0016E5_07959.jpg", "valannot/0016E5_07959.png"),
    "camvid-held-out-validation": ("val/0016E5_07959.jpg", "valannot/0016E5_07959.png"),
    "camvid-held-out": ("test/Seq05VD_f00000.jpg", "testannot/Seq05VD_f00000.png"),
    "bdd100k": ("seg/images/val/0a0a0b1a-7c39d841.jpg", "seg/labels/val/0a0a0b1a-7c39d841_train_id.png"),
    "muad-ood": ("ood/leftImg8bit/000000_leftImg8bit.png", "ood/leftLabel/000000_leftLabel.png"),
    "bravo-synobjs": ("armchair/100.png", "armchair/100_mask.png"),
    "bravo-outofcontext": (
        "lindau/lindau_000000_000019_leftImg8bit.png",
        "lindau/lindau_000000_000019_gt_invIds.png",
    ),
}

# Meanings by code: in-distribution, OoD, ignored; what is not named is unknown.
CODES: dict[str, tuple[set[int], set[int], set[int]]] = {
    "road-anomaly": ({0}, {1, 2}, {255}),
    "road-anomaly-21": ({0}, {1, 2}, {255}),
    "road-obstacle-21": ({0}, {1, 2}, {255}),
    "fishyscapes-lost-and-found": ({0}, {1, 2}, {255}),
    "fishyscapes-static": ({0}, {1, 2}, {255}),
    "lost-and-found": ({1}, {2}, {0, 255}),
    "street-hazards": (set(range(1, 14)), {14}, set()),
    "cityscapes": (set(range(19)), set(), {255}),
    "ade20k": (set(range(1, 151)), set(), {0}),
    "camvid": (set(range(11)), set(), {11}),
    "camvid-held-out": (set(range(8)), {8, 9, 10}, {11}),
    "camvid-held-out-validation": (set(range(8)), set(), {8, 9, 10, 11}),
    "bdd100k": (set(range(19)), set(), {255}),
    "bdd-anomaly": ({*range(16), 18}, {16, 17}, {255}),
    "bdd-anomaly-bicycle": (set(range(16)), {16, 17, 18}, {255}),
    "muad-ood": ({*range(12), 13, 14, 15}, {12, *range(16, 21)}, {21, 255}),
    "bravo-synobjs": ({0}, set(range(1, 256)), set()),
    "bravo-outofcontext": ({0}, set(range(1, 256)), set()),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_images_and_labels_find_each_other(name: str, tmp_path: Path) -> None:
    image, label = PUBLIC[name]
    files = found(get_layout(name), touch(tmp_path, image, label))
    assert files == {str(Path(image).with_suffix("")): (image, label)}


@pytest.mark.parametrize("name", CODES)
def test_codes_mean_what_the_dataset_says(name: str) -> None:
    codes, (known, ood, ignored) = get_layout(name).label_codes, CODES[name]
    for code in range(256):
        expected = 0 if code in known else 1 if code in ood else 255 if code in ignored else None
        try:
            [label] = codes.labels(np.array([code]))
        except ImageError:
            label = None
        assert label == expected, code


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - {"road-anomaly-21", "road-obstacle-21"}))
def test_an_image_whose_label_is_lost_keeps_its_place(name: str, tmp_path: Path) -> None:
    image, label = PUBLIC[name]
    other = [path.replace("0", "9").replace("300", "301") for path in (image, label)]
    touch(tmp_path, image, label, *other)
    (tmp_path / (image if "fishyscapes" in name else label)).unlink()
    assert len(found(get_layout(name), tmp_path)) == 2


def test_hidden_labels_are_no_labels_and_lost_ones_of_validation_images_are_errors(tmp_path: Path) -> None:
    touch(tmp_path, "images/airplane0000.jpg", "images/validation0000.jpg", "images/validation0001.jpg")
    touch(tmp_path, "labels_masks/validation0001_labels_semantic.png", "labels_masks/x_labels_semantic_color.png")
    assert {label for _, label in found(get_layout("road-anomaly-21"), tmp_path).values()} == {
        None,
        "labels_masks/validation0000_labels_semantic.png",
        "labels_masks/validation0001_labels_semantic.png",
    }


@pytest.mark.parametrize(("images", "labels"), [("original", "labels"), ("images", "labels_masks")])
def test_road_anomaly_repacked(images: str, labels: str, tmp_path: Path) -> None:
    touch(tmp_path, f"{images}/a.jpg", f"{labels}/a.png")
    assert found(get_layout("road-anomaly"), tmp_path) == {f"{images}/a": (f"{images}/a.jpg", f"{labels}/a.png")}


class TestFishyscapesStatic:
    """Published as differences from images that another dataset has."""

    FRAME = "frankfurt_000000_000294"

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        for folder in ("labels", "overlays", "leftImg8bit/val/frankfurt"):
            (tmp_path / folder).mkdir(parents=True)
        random = np.random.default_rng(2)
        photo = random.integers(0, 256, (6, 8, 3), np.uint8)
        overlay = random.integers(-300, 300, (6, 8, 3), np.int16)
        (tmp_path / "leftImg8bit/val/frankfurt" / f"{self.FRAME}_leftImg8bit.png").write_bytes(encode_png(photo))
        np.savez(tmp_path / "overlays" / f"0000_{self.FRAME}_rgb.npz", rgb=overlay)
        (tmp_path / "labels" / f"0000_{self.FRAME}_labels.png").write_bytes(encode_png(photo[..., 0] % 2))
        self.expected = np.array(
            [min(max(int(a) + int(b), 0), 255) for a, b in zip(photo.flat, overlay.flat, strict=True)]
        ).reshape(photo.shape)
        return tmp_path

    def test_images_are_composed_once(self, root: Path) -> None:
        for _ in range(2):
            [sample] = get_layout("fishyscapes-static").find(root)
            assert np.array_equal(decode_image(Path(sample.image_uri).read_bytes()), self.expected)
            shutil.rmtree(root / "overlays", ignore_errors=True)

    @pytest.mark.parametrize("spoiled", ["leftImg8bit/val/frankfurt/*.png", "overlays/*.npz"])
    def test_what_cannot_be_composed_is_named(self, root: Path, spoiled: str) -> None:
        [path] = root.glob(spoiled)
        path.write_bytes(b"spoiled")
        with pytest.raises(DatasetError, match=f"cannot compose .*{self.FRAME}_rgb.png"):
            get_layout("fishyscapes-static").find(root)

    def test_nothing_is_written_outside_of_the_dataset(
        self, root: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        (root / "images").symlink_to(elsewhere)
        with pytest.raises(DatasetError, match="images leads outside of the dataset's folder"):
            get_layout("fishyscapes-static").find(root, allow_outside=True)
        assert not list(elsewhere.iterdir())

    def test_pickles_are_not_opened(self, root: Path) -> None:
        np.savez(root / "overlays" / f"0000_{self.FRAME}_rgb.npz", rgb=np.array([{"a": 1}], dtype=object))
        with pytest.raises(DatasetError, match="cannot compose"):
            get_layout("fishyscapes-static").find(root)

    @pytest.mark.parametrize("content", ["empty", "cut short", "damaged", "an npy file"])
    def test_a_spoiled_download_is_named(self, root: Path, content: str) -> None:
        [path] = root.glob("overlays/*.npz")
        whole = bytearray(path.read_bytes())
        if content == "an npy file":
            with path.open("wb") as file:
                np.save(file, np.zeros((6, 8, 3), np.int16))
        elif content == "damaged":
            whole[-180:-150] = bytes(30)
            path.write_bytes(whole)
        else:
            path.write_bytes(whole[: len(whole) // 2] if content == "cut short" else b"")
        with pytest.raises(DatasetError, match="the overlay is damaged or cut short, or no npz file"):
            get_layout("fishyscapes-static").find(root)
        assert not any((root / "images").iterdir())

    @pytest.mark.parametrize(
        ("overlay", "message"),
        [
            (np.zeros((1, 1, 3), np.int16), r"the overlay has the shape \(1, 1, 3\), the image \(6, 8, 3\)"),
            (np.full((6, 8, 3), np.nan, np.float32), r"the overlay \(float32\) holds no signed, finite numbers"),
            (np.zeros((6, 8, 3), np.uint8), r"the overlay \(uint8\) holds no signed, finite numbers"),
        ],
    )
    def test_an_overlay_of_another_kind_is_refused(self, root: Path, overlay: np.ndarray, message: str) -> None:
        np.savez(root / "overlays" / f"0000_{self.FRAME}_rgb.npz", rgb=overlay)
        with pytest.raises(DatasetError, match=message):
            get_layout("fishyscapes-static").find(root)
