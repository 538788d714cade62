"""Formats of whole datasets: FiftyOne, and Parquet as Hugging Face's `datasets` reads it."""

from __future__ import annotations

import base64
import io
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from oodray.datasets.images import read_bytes
from oodray.errors import ImageError
from oodray.export.format import CLASS, ExportedImage, Files, Format, Record, json_file, npy, png

_ROWS_OF_A_GROUP = 16  # of a Parquet file; each holds a whole picture


class FiftyOne(Format):
    """A dataset of FiftyOne: `fiftyone.Dataset.from_dir(DIR, fiftyone.types.FiftyOneDataset)`."""

    name = "fiftyone"
    about = "samples with a Segmentation, a Heatmap and Detections, for fiftyone.types.FiftyOneDataset"
    needs_score = True

    def image_files(self, image: ExportedImage) -> Files:
        """The mask, 1 where OoD, and the score with 8 bits."""
        low, high = _range(image)
        levels = ((image.scores - low) / (high - low) * 255).round().clip(0, 255).astype(np.uint8)
        yield f"fields/ood_mask/{image.image_id}.png", png((image.mask > 0).astype(np.uint8))
        yield f"fields/ood_score/{image.image_id}.png", png(levels)

    def record(self, image: ExportedImage) -> Record:
        """The sample."""
        height, width = image.mask.shape
        return {
            "filepath": image.stored.image_uri,
            "tags": [],
            "_media_type": "image",
            "metadata": {"_cls": "ImageMetadata", "width": width, "height": height},
            "oodray_id": image.image_id,
            "ood_fraction": image.stored.ood_fraction,
            "image_score": image.stored.image_score,
            "ood_mask": {"_cls": "Segmentation", "mask_path": f"fields/ood_mask/{image.image_id}.png"},
            "ood_score": {
                "_cls": "Heatmap",
                "map_path": f"fields/ood_score/{image.image_id}.png",
                "range": [0.0, 255.0],
            },
            "ood_regions": {
                "_cls": "Detections",
                "detections": [
                    {
                        "_cls": "Detection",
                        "label": CLASS,
                        "bounding_box": [left / width, top / height, columns / width, rows / height],
                        "mask": {"$binary": {"base64": _deflated(region.inside), "subType": "00"}},
                        "confidence": region.score,
                        "attributes": {},
                        "tags": [],
                    }
                    for region in image.regions
                    for left, top, columns, rows in [region.box]
                ],
            },
        }

    def last_files(self, records: Sequence[Record], run: Mapping[str, Any]) -> Files:
        """`samples.json` and `metadata.json`."""
        yield "samples.json", json_file({"samples": list(records)})
        yield (
            "metadata.json",
            json_file(
                {
                    "version": "0.25.0",
                    "name": f"oodray-{run['config'].get('dataset')}",
                    "media_type": "image",
                    "sample_fields": {
                        "filepath": "fiftyone.core.fields.StringField",
                        "tags": "fiftyone.core.fields.ListField(fiftyone.core.fields.StringField)",
                        "metadata": "fiftyone.core.fields.EmbeddedDocumentField(fiftyone.core.metadata.ImageMetadata)",
                        "oodray_id": "fiftyone.core.fields.StringField",
                        "ood_fraction": "fiftyone.core.fields.FloatField",
                        "image_score": "fiftyone.core.fields.FloatField",
                        "ood_mask": "fiftyone.core.fields.EmbeddedDocumentField(fiftyone.core.labels.Segmentation)",
                        "ood_score": "fiftyone.core.fields.EmbeddedDocumentField(fiftyone.core.labels.Heatmap)",
                        "ood_regions": "fiftyone.core.fields.EmbeddedDocumentField(fiftyone.core.labels.Detections)",
                    },
                    "info": {"oodray": run.get("oodray"), "model": run.get("model")},
                    "default_mask_targets": {"0": "in-distribution", "1": CLASS},
                }
            ),
        )


class HuggingFace(Format):
    """Parquet files with the images and their masks inside."""

    name = "hf"
    about = "data/*.parquet with the columns image, mask, image_id, ood_fraction, image_score"

    in_groups = True

    def group_files(self, group: str, images: Iterator[ExportedImage]) -> Files:
        """`data/train-GROUP.parquet`."""
        yield f"data/train-{group}.parquet", _parquet(images)


def _parquet(images: Iterator[ExportedImage]) -> bytes:
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features: dict[str, dict[str, str]] = {
        "image": {"_type": "Image"},
        "mask": {"_type": "Image"},
        "image_id": {"dtype": "string", "_type": "Value"},
        "ood_fraction": {"dtype": "float64", "_type": "Value"},
        "image_score": {"dtype": "float64", "_type": "Value"},
    }
    types: dict[str, pa.DataType] = {"string": pa.string(), "float64": pa.float64()}
    schema = pa.schema(
        [pa.field(name, types.get(kind.get("dtype", ""), picture)) for name, kind in features.items()],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema) as writer:
        rows = map(_row, images)
        while some := list(itertools.islice(rows, _ROWS_OF_A_GROUP)):
            writer.write_table(pa.Table.from_pylist(some, schema=schema))
    return buffer.getvalue()


def _row(image: ExportedImage) -> dict[str, Any]:
    stored = image.stored
    try:
        photo: bytes | None = read_bytes(stored.image_uri)
    except ImageError:  # its file is gone; the row is there all the same
        photo = None
    return {
        "image": None if photo is None else {"bytes": photo, "path": PurePosixPath(stored.image_uri).name},
        "mask": {"bytes": png(image.mask), "path": f"{image.name}.png"},
        "image_id": image.image_id,
        "ood_fraction": stored.ood_fraction,
        "image_score": stored.image_score,
    }


def _range(image: ExportedImage) -> tuple[float, float]:
    low, high = float(image.scores.min()), float(image.scores.max())
    return (0.0, 1.0) if 0 <= low <= high <= 1 else (low, high if high > low else low + 1)


def _deflated(inside: Any) -> str:
    """An array as FiftyOne stores one: a file of numpy, deflated."""
    import zlib

    return base64.b64encode(zlib.compress(npy(inside))).decode("ascii")
