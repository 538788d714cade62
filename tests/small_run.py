"""A small results folder, written by hand: no network, no Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.datasets.images import encode_png
from oodray.datasets.manifest import ListedImage, write_manifest
from oodray.metrics.tally import score_keys
from oodray.records import extended, table_of
from oodray.results.folder import ResultsFolder
from oodray.results.parts import write_part
from oodray.results.rows import ERROR, OK, ClusterRow, ResultRow

K, TAU, OOD_RATIO = 3, 1.5, 0.25
HEIGHT, WIDTH = 30, 40
MARK = (slice(0, 6), slice(0, 10))  # top left
CERTAIN, UNSURE = score_keys(np.array([2, 1], np.float16)).tolist()


class SmallRun:
    """Rows to put into a results folder, one unit each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = ResultsFolder(path / "out")
        self.rows: list[ResultRow] = []

    def add(
        self,
        image_id: str,
        *,
        score: float = 0.5,
        label: NDArray[np.uint8] | None = None,
        ratios: Mapping[int, float] | None = None,
    ) -> ResultRow:
        """An image whose mark is cluster 1, OoD; cluster 0 is the rest."""
        marked = np.zeros((HEIGHT, WIDTH), np.uint8)
        marked[MARK] = 1
        ratios = ratios or {0: 0.1, 1: 0.9}
        row = extended(
            ResultRow,
            self._listed(image_id, label),
            height=HEIGHT,
            width=WIDTH,
            status=OK,
            mask_png=encode_png(255 * marked),
            clusters_png=encode_png(marked),
            ood_fraction=float(marked.mean()),
            image_score=score,
            clusters=[
                # Those of another K come first, to be left alone.
                *(_cluster(K + 1, cluster, int((marked == cluster).sum()), 0.6) for cluster in (0, 1)),
                *(_cluster(K, cluster, int((marked == cluster).sum()), ratios[cluster]) for cluster in (0, 1)),
            ],
            tallies=[],
        )
        self.rows.append(row)
        return row

    def fail(self, image_id: str, error: str, **changes: Any) -> ResultRow:
        """An image that could not be processed."""
        row = replace(extended(ResultRow, self._listed(image_id, None), status=ERROR, error=error), **changes)
        self.rows.append(row)
        return row

    def write(self, unwritten: int = 0, **run: Any) -> ResultsFolder:
        """The folder; the last rows can be left out, as if the run went on."""
        self.folder.path.mkdir()
        config = {"k": K, "tau": TAU, "ood_ratio": OOD_RATIO}
        self.folder.write_run({"config": config, "identity": {}} | run)
        listed = [extended(ListedImage, row) for row in self.rows]
        write_manifest(table_of(ListedImage, listed), self.folder.manifest)
        for row in self.rows[: len(self.rows) - unwritten]:
            write_part(self.folder, row.unit, [row])
        return self.folder

    def _listed(self, image_id: str, label: NDArray[np.uint8] | None) -> ListedImage:
        image = np.full((HEIGHT, WIDTH, 3), (0, 0, 250), np.uint8)
        image[MARK] = (250, 0, 0)
        unit = len(self.rows)
        uris = [str(self.path / f"{unit}.{kind}.png") for kind in ("image", "label")]
        Path(uris[0]).write_bytes(encode_png(image))
        if label is not None:
            Path(uris[1]).write_bytes(encode_png(label))
        label_uri = None if label is None else uris[1]
        return ListedImage(unit=unit, image_id=image_id, dataset="road-anomaly", image_uri=uris[0], label_uri=label_uri)


def marked_label() -> NDArray[np.uint8]:
    """In RoadAnomaly's codes: 2, OoD, where the mark is."""
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    label[MARK] = 2
    return label


def _cluster(k: int, cluster: int, pixels: int, ratio: float) -> ClusterRow:
    unsure = round(ratio * pixels)
    return ClusterRow(
        k=k,
        cluster=cluster,
        pixels=pixels,
        ratio=unsure / pixels,
        keys=np.array([UNSURE, CERTAIN], np.uint16),
        labels=np.zeros(2, np.uint8),
        counts=np.array([unsure, pixels - unsure]),
        keys_id=2,
        keys_ood=0,
        keys_ignored=0,
    )
