"""The stages of the stream, each a unit in and a unit out, free of Ray: what the pipeline maps over units.

One image that cannot be processed never takes another one with it: its row carries an error and passes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oodray.datasets.images import LabelCodes, decode_image, decode_label, encode_png, read_bytes
from oodray.errors import ImageError
from oodray.job.results import ERROR, OK, ResultsFolder, write_part
from oodray.job.units import DECODED, SEGMENTED, Rows, pack, unpack
from oodray.method.rule import is_ood, ood_mask, upsample_nearest
from oodray.metrics.tally import IGNORE, Tally, cluster_tallies, first_key_at_least, score_keys
from oodray.models.segmenter import ModelSource, Segmentation, Segmenter, load_segmenter

Row = dict[str, Any]


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


@dataclass(frozen=True)
class Decoder:
    """First stage: read and decode images and labels."""

    label_codes: LabelCodes

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Units of `LISTED` to units of `DECODED`."""
        for unit, rows in unpack(batch):
            yield pack(unit, [self.decode(row) for row in rows], DECODED)

    def decode(self, row: Row) -> Row:
        """A row of `DECODED` from one of the manifest; what is absent is null."""
        start = time.perf_counter()
        try:
            content = self._content(row)
        except ImageError as error:
            content = {"error": str(error)}
        return row | content | {"seconds_decode": time.perf_counter() - start}

    def _content(self, row: Row) -> Row:
        image = decode_image(read_bytes(row["image_uri"]))
        height, width = image.shape[:2]
        content: Row = {"height": height, "width": width, "image": image.tobytes()}
        if row["label_uri"] is not None:
            label = decode_label(read_bytes(row["label_uri"]), self.label_codes)
            if label.shape != (height, width):
                raise ImageError(
                    f"the label {row['label_uri']} is {label.shape[1]}x{label.shape[0]} pixels, "
                    f"its image {width}x{height}"
                )
            content["label"] = label.tobytes()
        return content


class SegmentAndCluster:
    """Second stage, an actor: network, K-Means and pixel scores. Logits and features stay here."""

    def __init__(self, model: ModelSource, device: str, threads: int, method: Method) -> None:
        # OpenMP threads that wait by spinning take the cores from decoding and writing; read when torch is loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        import torch

        # Ray sets OMP_NUM_THREADS=1 in its workers; a run repeats to the last bit with the same number.
        torch.set_num_threads(threads)
        self.method = method
        self.failure: Exception | None = None
        try:
            self.segmenter: Segmenter = load_segmenter(model, device)
        except Exception as error:
            # Ray makes a text with a traceback of an error here, and hands over one of a call as it is.
            self.failure = error

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Units of `DECODED` to units of `SEGMENTED`; raises what kept the network from starting."""
        if self.failure is not None:
            raise self.failure
        for unit, rows in unpack(batch):
            yield pack(unit, self.process(rows), SEGMENTED)

    def process(self, rows: Rows) -> Rows:
        """Rows of `SEGMENTED` from rows of `DECODED`, in order; images of one size share a batch."""
        done: dict[str, Row] = {row["image_id"]: row for row in rows if row["error"] is not None}
        healthy = sorted((row for row in rows if row["error"] is None), key=_size)
        for _, same_size in groupby(healthy, key=_size):
            group = list(same_size)
            for start in range(0, len(group), self.method.batch_size):
                for row in self._segment(group[start : start + self.method.batch_size]):
                    done[row["image_id"]] = row
        return [done[row["image_id"]] for row in rows]

    def _segment(self, rows: Rows) -> Rows:
        start = time.perf_counter()
        # Copies, as PyTorch warns of arrays that cannot be written to.
        images = [_pixels(row, "image", np.uint8, 3).copy() for row in rows]
        try:
            segmentations = check_segmentations(self.segmenter.segment(images), len(images))
        except Exception as error:
            failure = _failure("the network failed", error)
        else:
            seconds = (time.perf_counter() - start) / len(rows)
            return [
                self._cluster(row, segmentation) | {"seconds_segment": seconds}
                for row, segmentation in zip(rows, segmentations, strict=True)
            ]
        if len(rows) == 1:
            return [rows[0] | {"error": failure}]
        # Which image it was shows when each is alone; the others get their results. Not in the handler above,
        # which keeps the memory of the failed batch.
        return [done for row in rows for done in self._segment([row])]

    def _cluster(self, row: Row, segmentation: Segmentation) -> Row:
        from oodray.method.kmeans import cluster_features, kmeans_seed
        from oodray.method.scores import pixel_scores

        start = time.perf_counter()
        method = self.method
        try:
            maps = pixel_scores(segmentation.logits, row["height"], row["width"], method.scores)
            clusters = [
                cluster_features(
                    segmentation.features,
                    k,
                    seed=kmeans_seed(method.seed, row["image_id"], k),
                    normalize=method.normalize_features,
                    backend=method.kmeans_backend,
                    n_init=method.n_init,
                )
                for k in method.ks
            ]
        except Exception as error:
            return row | {"error": _failure("clustering failed", error)}
        return row | {
            "confidence": maps.pop("confidence").tobytes(),
            "score_maps": [{"score": name, "values": values.tobytes()} for name, values in maps.items()],
            "cluster_maps": [
                {"k": k, "height": ids.shape[0], "width": ids.shape[1], "ids": ids.tobytes()}
                for k, ids in zip(method.ks, clusters, strict=True)
            ],
            "seconds_cluster": time.perf_counter() - start,
        }


@dataclass(frozen=True)
class Finisher:
    """Last stage: the rule, mask, tallies and PNGs, and the file of the unit.

    What goes on is one small row per unit: what it took and what failed.
    """

    method: Method
    out: str

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Units of `SEGMENTED` to their summaries."""
        for unit, rows in unpack(batch):
            finished = [self.finish(row) for row in rows]
            write_part(ResultsFolder(self.out), unit, finished)
            yield pa.Table.from_pylist([_summary(unit, finished)], schema=SUMMARY_SCHEMA)

    def finish(self, row: Row) -> Row:
        """A row of the results from a row of `SEGMENTED`."""
        start = time.perf_counter()
        results = {"status": OK} | self._results(row) if row["error"] is None else {"status": ERROR}
        return row | results | {"seconds_finish": time.perf_counter() - start}

    def _results(self, row: Row) -> Row:
        method, size = self.method, _size(row)
        labels = np.full(size, IGNORE, np.uint8) if row["label"] is None else _pixels(row, "label", np.uint8)
        keys = score_keys(_pixels(row, "confidence", np.float16))
        maps = {found["k"]: upsample_nearest(_cluster_ids(found), *size) for found in row["cluster_maps"]}
        tallies = {k: cluster_tallies(ids, keys, labels) for k, ids in maps.items()}
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
    [("unit", pa.int32()), ("ok", pa.int32()), ("failed", pa.int32()), ("errors", pa.list_(pa.string()))]
)
"""What the driver hears of a finished unit; `errors` are `image_id: message`."""


def check_segmentations(segmentations: list[Segmentation], images: int) -> list[Segmentation]:
    """What a segmenter returned, if it keeps to the protocol.

    Raises:
        ImageError: saying what it returned instead.
    """
    if len(segmentations) != images:
        raise ImageError(f"the segmenter returned {len(segmentations)} results for {images} images")
    for found in segmentations:
        _check_map("logits", found.logits)
        _check_map("features", found.features)
    return segmentations


def _check_map(name: str, values: Any) -> None:
    import torch

    if not isinstance(values, torch.Tensor):
        raise ImageError(f"the segmenter returned {name} of type {type(values).__name__}, expected a tensor")
    if values.ndim != 3 or not values.numel() or not values.is_floating_point():
        raise ImageError(
            f"the segmenter returned {name} of {values.dtype} {tuple(values.shape)}, "
            "expected floats (channels, height, width)"
        )


def _summary(unit: int, rows: Rows) -> Row:
    errors = [f"{row['image_id']}: {row['error']}" for row in rows if row["status"] == ERROR]
    return {"unit": unit, "ok": len(rows) - len(errors), "failed": len(errors), "errors": errors}


def _cluster_row(k: int, cluster: int, tally: Tally, tau_key: int) -> Row:
    ratio = _ratio(tally, tau_key)
    return {"k": k, "cluster": cluster, "pixels": tally.pixels(), "ratio": ratio} | _columns(tally)


def _ratio(tally: Tally, tau_key: int) -> float:
    return tally.below(tau_key) / tally.pixels()


def _score_row(found: Row, size: tuple[int, int], labels: NDArray[np.uint8]) -> Row:
    values = np.frombuffer(found["values"], np.float16).reshape(size)
    return {"score": found["score"]} | _columns(Tally.of(score_keys(values), labels))


def _columns(tally: Tally) -> Row:
    return {"keys": tally.keys, "labels": tally.labels, "counts": tally.counts}


def _cluster_ids(found: Row) -> NDArray[np.uint8]:
    return np.frombuffer(found["ids"], np.uint8).reshape(found["height"], found["width"])


def _pixels(row: Row, name: str, dtype: type[np.generic], channels: int | None = None) -> NDArray[Any]:
    shape = (row["height"], row["width"]) if channels is None else (row["height"], row["width"], channels)
    return np.frombuffer(row[name], dtype).reshape(shape)


def _size(row: Row) -> tuple[int, int]:
    return row["height"], row["width"]


def _failure(what: str, error: Exception) -> str:
    return str(error) if isinstance(error, ImageError) else f"{what}: {type(error).__name__}: {error}"
