"""Formats of regions, as tools for labels and for training read them: COCO, YOLO, labelme."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import oodray
from oodray.export.format import CLASS, ExportedImage, Files, Format, Record, json_file
from oodray.export.regions import Region, outlines, run_lengths


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
    """A text file for each image, and the description of the dataset."""

    name = "yolo-seg"
    about = "labels/ID.txt with outlines as shares of the image, and data.yaml; holes of regions are filled"

    def image_files(self, image: ExportedImage) -> Files:
        """A line for each region: the class 0, then x and y of each corner."""
        height, width = image.mask.shape
        lines = []
        for region in image.regions:
            corners, _ = outlines(region)
            numbers = (f"{x / width:.6f} {y / height:.6f}" for x, y in corners)
            lines.append(f"0 {' '.join(numbers)}\n")
        yield f"labels/{image.image_id}.txt", "".join(lines).encode()

    def record(self, image: ExportedImage) -> Record:
        """Where the image is."""
        return {"file": image.stored.image_uri}

    def last_files(self, records: Sequence[Record], run: Mapping[str, Any]) -> Files:  # noqa: ARG002
        """`images.txt`, which lists the images, and `data.yaml`."""
        yield "images.txt", "".join(f"{record['file']}\n" for record in records).encode()
        lines = (f"# Written by oodray {oodray.__version__}.", "train: images.txt", "val: images.txt")
        yield "data.yaml", "\n".join([*lines, "names:", f"  0: {CLASS}", ""]).encode()


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
