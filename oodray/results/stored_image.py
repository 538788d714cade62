"""What a run found in one image, from its row, and its photo and label, from their files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oodray.datasets.images import LabelCodes, decode_image, decode_label, decode_mask, read_bytes, read_label
from oodray.datasets.layouts import get_layout, layout_of
from oodray.datasets.orientation import AS_STORED, turned
from oodray.errors import ImageError, ResultsError
from oodray.method.rule import Rule
from oodray.results.cells import clusters_of
from oodray.results.folder import ResultsFolder
from oodray.results.reading import read_row
from oodray.results.rows import OK

_PLAIN = ["image_id", "status", "dataset", "image_uri", "label_uri", "height", "width", "orientation"]
_PLAIN += ["mask_png", "clusters_png", "ood_fraction", "image_score"]
COLUMNS = [*_PLAIN, "clusters"]
"""Columns of the rows that `stored_images` takes."""


@dataclass(frozen=True, eq=False)
class StoredImage:
    """The row of an image that was processed, and its clusters at the run's setting.

    Attributes:
        image_id: its id.
        dataset: the name of its dataset.
        image_uri: its file.
        label_uri: that of its label, if it has one.
        height: in pixels.
        width: in pixels.
        orientation: the EXIF orientation that was applied.
        ood_fraction: share of the pixels that the mask holds; None of imported scores, as what follows.
        image_score: the largest ratio of a cluster.
        mask: uint8 `(H, W)`, 255 where OoD.
        clusters: ids, uint8 `(H, W)`.
        ratios: r_k of each cluster that has a pixel.
        ood: ids of the OoD clusters.
        codes: what the codes in its label mean; None for those of its dataset.
    """

    image_id: str
    dataset: str
    image_uri: str
    label_uri: str | None
    height: int
    width: int
    orientation: int | None
    ood_fraction: float | None = None
    image_score: float | None = None
    mask: NDArray[np.uint8] | None = None
    clusters: NDArray[np.uint8] | None = None
    ratios: Mapping[int, float] = field(default_factory=dict)
    ood: frozenset[int] = frozenset()
    codes: LabelCodes | None = None

    def ratio_map(self) -> NDArray[np.float64]:
        """The ratio of the cluster of each pixel, `(H, W)`.

        Raises:
            ResultsError: these are imported scores.
        """
        if self.clusters is None:
            raise ResultsError(f"{self.image_id} has imported scores, which have no clusters")
        ratio_of = np.zeros(256)
        ratio_of[list(self.ratios)] = list(self.ratios.values())
        return ratio_of[self.clusters]

    def read_photo(self) -> NDArray[np.uint8]:
        """The image, RGB, uint8 `(H, W, 3)`.

        Raises:
            ResultsError: its file is gone or has changed.
        """
        uri = self.image_uri
        try:
            image = turned(decode_image(read_bytes(uri)), self.orientation or AS_STORED)
        except ImageError as error:
            raise ResultsError(f"{self.image_id} cannot be shown without its image file {uri}: {error}") from error
        if image.shape[:2] != (self.height, self.width):
            raise ResultsError(
                f"{uri} has changed since the run: it is {image.shape[1]}x{image.shape[0]} pixels now, "
                f"then it was {self.width}x{self.height}"
            )
        return image

    def read_label(self) -> NDArray[np.uint8] | str:
        """The label, uint8 `(H, W)`, or in words why there is none."""
        try:
            data = read_label(self.label_uri)
            if data is None:
                return "no label"
            label = decode_label(data, self.codes or get_layout(self.dataset).label_codes)
        except ImageError:
            return "no label: file not readable"
        return label if label.shape == (self.height, self.width) else "no label: size has changed"


def stored_image(folder: ResultsFolder, unit: int, image_id: str, rule: Rule | None) -> StoredImage:
    """An image of a finished unit.

    Args:
        folder: of the run.
        unit: the unit that the image belongs to.
        image_id: an image that was processed.
        rule: the setting at which clusters are judged; None of imported scores, which have none.

    Raises:
        ResultsError: the file cannot be read.
    """
    [found] = stored_images(read_row(folder, unit, image_id, COLUMNS), rule, codes_of_run(folder))
    return found


def codes_of_run(folder: ResultsFolder) -> LabelCodes | None:
    """What codes in label files meant to a run that was told so; None where they are those of its dataset.

    Raises:
        ResultsError: this is no results folder.
    """
    config = folder.read_run()["config"]
    return layout_of(config).label_codes if config.get("label_codes") is not None else None


def stored_images(table: pa.Table, rule: Rule | None, codes: LabelCodes | None = None) -> Iterator[StoredImage]:
    """The processed images of some rows, which have the columns `COLUMNS`; see `stored_image` and `codes_of_run`."""
    for index, row in enumerate(table.select(_PLAIN).to_pylist()):
        masks = {name: row.pop(f"{name}_png") for name in ("mask", "clusters")}
        if row.pop("status") != OK:
            continue
        if rule is None:
            yield StoredImage(**row, codes=codes)
            continue
        maps: dict[str, Any] = {name: decode_mask(data) for name, data in masks.items()}
        yield StoredImage(**row, **maps, **_own_clusters(table["clusters"].slice(index, 1), rule), codes=codes)


def _own_clusters(column: pa.ChunkedArray[Any], rule: Rule) -> dict[str, Any]:
    """The ratios, and which are OoD, of the clusters of one row at the K of a rule."""
    clusters = clusters_of(column)
    own = clusters.k == rule.k
    ids = clusters.cluster[own].tolist()
    return {
        "ratios": dict(zip(ids, clusters.ratio[own].tolist(), strict=True)),
        "ood": frozenset(cluster for cluster, is_ood in zip(ids, clusters.ood(rule)[own], strict=True) if is_ood),
    }
