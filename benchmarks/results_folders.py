"""Results folders of synthetic images, as a run would leave them: for what reads tallies and no image."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oodray.datasets.manifest import MANIFEST_SCHEMA, write_manifest
from oodray.job.finisher import Finisher
from oodray.job.units import ClusterMap, ScoreMap, SegmentedImage
from oodray.method.settings import MethodSettings
from oodray.metrics.scales import Real
from oodray.records import table_of
from oodray.results.encoding import rows_writer
from oodray.results.folder import ResultsFolder
from oodray.results.joining import BYTES_OF_A_GROUP, LABELLED_UNITS_OF_A_WAVE
from oodray.results.names import Wave
from oodray.results.parts import write_part
from oodray.results.reading import CLOSED_KEY, ClosedWave
from oodray.results.rows import ResultRow
from oodray.scores.registry import DEFAULT_SCORES as SCORES
from oodray.scores.registry import are_pixel_scores
from oodray.storage.atomic import replacing

HEIGHT, WIDTH = 720, 1280


def method(ks: tuple[int, ...], scores: tuple[str, ...]) -> MethodSettings:
    """The settings of the synthetic runs."""
    return MethodSettings(
        k=ks[0],
        ks=ks,
        tau=1.5,
        ood_ratio=0.3,
        seed=0,
        normalize_features=False,
        kmeans_backend="torch",
        n_init=1,
        scores=scores,
        batch_size=1,
    )


def segmented(index: int, method: MethodSettings) -> SegmentedImage:
    """What a worker would hand on: smooth confidences, and clusters and labels that follow them."""
    rng = np.random.default_rng(index)
    cells = rng.normal(size=(12, 20)).astype(np.float32)
    smooth = np.kron(cells, np.ones((HEIGHT // 12, WIDTH // 20), np.float32))
    confidence = 5 + 2 * smooth + rng.normal(scale=0.7, size=smooth.shape).astype(np.float32)
    label = (smooth < -1.2).astype(np.uint8)
    label[: HEIGHT // 20] = 255
    blocks = cells.repeat(4, 0).repeat(4, 1)

    def clusters(k: int) -> NDArray[np.uint8]:
        edges = np.quantile(blocks, np.linspace(0, 1, k + 1)[1:-1])
        return np.searchsorted(edges, blocks + rng.normal(scale=0.3, size=blocks.shape)).astype(np.uint8)

    return SegmentedImage(
        unit=index,
        image_id=f"{index:06}",
        dataset="synthetic",
        image_uri=f"/{index:06}.png",
        label_uri=None,
        height=HEIGHT,
        width=WIDTH,
        label=label,
        confidence=confidence.astype(np.float16),
        cluster_maps=[
            ClusterMap(k=k, height=blocks.shape[0], width=blocks.shape[1], ids=clusters(k)) for k in method.ks
        ],
        score_maps=[
            ScoreMap(
                score=name,
                scale=Real().name,
                height=HEIGHT,
                width=WIDTH,
                keys=Real().keys((-confidence * (1 + number)).astype(np.float32)),
            )
            for number, name in enumerate(method.scores)
        ],
    )


def write_folder(path: Path, images: int, ks: tuple[int, ...]) -> ResultsFolder:
    """A folder of that many different images, one a file."""
    folder, asked = _empty(path, ks), method(ks, ())
    finisher = Finisher(asked, str(path))
    for index in range(images):
        row = replace(finisher.finish(segmented(index, asked)), seconds_decode=0.0)
        write_part(folder, index, [row])
    return folder


def write_large_folder(path: Path, images: int, ks: tuple[int, ...], images_per_unit: int = 8) -> ResultsFolder:
    """A folder of very many images in closed waves: ids of their own, the content of the same few.

    Masks and maps are left out. No counts are kept.
    """
    folder, asked = _empty(path, ks), method(ks, are_pixel_scores(SCORES))
    finisher = Finisher(asked, str(path))
    rows = [finisher.finish(segmented(index, asked)) for index in range(images_per_unit)]
    table = table_of(ResultRow, [replace(row, mask_png=None, clusters_png=None) for row in rows])
    units = images // images_per_unit
    for first in range(0, units, LABELLED_UNITS_OF_A_WAVE):
        _write_wave(folder, Wave(first, min(first + LABELLED_UNITS_OF_A_WAVE, units) - 1), table)
    return folder


def _write_wave(folder: ResultsFolder, wave: Wave, unit_of_images: pa.Table) -> None:
    """A closed wave, as `oodray.results.joining.join` writes it, of units that hold the same but for their ids."""
    images = unit_of_images.num_rows
    group_of_units = -(-BYTES_OF_A_GROUP // unit_of_images.nbytes)
    with replacing(folder.results / wave.name) as temporary, rows_writer(temporary) as writer:
        for first in range(wave.first, wave.last + 1, group_of_units):
            units = range(first, min(first + group_of_units, wave.last + 1))
            columns: dict[str, pa.Array[Any]] = {
                "unit": pa.array([unit for unit in units for _ in range(images)], pa.int32()),
                "image_id": pa.array([f"{unit:06}-{index}" for unit in units for index in range(images)]),
            }
            group = pa.concat_tables([unit_of_images] * len(units))
            for name, values in columns.items():
                at = group.schema.get_field_index(name)
                group = group.set_column(at, group.schema.field(at), values)
            writer.write_table(group, row_group_size=group.num_rows)
        closed = ClosedWave(wave.first, wave.last, 0.0, 0.0, images)
        writer.add_key_value_metadata({CLOSED_KEY: json.dumps(asdict(closed))})


def _empty(path: Path, ks: tuple[int, ...]) -> ResultsFolder:
    folder = ResultsFolder(path)
    folder.create()
    asked = method(ks, ())
    config = {"dataset": "synthetic", "k": asked.k, "tau": asked.tau, "ood_ratio": asked.ood_ratio}
    folder.write_run({"config": config | {"sweep_k": list(ks), "scores": list(SCORES)}, "identity": {}})
    write_manifest(MANIFEST_SCHEMA.empty_table(), folder.manifest)
    return folder
