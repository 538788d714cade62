from __future__ import annotations

import io
import json
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import packed
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin
from places import on_disk
from runs import Run, in_parts
from small_run import SmallRun, marked_label

from oodray.api.run import open_run
from oodray.datasets.layouts import get_layout
from oodray.errors import ConfigError, ResultsError
from oodray.export.formats import FORMATS
from oodray.export.log import LOG
from oodray.export.writing import export_run
from oodray.job.importing import import_scores, make_import
from oodray.results.folder import ResultsFolder
from oodray.results.names import Wave
from oodray.results.stored_image import StoredImage
from oodray.results.waves import close_waves

CONFIG = {"dataset": "road-anomaly", "k": 3, "tau": 1.5, "ood_ratio": 0.25, "scores": ["ratio"]}


def files_of(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and LOG not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def masks(run: Run) -> dict[str, NDArray[np.uint8]]:
    opened = open_run(run.folder.path)
    return {image_id: opened.mask(image_id) for image_id in opened.images["image_id"]}


def filled(points: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    from matplotlib.path import Path as Polygon

    rows, columns = np.indices(shape)
    centres = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
    return Polygon(points).contains_points(centres).reshape(shape)


@pytest.mark.parametrize("name", FORMATS)
def test_a_second_export_writes_nothing(clean: Run, tmp_path: Path, name: str) -> None:
    pytest.importorskip("h5py")
    first = export_run(clean.folder, tmp_path, name)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if LOG not in path.parts}
    second = export_run(clean.folder, tmp_path, name)
    assert (first.images, first.written, second.images, second.written) == (10, 10, 10, 0)
    changed = [path for path, time in before.items() if path.is_file() and path.stat().st_mtime_ns != time]
    assert len(changed) == second.files  # those of all images


@pytest.mark.parametrize("name", ["png", "smiyc", "fishyscapes", "ade-ood"])
def test_exported_scores_measure_the_same(clean: Run, tiny_dataset: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("h5py")
    export_run(clean.folder, tmp_path / "export", name)
    out = ResultsFolder(tmp_path / "imported")
    request = make_import("ade-ood", tiny_dataset, tmp_path / "export", score="ratio-map")
    import_scores(request, out, lambda _: None)
    imported = open_run(out.path).metrics.set_index("score").loc["ratio-map"]
    ours = open_run(clean.folder.path).metrics.set_index("score").loc["ratio"]
    for metric in ("ap", "fpr95", "auroc"):
        assert imported[metric] == pytest.approx(ours[metric], abs=1e-3)


def test_png(clean: Run, tmp_path: Path) -> None:
    export_run(clean.folder, tmp_path, "png")
    opened = open_run(clean.folder.path)
    for image_id, mask in masks(clean).items():
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"{image_id}_mask.png")), mask)
        with Image.open(tmp_path / f"{image_id}_score.png") as picture:
            text = getattr(picture, "text")  # noqa: B009 of PNG alone
            assert (text["score"], text["low"], text["high"]) == ("ratio", "0.0", "1.0")
            levels = np.asarray(picture, np.float64)
        assert np.abs(levels / 65535 - opened.score_map(image_id, "ratio")).max() < 1e-5
        with Image.open(tmp_path / f"{image_id}_overlay.jpg") as overlay:
            assert overlay.size == mask.shape[::-1]


def test_coco(clean: Run, tmp_path: Path) -> None:
    export_run(clean.folder, tmp_path, "coco")
    content = json.loads((tmp_path / "annotations.json").read_text())
    known = masks(clean)
    found = {image["id"]: np.zeros((image["height"], image["width"]), int) for image in content["images"]}
    for region in content["annotations"]:
        lengths = region["segmentation"]["counts"]
        flat = np.repeat(np.arange(len(lengths)) % 2, lengths)
        inside = flat.reshape(region["segmentation"]["size"], order="F")
        left, top, width, height = region["bbox"]
        assert inside[top : top + height, left : left + width].sum() == inside.sum() == region["area"]
        assert 0 <= region["score"] <= 1
        found[region["image_id"]] += inside
    for image in content["images"]:
        np.testing.assert_array_equal(255 * found[image["id"]], known[image["oodray_id"]])
    numbers = [region["id"] for region in content["annotations"]]
    assert numbers == list(range(1, len(numbers) + 1))


def with_one_region(tmp_path: Path) -> SmallRun:
    """An image a/b whose mask is the box from (0, 0) to (10, 6) of 40 x 30 pixels."""
    run = SmallRun(tmp_path)
    run.add("a/b", label=marked_label())
    run.write(config=CONFIG)
    return run


def test_yolo(tmp_path: Path) -> None:
    run = with_one_region(tmp_path)
    export_run(run.folder, tmp_path / "to", "yolo-seg")
    kind, *numbers = (tmp_path / "to" / "labels" / "a" / "b.txt").read_text().split()
    corners = np.array(numbers, float).reshape(-1, 2) * (40, 30)
    assert kind == "0"
    assert sorted(corners.round(3).tolist()) == [[0, 0], [0, 6], [10, 0], [10, 6]]
    picture = tmp_path / "to" / "images" / "a" / "b.png"
    assert picture.is_symlink()
    assert picture.samefile(run.rows[0].image_uri)


def trained_on(folder: Path) -> list[tuple[Path, Path]]:
    """Images and labels as YOLO pairs them: the path of a label is that of its image with the last /images/ changed."""
    import yaml

    content = yaml.safe_load((folder / "data.yaml").read_text())
    assert content["train"] == content["val"] == "images"
    pictures = sorted(path for path in (folder / content["train"]).rglob("*") if path.suffix in (".png", ".jpg"))
    return [(path, Path("/labels/".join(str(path).rsplit("/images/", 1))).with_suffix(".txt")) for path in pictures]


def test_yolo_finds_a_label_for_every_image(clean: Run, tmp_path: Path) -> None:
    export_run(clean.folder, tmp_path, "yolo-seg")
    found = trained_on(tmp_path)
    assert len(found) == 10
    for picture, label in found:
        image_id = picture.relative_to(tmp_path / "images").with_suffix("")
        assert label.read_text() == (tmp_path / "labels" / f"{image_id}.txt").read_text()
        assert picture.stat().st_size


def test_yolo_has_copies_of_what_lies_in_shards(tmp_path: Path) -> None:
    run = SmallRun(tmp_path)
    data = Path(run.add("a").image_uri).read_bytes()
    packed.tar(tmp_path / "a.tar", [("0.png", data)])
    [sample] = get_layout("webdataset").find(tmp_path / "a.tar")
    run.rows[0] = replace(run.rows[0], image_uri=sample.image_uri)
    run.add("gone")
    Path(run.rows[1].image_uri).unlink()
    run.write(config=CONFIG)
    export_run(run.folder, tmp_path / "to", "yolo-seg")
    assert (tmp_path / "to" / "images" / "a.png").read_bytes() == data
    assert trained_on(tmp_path / "to") == [(tmp_path / "to/images/a.png", tmp_path / "to/labels/a.txt")]
    assert export_run(run.folder, tmp_path / "to", "yolo-seg").written == 0


def test_labelme(tmp_path: Path) -> None:
    run = with_one_region(tmp_path)
    export_run(run.folder, tmp_path / "to", "labelme")
    content = json.loads((tmp_path / "to" / "a" / "b.json").read_text())
    [shape] = content["shapes"]
    assert filled([*shape["points"], shape["points"][0]], (30, 40)).sum() == 60
    assert (content["imageWidth"], content["imageHeight"], content["imageData"]) == (40, 30, None)


def test_geojson_in_pixels(tmp_path: Path) -> None:
    run = with_one_region(tmp_path)
    export_run(run.folder, tmp_path / "to", "geojson")
    content = json.loads((tmp_path / "to" / "a" / "b.geojson").read_text())
    [feature] = content["features"]
    [ring] = feature["geometry"]["coordinates"]
    assert ring[0] == ring[-1]
    assert sorted(ring[:-1]) == [[0, 0], [0, 6], [10, 0], [10, 6]]
    assert "crs" not in content
    assert feature["properties"]["pixels"] == 60


def of_geotiff(tmp_path: Path, *tags: tuple[int, int, Any]) -> dict[str, Any]:
    """The GeoJSON of an image with tags: number, type, value."""
    run = with_one_region(tmp_path)
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, kind, value in tags:
        directory.tagtype[tag] = kind
        directory[tag] = value
    buffer = io.BytesIO()
    with Image.open(run.rows[0].image_uri) as picture:
        picture.save(buffer, "TIFF", tiffinfo=directory)
    Path(run.rows[0].image_uri).write_bytes(buffer.getvalue())
    export_run(run.folder, tmp_path / "to", "geojson")
    content: dict[str, Any] = json.loads((tmp_path / "to" / "a" / "b.geojson").read_text())
    return content


SCALE, TIE = (33550, 12, (2.0, 2.0, 0.0)), (33922, 12, (0.0, 0.0, 0.0, 500_000.0, 4_000_000.0, 0.0))
FULL = (34264, 12, (2.0, 0.0, 0.0, 500_000.0, 0.0, -2.0, 0.0, 4_000_000.0, *(0.0,) * 7, 1.0))
IS_AREA, IS_POINT = ((34735, 3, (1, 1, 0, 2, 1025, 0, 1, kind, 3072, 0, 1, 32633)) for kind in (1, 2))


@pytest.mark.parametrize("place", [(SCALE, TIE), (FULL,)])
@pytest.mark.parametrize(("keys", "moved"), [(IS_AREA, 0), (IS_POINT, 1)])
def test_geojson_on_a_map(place: Any, keys: Any, moved: int, tmp_path: Path) -> None:
    """A pixel is 2 wide. Where it is a point, the tie is at its centre: its corner lies 1 to the left and above."""
    content = of_geotiff(tmp_path, *place, keys)
    [ring] = content["features"][0]["geometry"]["coordinates"]
    corners = [[500_000, 3_999_988], [500_000, 4_000_000], [500_020, 3_999_988], [500_020, 4_000_000]]
    assert sorted(ring[:-1]) == [[x - moved, y + moved] for x, y in corners]
    assert content["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    x, y = np.array(ring).T
    assert np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) > 0, "the outside of a polygon runs counter-clockwise"


@pytest.mark.parametrize(
    ("tags", "is_on_map"),
    [
        (((33550, 12, 2.0), TIE), False),  # of one value
        ((SCALE, TIE, (34735, 3, 1)), True),
        ((SCALE, (33922, 2, "nowhere")), False),
        ((SCALE, (33922, 12, (0.0, 0.0, 0.0, float("nan"), 1.0, 0.0))), False),
        ((SCALE, TIE, (34735, 2, "keys")), True),
    ],
)
def test_geojson_of_odd_tags(tags: Any, is_on_map: bool, tmp_path: Path) -> None:
    content = of_geotiff(tmp_path, *tags)
    [ring] = content["features"][0]["geometry"]["coordinates"]
    assert (max(x for x, _ in ring) == 500_020) == is_on_map
    assert "crs" not in content


def test_fiftyone(tmp_path: Path) -> None:
    import base64
    import zlib

    run = with_one_region(tmp_path)
    export_run(run.folder, tmp_path / "to", "fiftyone")
    [sample] = json.loads((tmp_path / "to" / "samples.json").read_text())["samples"]
    [found] = sample["ood_regions"]["detections"]
    assert found["bounding_box"] == [0, 0, 10 / 40, 6 / 30]
    stored = zlib.decompress(base64.b64decode(found["mask"]["$binary"]["base64"]))
    assert np.load(io.BytesIO(stored)).tolist() == [[True] * 10] * 6
    mask = np.asarray(Image.open(tmp_path / "to" / sample["ood_mask"]["mask_path"]))
    assert (mask.sum(), mask.max()) == (60, 1)
    heat = np.asarray(Image.open(tmp_path / "to" / sample["ood_score"]["map_path"]))
    assert (heat[0, 0], heat[-1, -1]) == (round(0.9 * 255), round(0.1 * 255))
    fields = json.loads((tmp_path / "to" / "metadata.json").read_text())["sample_fields"]
    assert {name for name in sample if not name.startswith("_")} <= set(fields)


def test_hugging_face(clean: Run, tmp_path: Path) -> None:
    export_run(clean.folder, tmp_path, "hf")
    known = masks(clean)
    rows = [row for path in sorted(tmp_path.glob("data/train-*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert [row["image_id"] for row in rows] == list(known)
    for row in rows:
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(row["mask"]["bytes"]))), known[row["image_id"]])
        assert Image.open(io.BytesIO(row["image"]["bytes"])).size == known[row["image_id"]].shape[::-1]
    features = json.loads(pq.read_schema(next(tmp_path.glob("data/*"))).metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}


def test_an_interrupted_export_continues(clean: Run, tmp_path: Path) -> None:
    export_run(clean.folder, tmp_path / "whole", "png")
    export_run(clean.folder, tmp_path / "cut", "png")
    [log] = (tmp_path / "cut" / LOG).glob("group-*.json")
    content = json.loads(log.read_text())
    log.write_text(json.dumps(content | {"done": False}))  # as if it had been killed while it wrote these
    (tmp_path / "cut" / content["files"][0]).unlink()
    done = export_run(clean.folder, tmp_path / "cut", "png")
    assert done.written == len(content["images"])
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def going_on(clean: Run, path: Path) -> tuple[ResultsFolder, Callable[[], None]]:
    """A run of which five images are done, and what does the others and closes the wave."""
    shutil.copytree(str(clean.folder.path), path, symlinks=True)
    folder = in_parts(ResultsFolder(path))
    hidden = [(part, part.with_name(f".{part.name}")) for part in map(on_disk, folder.parts()[2:-3])]
    for part, away in hidden:
        part.rename(away)

    def finish() -> None:
        for part, away in hidden:
            away.rename(part)
        close_waves(folder)
        assert [Wave.of(part.name) for part in folder.parts()] != [None]

    return folder, finish


@pytest.mark.parametrize("name", ["png", "coco", "yolo-seg", "hf"])
def test_the_export_of_a_run_that_goes_on_continues(clean: Run, tmp_path: Path, name: str) -> None:
    export_run(clean.folder, tmp_path / "whole", name)
    folder, finish = going_on(clean, tmp_path / "run")
    assert export_run(folder, tmp_path / "to", name).images == 5
    finish()
    done = export_run(folder, tmp_path / "to", name)
    assert (done.images, done.written) == (10, 10 if name == "hf" else 5)
    assert files_of(tmp_path / "to") == files_of(tmp_path / "whole")


def test_groups_are_the_same_however_the_results_lie(
    clean: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With groups that the row groups of a wave do not match."""
    monkeypatch.setattr("oodray.export.groups.IMAGES_OF_A_GROUP", 3)
    monkeypatch.setattr("oodray.export.groups.UNITS_OF_A_GROUP", 1)
    folder, finish = going_on(clean, tmp_path / "run")
    export_run(folder, tmp_path / "to", "hf")
    finish()
    assert export_run(folder, tmp_path / "to", "hf").images == 10
    read = [row["image_id"] for path in sorted(tmp_path.glob("to/data/*")) for row in pq.read_table(path).to_pylist()]
    assert len(list(tmp_path.glob("to/data/*"))) == 4
    assert read == list(masks(clean))


def test_logs_and_files_of_earlier_names_are_taken_over(clean: Run, tmp_path: Path) -> None:
    export_run(clean.folder, tmp_path / "whole", "hf")
    export_run(clean.folder, tmp_path / "to", "hf")
    [data] = (tmp_path / "to" / "data").iterdir()
    data.rename(data.with_name("train-part-000000-000009-0000.parquet"))
    [log] = (tmp_path / "to" / LOG).glob("group-*.json")
    log.with_name("part-000000-000009-0000.json").write_text(
        log.read_text().replace(data.name, "train-part-000000-000009-0000.parquet")
    )
    log.unlink()
    export_run(clean.folder, tmp_path / "to", "hf")
    assert files_of(tmp_path / "to") == files_of(tmp_path / "whole")
    assert sorted(path.name for path in (tmp_path / "to" / LOG).iterdir()) == [
        "export.json",
        "group-000000.json",
        "last.json",
    ]


def test_an_export_holds_one_image_at_a_time(clean: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    alive: weakref.WeakSet[StoredImage] = weakref.WeakSet()
    made = StoredImage.ratio_map

    def ratio_map(stored: StoredImage) -> NDArray[np.float64]:
        alive.add(stored)
        held.append(len(alive))
        return made(stored)

    monkeypatch.setattr(StoredImage, "ratio_map", ratio_map)
    export_run(clean.folder, tmp_path / "png", "png")
    assert len(held) == 10
    assert max(held) <= 2  # the one that the loop has just left may be there still
    export_run(clean.folder, tmp_path / "hf", "hf")
    assert len(held) == 10, "a format without scores makes no map of them"


def test_files_of_others_are_left_alone(clean: Run, tmp_path: Path) -> None:
    image_id = open_run(clean.folder.path).images["image_id"].iloc[-1]
    theirs = tmp_path / f"{image_id}_mask.png"
    theirs.parent.mkdir(parents=True, exist_ok=True)
    theirs.write_text("mine")
    with pytest.raises(ResultsError, match=r"_mask\.png is there, and was not written by this export"):
        export_run(clean.folder, tmp_path, "png")
    assert theirs.read_text() == "mine"


def test_a_folder_holds_one_export(clean: Run, tmp_path: Path) -> None:
    export_run(clean.folder, tmp_path, "coco")
    with pytest.raises(ResultsError, match="holds an export in the format coco"):
        export_run(clean.folder, tmp_path, "labelme")


def test_ids_do_not_lead_out(tmp_path: Path) -> None:
    run = SmallRun(tmp_path / "run")
    (tmp_path / "run").mkdir()
    run.add("../../out")
    run.write(config=CONFIG)
    with pytest.raises(ResultsError, match="leads out of"):
        export_run(run.folder, tmp_path / "a" / "b", "labelme")
    assert not (tmp_path / "out.json").exists()


def test_what_cannot_be_exported_is_refused(clean: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'coco'"):
        export_run(clean.folder, tmp_path, "cocoo")
    with pytest.raises(ResultsError, match="does not store the maps of energy"):
        export_run(clean.folder, tmp_path / "b", "png", score="energy")
    with pytest.raises(ResultsError, match="did you mean 'energy'"):
        export_run(clean.folder, tmp_path / "b", "png", score="enrgy")
    assert list(tmp_path.iterdir()) == []
