"""The workers: actors that hold the network, and all that happens where the logits are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import groupby

import numpy as np
import pyarrow as pa

from oodray.errors import ImageError
from oodray.job.attempts import Guard, unguarded
from oodray.job.process_memory import leave_out_of_collections, set_up_process
from oodray.job.stages import Method
from oodray.job.telemetry import BusyShare
from oodray.job.units import SEGMENTED, Row, Rows, image_size, pack, pixels, unpack
from oodray.models.dtype import FLOAT32
from oodray.models.loading import load_segmenter
from oodray.models.segmenter import Segmentation, Segmenter, check_segmentations
from oodray.models.source import ModelSource


class SegmentAndCluster:
    """Second stage, an actor: network, K-Means and pixel scores. Logits and features stay here."""

    def __init__(
        self,
        model: ModelSource,
        device: str,
        threads: int,
        method: Method,
        *,
        dtype: str = FLOAT32,
        guard: Guard | None = None,
    ) -> None:
        set_up_process()
        import torch

        # Ray sets OMP_NUM_THREADS=1 in its workers; a run repeats to the last bit with the same number.
        torch.set_num_threads(threads)
        self.method = method
        self.guard = guard or unguarded()
        self.busy = BusyShare()
        self.failure: Exception | None = None
        try:
            self.segmenter: Segmenter = load_segmenter(model, device, dtype)
        except Exception as error:
            # Ray makes a text with a traceback of an error here, and hands over one of a call as it is.
            self.failure = error
        leave_out_of_collections()

    def __call__(self, table: pa.Table) -> pa.Table:
        """A unit of `DECODED` to one of `SEGMENTED`; raises what kept the network from starting.

        No generator: of those Ray would run several at once where it hands over the next unit early.
        """
        if self.failure is not None:
            raise self.failure
        unit, rows = unpack(table)
        with self.busy:
            done = self.process(rows)
        return pack(unit, done, SEGMENTED)

    def process(self, rows: Rows) -> Rows:
        """Rows of `SEGMENTED` from rows of `DECODED`, in order; images of one size share a batch."""
        done: dict[str, Row] = {row["image_id"]: row for row in rows if row["error"] is not None}
        healthy = [row for row in rows if row["error"] is None]
        if healthy:
            for row in self.guard.run("segment and cluster", healthy, self._segment, self._batches):
                done[row["image_id"]] = row
        return [done[row["image_id"]] for row in rows]

    def _batches(self, rows: Rows) -> Iterator[Rows]:
        for _, same_size in groupby(sorted(rows, key=image_size), key=image_size):
            group = list(same_size)
            for start in range(0, len(group), self.method.batch_size):
                yield group[start : start + self.method.batch_size]

    def _segment(self, rows: Rows) -> Rows:
        start = time.perf_counter()
        # Copies, as PyTorch warns of arrays that cannot be written to.
        images = [pixels(row, "image", np.uint8, 3).copy() for row in rows]
        try:
            segmentations = check_segmentations(self.segmenter.segment(images), len(images))
        except Exception as error:
            failure = _failure("the network failed", error)
        else:
            seconds = (time.perf_counter() - start) / len(rows)
            return [row | {"seconds_segment": seconds} for row in self._cluster(rows, segmentations)]
        # Not in the handler above, which keeps the memory of the failed batch.
        return _each_alone(rows, failure, lambda index: self._segment([rows[index]]))

    def _cluster(self, rows: Rows, segmentations: list[Segmentation]) -> Rows:
        start = time.perf_counter()
        try:
            found = [self._maps(*pair) for pair in zip(rows, segmentations, strict=True)]
            clusters = self._cluster_maps(rows, segmentations)
        except Exception as error:
            failure = _failure("clustering failed", error)
        else:
            seconds = {"seconds_cluster": (time.perf_counter() - start) / len(rows)}
            return [row | maps | ids | seconds for row, maps, ids in zip(rows, found, clusters, strict=True)]
        return _each_alone(rows, failure, lambda index: self._cluster([rows[index]], [segmentations[index]]))

    def _maps(self, row: Row, segmentation: Segmentation) -> Row:
        from oodray.method.scores import pixel_scores

        maps = pixel_scores(segmentation.logits, row["height"], row["width"], self.method.scores)
        return {
            "confidence": maps.pop("confidence").tobytes(),
            "score_maps": [{"score": name, "values": values.tobytes()} for name, values in maps.items()],
        }

    def _cluster_maps(self, rows: Rows, segmentations: list[Segmentation]) -> Rows:
        from oodray.method.kmeans import cluster_features, kmeans_seed

        method = self.method
        clusters = cluster_features(
            [segmentation.features for segmentation in segmentations],
            method.ks,
            seeds=[[kmeans_seed(method.seed, row["image_id"], k) for k in method.ks] for row in rows],
            normalize=method.normalize_features,
            backend=method.kmeans_backend,
            n_init=method.n_init,
        )
        return [
            {
                "cluster_maps": [
                    {"k": k, "height": ids.shape[0], "width": ids.shape[1], "ids": ids.tobytes()}
                    for k, ids in zip(method.ks, of_image, strict=True)
                ]
            }
            for of_image in clusters
        ]


def _each_alone(rows: Rows, failure: str, again: Callable[[int], Rows]) -> Rows:
    """After a batch failed: which image it was shows when each is alone; the others get their results."""
    if len(rows) == 1:
        return [rows[0] | {"error": failure}]
    return [done for index in range(len(rows)) for done in again(index)]


def _failure(what: str, error: Exception) -> str:
    return str(error) if isinstance(error, ImageError) else f"{what}: {type(error).__name__}: {error}"
