"""The stages before and after the workers, each a unit in and a unit out: what runs as tasks, on CPUs.

One image that cannot be processed never takes another one with it: its row carries an error and passes on.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oodray.datasets.images import LabelCodes, decode_image, decode_label, encode_png, read_bytes
from oodray.datasets.orientation import exif_orientation, upright
from oodray.errors import ImageError, RunError
from oodray.job.attempts import Guard, unguarded
from oodray.job.telemetry import count_images
from oodray.job.units import DECODED, Row, Rows, image_size, pack, pixels, unpack
from oodray.method.rule import is_ood, ood_mask, upsample_nearest
from oodray.metrics.tally import IGNORE, MAX_BITS, Tally, cluster_tallies, coarse_keys, first_key_at_least, score_keys
from oodray.results.folder import ERROR, OK, ResultsFolder, write_part
from oodray.results.reading import read_rows


@dataclass(frozen=True)
class Method:
    """What is done with every image, resolved: see `RunConfig` for the meaning of each setting.

    `scores` are the pixel scores to compute, `ks` the numbers of clusters, of which `k` gives the mask.
    """

    k: int
    ks: tuple[int, ...]
    tau: float
    ood_ratio: float
    seed: int
    normalize_features: bool
    kmeans_backend: str
    n_init: int
    scores: tuple[str, ...]
    batch_size: int
    confidence_bits: int = MAX_BITS


@dataclass(frozen=True)
class Decoder:
    """First stage: read and decode images and labels."""

    label_codes: LabelCodes
    guard: Guard = field(default_factory=unguarded)

    def __call__(self, table: pa.Table) -> pa.Table:
        """A unit of `LISTED` to one of `DECODED`."""
        unit, rows = unpack(table)
        return pack(unit, self.guard.run("decode", rows, self._decode_all), DECODED)

    def _decode_all(self, rows: Rows) -> Rows:
        return [self.decode(row) for row in rows]

    def decode(self, row: Row) -> Row:
        """A row of `DECODED` from one of the manifest; what is absent is null."""
        start = time.perf_counter()
        try:
            content = self._content(row)
        except ImageError as error:
            content = {"error": str(error)}
        return row | content | {"seconds_decode": time.perf_counter() - start}

    def _content(self, row: Row) -> Row:
        data = read_bytes(row["image_uri"])
        stored = decode_image(data)
        label = None
        if row["label_uri"] is not None:
            label = decode_label(read_bytes(row["label_uri"]), self.label_codes)
        label_size = None if label is None else (label.shape[0], label.shape[1])
        image, orientation, warning = upright(stored, exif_orientation(data), label_size)
        height, width = image.shape[:2]
        content: Row = {"height": height, "width": width, "orientation": orientation, "warning": warning}
        if label is not None:
            if label.shape != (height, width):
                raise ImageError(
                    f"the label {row['label_uri']} is {label.shape[1]}x{label.shape[0]} pixels, "
                    f"its image {width}x{height}"
                )
            content["label"] = label.tobytes()
        return content | {"image": image.tobytes()}


@dataclass(frozen=True)
class Finisher:
    """Last stage: the rule, mask, tallies and PNGs, and the file of the unit.

    What goes on is one small row per unit: what it took and what failed.

    Attributes:
        method: the settings.
        out: the results folder.
        guard: of the work on images.
        identity: of the run, as its folder has it. A process may outlive its killed driver: if the folder has come to
            hold another run by then, what is left of this one is not written. None writes always.
        tried_again: units of which failed images alone are computed: their files keep the rows of the others.
    """

    method: Method
    out: str
    guard: Guard = field(default_factory=unguarded)
    identity: Mapping[str, Any] | None = None
    tried_again: Collection[int] = ()

    def __call__(self, table: pa.Table) -> pa.Table:
        """A unit of `SEGMENTED` to its summary."""
        unit, rows = unpack(table)
        tried = self.guard.run("finish", rows, self._finish_all)
        # What was given up was not finished, and is finished as an error.
        finished = [row if "status" in row else self.finish(row) for row in tried]
        self._write(unit, finished)
        count_images(finished)
        return pa.Table.from_pylist([summary(unit, finished)], schema=SUMMARY_SCHEMA)

    def _write(self, unit: int, rows: Rows) -> None:
        """Write the file of a unit, with the rows that it has of images that were not tried again."""
        folder = ResultsFolder(self.out)
        if self.identity is not None and folder.read_run()["identity"] != self.identity:
            raise RunError(f"another run was started in {folder.path}: nothing of this one is written there any more")
        if unit in self.tried_again:
            computed = {row["image_id"] for row in rows}
            kept = [row for row in read_rows([folder.part(unit)]).to_pylist() if row["image_id"] not in computed]
            # A manifest ascends by image.
            rows = sorted([*kept, *rows], key=lambda row: str(row["image_id"]))
        write_part(folder, unit, rows)

    def _finish_all(self, rows: Rows) -> Rows:
        return [self.finish(row) for row in rows]

    def finish(self, row: Row) -> Row:
        """A row of the results from a row of `SEGMENTED`."""
        start = time.perf_counter()
        results = {"status": OK} | self._results(row) if row["error"] is None else {"status": ERROR}
        return row | results | {"seconds_finish": time.perf_counter() - start}

    def _results(self, row: Row) -> Row:
        method, size = self.method, image_size(row)
        labels = np.full(size, IGNORE, np.uint8) if row["label"] is None else pixels(row, "label", np.uint8)
        keys = score_keys(pixels(row, "confidence", np.float16))
        maps = {found["k"]: upsample_nearest(_cluster_ids(found), *size) for found in row["cluster_maps"]}
        counted = coarse_keys(keys, method.confidence_bits)
        tallies = {k: cluster_tallies(ids, counted, labels) for k, ids in maps.items()}
        own, tau_key = tallies[method.k], first_key_at_least(method.tau)
        flagged = {
            cluster for cluster, tally in own.items() if is_ood(tally.below(tau_key), tally.pixels(), method.ood_ratio)
        }
        mask = ood_mask(maps[method.k], flagged)
        return {
            "mask_png": encode_png(mask),
            "clusters_png": encode_png(maps[method.k]),
            "ood_fraction": np.count_nonzero(mask) / mask.size,
            "image_score": max(_ratio(tally, tau_key) for tally in own.values()),
            "clusters": [
                _cluster_row(k, cluster, tally, tau_key)
                for k, found in tallies.items()
                for cluster, tally in found.items()
            ],
            "tallies": [_score_row(found, size, labels) for found in row["score_maps"]],
        }


SUMMARY_SCHEMA = pa.schema(
    [
        ("unit", pa.int32()),
        ("ok", pa.int32()),
        ("failed", pa.int32()),
        ("errors", pa.list_(pa.string())),
        ("warnings", pa.list_(pa.string())),
    ]
)
"""What the driver hears of a finished unit; `errors` and `warnings` are `image_id: message`."""


def summary(unit: int, rows: Rows) -> Row:
    """What the driver hears of a finished unit: a row of `SUMMARY_SCHEMA`."""
    errors = [f"{row['image_id']}: {row['error']}" for row in rows if row["status"] == ERROR]
    warnings = [f"{row['image_id']}: {row['warning']}" for row in rows if row["warning"]]
    counts = {"ok": len(rows) - len(errors), "failed": len(errors)}
    return {"unit": unit} | counts | {"errors": errors, "warnings": warnings}


def _cluster_row(k: int, cluster: int, tally: Tally, tau_key: int) -> Row:
    ratio = _ratio(tally, tau_key)
    return {"k": k, "cluster": cluster, "pixels": tally.pixels(), "ratio": ratio} | tally_columns(tally)


def _ratio(tally: Tally, tau_key: int) -> float:
    return tally.below(tau_key) / tally.pixels()


def _score_row(found: Row, size: tuple[int, int], labels: NDArray[np.uint8]) -> Row:
    values = np.frombuffer(found["values"], np.float16).reshape(size)
    return {"score": found["score"]} | tally_columns(Tally.of(score_keys(values), labels))


def tally_columns(tally: Tally) -> Row:
    """A tally as the results store it."""
    return {"keys": tally.keys, "labels": tally.labels, "counts": tally.counts}


def _cluster_ids(found: Row) -> NDArray[np.uint8]:
    return np.frombuffer(found["ids"], np.uint8).reshape(found["height"], found["width"])
