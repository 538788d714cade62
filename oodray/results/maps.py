"""Maps of an image as a run has stored them: a number for each pixel, of the size of the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.errors import ResultsError
from oodray.metrics.scales import scale_named
from oodray.results.folder import ResultsFolder
from oodray.results.kept_maps import CLASSES, decode_map
from oodray.results.one_image import read_image
from oodray.results.stored_image import stored_image
from oodray.spelling import did_you_mean

STORED = ("ratio",)
"""Scores whose maps follow from what every run stores."""

MAP_COLUMNS = ["image_id", "width", "maps"]
"""Columns of a row that the maps which a run keeps are read from."""


def score_map(folder: ResultsFolder, image_id: str, score: str) -> NDArray[np.float64]:
    """The score of each pixel of an image, `(H, W)`; higher is more out of distribution.

    Args:
        folder: of the run.
        image_id: the image.
        score: its name. The map of `ratio` follows from the stored clusters.

    Raises:
        ResultsError: the run does not store the map of this score; or the image is unknown, failed or not done yet.
    """
    rule = folder.clustering_rule()
    require_map(folder, score)
    if score not in STORED:
        return map_in_row(read_image(folder, image_id, MAP_COLUMNS), score)
    unit = read_image(folder, image_id, ["unit"])["unit"]
    return stored_image(folder, unit, image_id, rule).ratio_map()


def class_map(folder: ResultsFolder, image_id: str) -> NDArray[np.int16]:
    """The predicted class of each pixel of an image, `(H, W)`.

    Raises:
        ResultsError: the run keeps no maps; or the image is unknown, failed or not done yet.
    """
    if not kept_scores(folder):
        raise ResultsError(f"{folder.path} keeps no maps: `oodray run` with --keep-maps does")
    return _kept(read_image(folder, image_id, MAP_COLUMNS), CLASSES)[0].astype(np.int16)


def map_in_row(row: Mapping[str, Any], score: str) -> NDArray[np.float64]:
    """The map of a score that a row of results keeps, see `score_map`.

    Args:
        row: the columns `MAP_COLUMNS` of it.
        score: its name.

    Raises:
        ResultsError: the row lacks it, or it is damaged.
    """
    kept, scale = _kept(row, score)
    return scale_named(scale).scores(kept)


def kept_scores(folder: ResultsFolder) -> tuple[str, ...]:
    """The scores whose maps a run keeps."""
    return tuple(folder.read_run()["config"].get("keep_maps", ()))


def _kept(row: Mapping[str, Any], name: str) -> tuple[NDArray[np.uint16], str | None]:
    """A map that a row keeps, and the scale of its keys."""
    for kept in row["maps"] or ():
        if kept["name"] == name:
            return decode_map(kept["data"], row["width"]), kept["scale"]
    raise ResultsError(f"the results lack the map of {name} of {row['image_id']}: run again with --overwrite")


def require_map(folder: ResultsFolder, score: str) -> None:
    """Refuse a score whose maps a run does not store.

    Raises:
        ResultsError: the run does not store them.
    """
    if score not in STORED and score not in kept_scores(folder):
        counted = folder.read_run()["config"].get("scores", ())
        if score not in counted:
            raise ResultsError(f"{folder.path} has no score {score!r}; {did_you_mean(score, counted, what='scores')}")
        raise ResultsError(
            f"{folder.path} does not store the maps of {score}, only its counts: a run with --keep-maps does; "
            f"`oodray report {folder.path} --recompute` draws them, and `oodray.detect` computes them for one image"
        )
