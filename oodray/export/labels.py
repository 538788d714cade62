"""Formats of regions, as tools for labels and for training read them: COCO, YOLO, labelme."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

import oodray
from oodray.datasets.images import FORMATS, read_bytes
from oodray.datasets.members import member_of
from oodray.errors import ImageError
from oodray.export.format import CLASS, ExportedImage, Files, Format, Original, Record, json_file
from oodray.export.regions import Region, outlines, run_lengths
from oodray.storage.remote import is_remote

_SUFFIX_OF = {"PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif"}
_SUFFIXES = frozenset({".jpg", ".jpeg", ".tiff", *_SUFFIX_OF.values()})


class Coco(Format):
    """One file with all regions."""

    name = "coco"
    about = "annotations.json: the regions of all masks as run lengths, with box, area in pixels and score"

    def record(self, image: ExportedImage) -> Record:
        """The image and its regions, numbered from 0."""
        height, width = image.mask.shape
        return {
            "image_id": image.image_id,
            "file_name": image.stored.image_uri,
            "height": height,
            "width": width,
            "regions": [
                {
                    "segmentation": {"size": [height, width], "counts": run_lengths(region, height, width)},
                    "area": region.pixels,
                    "bbox": list(region.box),
                    "score": region.score,
                }
                for region in image.regions
            ],
        }

    def last_files(self, records: Sequence[Record], run: Mapping[str, Any]) -> Files:  # noqa: ARG002
        """`annotations.json`."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, record in enumerate(records, start=1):
            images.append({name: record[name] for name in ("file_name", "height", "width")} | {"id": number})
            images[-1]["oodray_id"] = record["image_id"]
            for region in record["regions"]:
                known = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
                annotations.append(known | region)
        yield (
            "annotations.json",
            json_file(
                {
                    "info": {"description": f"OoD regions by oodray {oodray.__version__}", "version": "1.0"},
                    "images": images,
                    "annotations": annotations,
                    "categories": [{"id": 1, "name": CLASS, "supercategory": ""}],
                }
            ),
        )


class YoloSeg(Format):
    """A dataset as YOLO trains on one: images, a text file for each, and the description of the dataset."""

    name = "yolo-seg"
    about = "images/ID, labels/ID.txt with outlines as shares of the image, and data.yaml; holes of regions are filled"

    def image_files(self, image: ExportedImage) -> Files:
        """The image, and a line for each region: the class 0, then x and y of each corner."""
        height, width = image.mask.shape
        lines = []
        for region in image.regions:
            corners, _ = outlines(region)
            numbers = (f"{x / width:.6f} {y / height:.6f}" for x, y in corners)
            lines.append(f"0 {' '.join(numbers)}\n")
        label = "".join(lines).encode()
        for path in dict.fromkeys((f"labels/{image.image_id}.txt", _label_path(image.image_id))):
            yield path, label
        try:
            suffix, content = _picture(image)
        except (ImageError, OSError):  # its file is gone; the label is there all the same
            return
        yield f"images/{image.image_id}{suffix}", content

    def last_files(self, records: Sequence[Record], run: Mapping[str, Any]) -> Files:  # noqa: ARG002
        """`data.yaml`."""
        lines = (f"# Written by oodray {oodray.__version__}.", "train: images", "val: images")
        yield "data.yaml", "\n".join([*lines, "names:", f"  0: {CLASS}", ""]).encode()


def _label_path(image_id: str) -> str:
    """Where YOLO looks for a label: in place of the last folder `images` on the way to the image, one called `labels`.

    >>> _label_path("a/b"), _label_path("images/00")
    ('labels/a/b.txt', 'images/labels/00.txt')
    """
    return "/labels/".join(f"/images/{image_id}".rsplit("/images/", 1))[1:] + ".txt"


def _picture(image: ExportedImage) -> tuple[str, bytes | Original]:
    """The suffix and the content of an image; the suffix tells YOLO whether a file is one."""
    uri = image.stored.image_uri
    is_file = member_of(uri) is None
    if is_file and PurePosixPath(uri).suffix.lower() in _SUFFIXES and (is_remote(uri) or Path(uri).is_file()):
        return PurePosixPath(uri).suffix, Original(uri)
    data = read_bytes(uri)
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        return _SUFFIX_OF.get(opened.format or "", ".jpg"), data


class Labelme(Format):
    """A JSON file for each image, as labelme opens it."""

    name = "labelme"
    about = "ID.json with outlines as polygons; holes of regions are filled"

    def image_files(self, image: ExportedImage) -> Files:
        """One JSON file; the image is named, not copied."""
        height, width = image.mask.shape
        content = {
            "version": "5.5.0",
            "flags": {},
            "shapes": [_shape(region) for region in image.regions],
            "imagePath": image.stored.image_uri,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        yield f"{image.image_id}.json", json.dumps(content, indent=1).encode()


def _shape(region: Region) -> dict[str, Any]:
    corners, _ = outlines(region)
    return {
        "label": CLASS,
        "points": [[float(x), float(y)] for x, y in corners],
        "group_id": None,
        "description": f"score {region.score:.4f}, {region.pixels} pixels",
        "shape_type": "polygon",
        "flags": {},
    }
