"""Scores of other methods, made a run of oodray: the same folder, tallies, metrics and tables.

There is a row per image, with one tally: of the score, and no clusters. `run.json` says so under `imported`, and how
the maps were read: what needs them again reads them the same way, with `oodray.job.imported_maps`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oodray.datasets.images import decode_image, decode_label, read_bytes, read_label
from oodray.datasets.layouts import Layout, layout_of
from oodray.datasets.manifest import (
    LARGEST_UNIT,
    ListedImage,
    build_manifest,
    image_ids,
    listing_digest,
    with_units,
)
from oodray.datasets.orientation import exif_orientation, upright
from oodray.datasets.score_files import method_name
from oodray.datasets.score_maps import has_few_levels
from oodray.errors import ImageError
from oodray.job.finisher import unit_done
from oodray.job.imported_maps import CONFIDENCE, Maps, Reading
from oodray.job.pipeline import UNITS_OF_A_SLICE
from oodray.job.units import UnitDone
from oodray.metrics.scales import Float32
from oodray.metrics.tally import IGNORE
from oodray.records import extended
from oodray.results.continuing import Left, start_or_continue, what_is_left
from oodray.results.folder import ResultsFolder
from oodray.results.numbering import numbered
from oodray.results.parts import write_part
from oodray.results.rows import ERROR, OK, ResultRow, ScoreTally
from oodray.results.waves import close_waves, open_waves, remove_closed_parts
from oodray.settings import Settings
from oodray.storage.place import Place, storage_path

SCALE = Float32()
"""Of the keys: scores are not rounded further than to float32, as a ranking of others is to be kept as it is."""


@dataclass(frozen=True)
class Import:
    """What to import.

    Attributes:
        layout: the dataset's layout.
        root: the dataset's folder.
        manifest: one row per image.
        maps: the score maps.
        score: the name that the scores get.
        labels: the settings `split`, `label_codes` and `labels`, where they were given.
    """

    layout: Layout
    root: Place
    manifest: pa.Table
    maps: Maps
    score: str
    labels: Settings = field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        """What a continued import must share with the one that it continues."""
        return {
            "dataset": self.layout.name,
            "manifest": listing_digest(self.manifest),
            "imported_from": str(self.maps.folder),
            "maps": self.maps.digest(),
            "score": self.score,
            **self.labels,
            **asdict(self.maps.reading),
            "scale": SCALE.name,
        }


def make_import(
    dataset: str,
    root: Path,
    scores: Path,
    *,
    score: str | None,
    reading: Reading | None = None,
    labels: Settings | None = None,
    allow_outside: bool = False,
) -> Import:
    """Find images, labels and score maps; `labels` are settings such as `label_codes`, see `layout_of`.

    Raises:
        ConfigError: the rule of resizing is unknown.
        DatasetError: the dataset or the score maps are not there, or a link leads outside of `root`, unless
            `allow_outside`.
    """
    given = {name: value for name, value in (labels or {}).items() if value is not None}
    layout = layout_of({"dataset": dataset, **given})
    listed = build_manifest(layout, storage_path(root), allow_outside=allow_outside)
    # One process imports, so that units need not be many: each file costs as much as an image or more.
    manifest = with_units(listed, np.arange(listed.num_rows) // LARGEST_UNIT)
    maps = Maps.of(scores.absolute(), manifest, reading or Reading())
    return Import(layout, storage_path(root), manifest, maps, score or method_name(maps.folder, dataset), given)


def import_scores(request: Import, folder: ResultsFolder, on_unit: Callable[[UnitDone], None]) -> None:
    """Write the rows of all images that are not there yet; raises as the steps of it."""
    import_left(request, folder, *begin_import(request, folder), on_unit)


def begin_import(request: Import, folder: ResultsFolder) -> tuple[pa.Table, Left]:
    """Say in a folder what is imported into it; gives the manifest, in units as the folder has them, and what is left.

    Raises:
        ResultsError: the folder holds something else.
        RunError: a file cannot be written.
    """
    description = {
        "dataset": {"name": request.layout.name, "root": str(request.root), "images": request.manifest.num_rows},
        "model": None,
        "config": {"dataset": request.layout.name, "root": str(request.root), "scores": [request.score]}
        | dict(request.labels),
        "imported": {"folder": str(request.maps.folder), **asdict(request.maps.reading)},
    }
    manifest = numbered(folder, request.manifest)
    finished = start_or_continue(folder, manifest, request.identity(), description)
    return manifest, what_is_left(folder, manifest, finished)


def import_left(
    request: Import, folder: ResultsFolder, manifest: pa.Table, left: Left, on_unit: Callable[[UnitDone], None]
) -> None:
    """Write the rows of the images that are left.

    Raises:
        RunError: a file cannot be written.
    """
    open_waves(folder, manifest, left.units)
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
    label = read_label(listed.label_uri)
    if label is None:
        data = read_bytes(listed.image_uri)
        image = upright(decode_image(data), exif_orientation(data), None).pixels
        labels = np.full((image.shape[0], image.shape[1]), IGNORE, np.uint8)
    else:
        labels = decode_label(label, request.layout.label_codes)
    height, width = labels.shape[0], labels.shape[1]
    values = _finite(request.maps(listed.image_id, (height, width)), labels)
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


def _finite(scores: NDArray[np.float32], labels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The scores with a number wherever a pixel is ignored, too; there, what it is makes no difference.

    Raises:
        ImageError: a score is NaN or infinite where a pixel counts.
    """
    finite = np.isfinite(scores)
    if finite.all():
        return scores
    wrong = ~finite & (labels != IGNORE)
    if wrong.any() or not finite.any():
        where = np.argwhere(wrong if wrong.any() else ~finite)[0]
        raise ImageError(
            f"its score map holds NaN or infinity at {max(int(wrong.sum()), 1)} pixels that count, the first in row "
            f"{where[0]}, column {where[1]}: they have no place in a ranking"
        )
    return np.where(finite, scores, scores[finite].min())


def warnings_of(request: Import) -> list[str]:
    """What to say of an import before it begins: images without a map, maps with few levels, confidences."""
    ids = image_ids(request.manifest)
    files = request.maps.files
    found = []
    lacking = [name for name in ids if name not in files]
    if lacking:
        found.append(f"{len(lacking)} of {len(ids)} images have no score map, the first is {lacking[0]}")
    few = [path for path in files.values() if has_few_levels(path)]
    if few:
        found.append(
            f"{len(few)} score maps are PNGs of 8 bits, the first is {few[0]}: 256 levels make large ties, which move "
            "AP and FPR95; write 16 bits, or .npy"
        )
    confidences = [path for path in files.values() if path.stem.endswith(CONFIDENCE)]
    if confidences:
        found.append(
            f"{len(confidences)} score maps are named {CONFIDENCE}, as the confidences of BRAVO: the score is 1 - x"
        )
    return found
