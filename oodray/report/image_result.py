"""What a run found in one image, read from its row, with the image and its label read from their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from oodray.datasets.images import decode_image, decode_label, decode_mask, read_bytes
from oodray.datasets.layouts import get_layout
from oodray.datasets.orientation import AS_STORED, turned
from oodray.errors import ImageError, ResultsError
from oodray.method.rule import Rule
from oodray.results.cells import clusters_of
from oodray.results.folder import ResultsFolder
from oodray.results.reading import read_rows

_PLAIN = ["image_id", "dataset", "image_uri", "label_uri", "height", "width", "orientation"]
_PLAIN += ["mask_png", "clusters_png", "ood_fraction", "image_score"]


@dataclass(frozen=True, eq=False)
class ImageResult:
    """One image with its label and what the run found in it; H and W are its size.

    Attributes:
        image: RGB, uint8 `(H, W, 3)`.
        label: uint8 `(H, W)`, or in words why there is none.
        clusters: ids, uint8 `(H, W)`.
        mask: uint8 `(H, W)`, 255 where OoD.
        ratios: r_k of each cluster that has a pixel.
        ood: ids of the OoD clusters.
        ood_ratio: T.
    """

    image: NDArray[np.uint8]
    label: NDArray[np.uint8] | str
    clusters: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    ratios: dict[int, float]
    ood: frozenset[int]
    ood_ratio: float


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
        if self.label_uri is None:
            return "no label"
        try:
            label = decode_label(read_bytes(self.label_uri), get_layout(self.dataset).label_codes)
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
    table = read_rows([folder.part(unit)], [*_PLAIN, "clusters"])
    table = table.filter(pc.equal(table["image_id"], pa.scalar(image_id))).slice(0, 1)
    row = table.select(_PLAIN).to_pylist()[0]
    masks = {name: row.pop(f"{name}_png") for name in ("mask", "clusters")}
    if rule is None:
        return StoredImage(**row)
    return StoredImage(
        **row,
        **{name: decode_mask(data) for name, data in masks.items()},
        **_own_clusters(table["clusters"], rule),
    )


def image_result(stored: StoredImage, rule: Rule) -> ImageResult:
    """An image with its photo and its label, as a sheet draws it.

    Raises:
        ResultsError: its file is gone or has changed.
    """
    assert stored.clusters is not None, "an image that was judged has clusters"
    assert stored.mask is not None, "and a mask"
    return ImageResult(
        image=stored.read_photo(),
        label=stored.read_label(),
        clusters=stored.clusters,
        mask=stored.mask,
        ratios=dict(stored.ratios),
        ood=stored.ood,
        ood_ratio=rule.ood_ratio,
    )


def _own_clusters(column: pa.ChunkedArray[Any], rule: Rule) -> dict[str, Any]:
    """The ratios, and which are OoD, of the clusters of one row at the K of a rule."""
    clusters = clusters_of(column)
    own = clusters.k == rule.k
    ids = clusters.cluster[own].tolist()
    return {
        "ratios": dict(zip(ids, clusters.ratio[own].tolist(), strict=True)),
        "ood": frozenset(cluster for cluster, is_ood in zip(ids, clusters.ood(rule)[own], strict=True) if is_ood),
    }
