"""Maps of an image as a run has stored them: a number for each pixel, of the size of the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oodray.errors import ResultsError
from oodray.results.folder import ResultsFolder
from oodray.results.one_image import read_image
from oodray.results.stored_image import stored_image
from oodray.spelling import did_you_mean

STORED = ("ratio",)
"""Scores whose maps follow from what every run stores."""


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
    unit = read_image(folder, image_id, ["unit"])["unit"]
    return stored_image(folder, unit, image_id, rule).ratio_map()


def require_map(folder: ResultsFolder, score: str) -> None:
    """Refuse a score whose maps a run does not store.

    Raises:
        ResultsError: the run does not store them.
    """
    if score not in STORED:
        counted = folder.read_run()["config"].get("scores", ())
        if score not in counted:
            raise ResultsError(f"{folder.path} has no score {score!r}; {did_you_mean(score, counted, what='scores')}")
        raise ResultsError(
            f"{folder.path} does not store the maps of {score}, only its counts: `oodray report {folder.path} "
            "--recompute` draws them, and `oodray.detect` computes them for one image"
        )
