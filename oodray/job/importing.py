"""Scores of other methods, made a run of oodray: the same folder, tallies, metrics and tables.

There is a row per image, with one tally: of the score, and no clusters. `run.json` says so under `imported`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oodray.datasets.images import decode_image, decode_label, read_bytes, read_label
from oodray.datasets.layouts import Layout, get_layout
from oodray.datasets.manifest import ListedImage, build_manifest, image_ids, manifest_digest
from oodray.datasets.orientation import exif_orientation, upright
from oodray.datasets.score_maps import find_score_files, read_scores
from oodray.errors import ConfigError, ImageError
from oodray.job.finisher import unit_done
from oodray.job.pipeline import UNITS_OF_A_SLICE
from oodray.job.units import UnitDone
from oodray.metrics.scales import Float32
from oodray.metrics.tally import IGNORE
from oodray.records import extended
from oodray.results.continuing import start_or_continue, what_is_left
from oodray.results.folder import ResultsFolder
from oodray.results.parts import write_part
from oodray.results.rows import ERROR, OK, ResultRow, ScoreTally
from oodray.results.waves import close_waves, open_waves, remove_closed_parts
from oodray.storage.place import Place, storage_path

RESIZES = ("nearest", "bilinear")
"""How a score map of another size than its label is brought to it; without one of them it is an error."""

SCALE = Float32()
"""Of the keys: scores are not rounded further than to float32, as a ranking of others is to be kept as it is."""

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Import:
    """What to import.

    Attributes:
        layout: the dataset's layout.
        root: the dataset's folder.
        manifest: one row per image.
        files: the score file of each image that has one.
        score: the name that the scores get.
        folder: where they are from.
        resize: one of `RESIZES`, or None.
    """

    layout: Layout
    root: Place
    manifest: pa.Table
    files: dict[str, Path]
    score: str
    folder: Path
    resize: str | None

    def identity(self) -> dict[str, Any]:
        """What a continued import must share with the one that it continues."""
        return {
            "dataset": self.layout.name,
            "manifest": manifest_digest(self.manifest),
            "imported_from": str(self.folder),
            "score": self.score,
            "resize": self.resize,
            "scale": SCALE.name,
        }


def make_import(
    dataset: str, root: Path, scores: Path, *, score: str | None, resize: str | None, allow_outside: bool = False
) -> Import:
    """Find images, labels and score maps.

    Raises:
        ConfigError: the rule of resizing is unknown.
        DatasetError: the dataset or the score maps are not there, or a link leads outside of `root`, unless
            `allow_outside`.
    """
    if resize is not None and resize not in RESIZES:
        raise ConfigError(f"--resize must be one of {', '.join(RESIZES)}, not {resize!r}")
    layout = get_layout(dataset)
    manifest = build_manifest(layout, storage_path(root), allow_outside=allow_outside)
    files = find_score_files(scores.absolute(), image_ids(manifest))
    name = score or scores.absolute().name
    return Import(layout, storage_path(root), manifest, files, name, scores.absolute(), resize)


def import_scores(request: Import, folder: ResultsFolder, on_unit: Callable[[UnitDone], None]) -> None:
    """Write the rows of all images that are not there yet.

    Raises:
        ResultsError: the folder holds something else.
        RunError: a file cannot be written.
    """
    description = {
        "dataset": {"name": request.layout.name, "root": str(request.root), "images": request.manifest.num_rows},
        "model": None,
        "config": {"dataset": request.layout.name, "root": str(request.root), "scores": [request.score]},
        "imported": {"folder": str(request.folder), "resize": request.resize},
    }
    finished = start_or_continue(folder, request.manifest, request.identity(), description)
    left = what_is_left(folder, request.manifest, finished)
    open_waves(folder, request.manifest, left.units)
    for slice_of_units in left.slices(UNITS_OF_A_SLICE):
        for unit, images in slice_of_units.items():
            rows = [_row(request, image) for image in images]
            write_part(folder, unit, rows)
            on_unit(unit_done(rows))
    close_waves(folder)
    remove_closed_parts(folder)


def _row(request: Import, listed: ListedImage) -> ResultRow:
    """A row of the results."""
    start = time.perf_counter()
    try:
        row = _imported(request, listed)
    except ImageError as error:
        row = extended(ResultRow, listed, status=ERROR, error=str(error))
    return replace(row, seconds_finish=time.perf_counter() - start)


def _imported(request: Import, listed: ListedImage) -> ResultRow:
    path = request.files.get(listed.image_id)
    if path is None:
        raise ImageError(f"no score map below {request.folder} is named after this image")
    scores = read_scores(path)
    label = read_label(listed.label_uri)
    if label is None:
        data = read_bytes(listed.image_uri)
        image = upright(decode_image(data), exif_orientation(data), None).pixels
        labels = np.full((image.shape[0], image.shape[1]), IGNORE, np.uint8)
    else:
        labels = decode_label(label, request.layout.label_codes)
    height, width = labels.shape[0], labels.shape[1]
    values = _rounded(path, _resized(path, scores, (height, width), request.resize))
    return extended(
        ResultRow,
        listed,
        status=OK,
        height=height,
        width=width,
        image_score=float(values.max()),
        clusters=[],
        tallies=[ScoreTally.of(request.score, SCALE.name, SCALE.keys(values), labels)],
    )


def _resized(path: Path, scores: NDArray[Any], size: tuple[int, int], rule: str | None) -> NDArray[Any]:
    """The scores at the size of the label."""
    if scores.shape == size:
        return scores
    if rule is None:
        raise ImageError(
            f"the score map {path} is {scores.shape[1]}x{scores.shape[0]}, the label {size[1]}x{size[0]}: "
            "pass --resize bilinear or --resize nearest, whichever its method uses"
        )
    import torch
    from torch.nn.functional import interpolate

    # nearest-exact takes the pixel that a new one's centre lies in, as OpenCV and Pillow do; "nearest" is a bit off.
    mode = {"nearest": "nearest-exact", "bilinear": "bilinear"}[rule]
    tensor = torch.from_numpy(np.ascontiguousarray(scores))[None, None]
    return np.asarray(interpolate(tensor, size, mode=mode)[0, 0].numpy())


def _rounded(path: Path, scores: NDArray[Any]) -> NDArray[np.float32]:
    """The scores as float32, which tallies count exactly."""
    if np.abs(scores).max() > _LARGEST:
        raise ImageError(
            f"{path} holds scores beyond {_LARGEST:g}, the largest float32; divide all of them by a number"
        )
    return scores.astype(np.float32)


def missing_warning(request: Import) -> str | None:
    """What to say if images lack a score map."""
    lacking = [name for name in image_ids(request.manifest) if name not in request.files]
    if not lacking:
        return None
    return f"{len(lacking)} of {request.manifest.num_rows} images have no score map, the first is {lacking[0]}"
