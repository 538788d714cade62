"""Pictures of results: which images to show, and one PNG for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from oodray.datasets.images import decode_image, decode_label, decode_mask, read_bytes, read_label
from oodray.datasets.layouts import get_layout
from oodray.datasets.orientation import AS_STORED, turned
from oodray.errors import ImageError, ResultsError
from oodray.method.rule import Rule
from oodray.report.panels import ImageResult, panels_of
from oodray.report.sheet import compose
from oodray.results.cells import clusters_of
from oodray.results.folder import ResultsFolder
from oodray.results.one_image import unknown_image
from oodray.results.reading import read_rows, read_unit
from oodray.results.rows import OK
from oodray.storage.atomic import replacing
from oodray.storage.place import Place, is_inside

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = ["image_id", "dataset", "image_uri", "label_uri", "height", "width", "orientation"]
_SHOWN += ["mask_png", "clusters_png", "ood_fraction", "image_score"]


def write_pictures(folder: ResultsFolder, image_id: str | None = None, count: int = 3) -> list[Place]:
    """Draw images of a run with their labels, clusters, ratios and masks: `OUT/pictures/IMAGE_ID.png` for each.

    Args:
        folder: the results; the run may still go on.
        image_id: the image to draw; None draws the `count` with the highest and the `count` with the lowest
            image score.
        count: see `image_id`.

    Returns:
        The files, highest image score first.

    Raises:
        ResultsError: the image is unknown, failed or not done yet; its file is gone or has changed.
        RunError: a picture cannot be written.
    """
    rule = folder.clustering_rule()
    index = read_rows(folder.parts(), ["unit", "image_id", "status", "error", "image_score"]).to_pandas()
    chosen = _extremes(folder, index, count) if image_id is None else [_found(folder, index, image_id)]
    return [_write_picture(folder, rule, unit, chosen_id) for unit, chosen_id in chosen]


def _extremes(folder: ResultsFolder, index: pd.DataFrame, count: int) -> list[tuple[int, str]]:
    """Unit and id of the most and the least anomalous images."""
    good = index[index["status"] == OK].sort_values(["image_score", "image_id"], ascending=[False, True])
    if good.empty:
        raise ResultsError(f"{folder.path} has no image to show yet; `oodray status {folder.path}` says why")
    ranked = list(zip(good["unit"], good["image_id"], strict=True))
    return list(dict.fromkeys(ranked[:count] + ranked[max(0, len(ranked) - count) :]))


def _found(folder: ResultsFolder, index: pd.DataFrame, image_id: str) -> tuple[int, str]:
    """Unit and id of one image."""
    rows = index[index["image_id"] == image_id].to_dict("records")
    if not rows:
        raise unknown_image(folder, image_id)
    if rows[0]["status"] != OK:
        raise ResultsError(f"{image_id} failed, so there is nothing to show: {rows[0]['error']}")
    return int(rows[0]["unit"]), image_id


def _write_picture(folder: ResultsFolder, rule: Rule, unit: int, image_id: str) -> Place:
    table = read_unit(folder, unit, [*_SHOWN, "clusters"])
    table = table.take([table["image_id"].to_pylist().index(image_id)])
    row = table.select(_SHOWN).to_pylist()[0]
    sheet = compose(image_id, _details(row, rule), panels_of(_image_result(row, table["clusters"], rule)))
    target = _picture(folder, image_id)
    with replacing(target) as temporary:
        sheet.save(temporary, format="PNG")
    return target


def _picture(folder: ResultsFolder, image_id: str) -> Place:
    """Where the picture of an image belongs: an id is a path, and its folders are kept."""
    target = folder.pictures / f"{image_id}.png"
    if not is_inside(target.resolve(), folder.pictures.resolve()):
        raise ResultsError(f"the id {image_id!r} leads out of {folder.pictures}; its picture is not written")
    return target


def _image_result(row: dict[str, Any], clusters_column: Any, rule: Rule) -> ImageResult:
    clusters = clusters_of(clusters_column)
    own = clusters.k == rule.k
    ids = clusters.cluster[own].tolist()
    ood = clusters.ood(rule)[own]
    return ImageResult(
        image=_image(row),
        label=_label(row),
        clusters=decode_mask(row["clusters_png"]),
        mask=decode_mask(row["mask_png"]),
        ratios=dict(zip(ids, clusters.ratio[own].tolist(), strict=True)),
        ood=frozenset(cluster for cluster, is_ood in zip(ids, ood, strict=True) if is_ood),
        ood_ratio=rule.ood_ratio,
    )


def _image(row: dict[str, Any]) -> NDArray[np.uint8]:
    uri = row["image_uri"]
    try:
        image = turned(decode_image(read_bytes(uri)), row["orientation"] or AS_STORED)
    except ImageError as error:
        raise ResultsError(f"{row['image_id']} cannot be shown without its image file {uri}: {error}") from error
    if image.shape[:2] != (row["height"], row["width"]):
        raise ResultsError(
            f"{uri} has changed since the run: it is {image.shape[1]}x{image.shape[0]} pixels now, "
            f"then it was {row['width']}x{row['height']}"
        )
    return image


def _label(row: dict[str, Any]) -> NDArray[np.uint8] | str:
    """The label, or why there is none."""
    try:
        data = read_label(row["label_uri"])
        if data is None:
            return "no label"
        label = decode_label(data, get_layout(row["dataset"]).label_codes)
    except ImageError:
        return "no label: file not readable"
    return label if label.shape == (row["height"], row["width"]) else "no label: size has changed"


def _details(row: dict[str, Any], rule: Rule) -> str:
    parts = (
        get_layout(row["dataset"]).title,
        f"K = {rule.k}",
        f"tau = {rule.tau}",
        f"T = {rule.ood_ratio}",
        f"image score {row['image_score']:.3f}",
        f"OoD share {row['ood_fraction']:.1%}",
    )
    return "  |  ".join(parts)
