"""One image of a run: its row, found by its id without reading the others."""

from __future__ import annotations

from typing import Any

from oodray.datasets.manifest import image_ids, read_manifest, unit_of_image
from oodray.errors import ResultsError
from oodray.results.folder import ResultsFolder
from oodray.results.reading import read_row
from oodray.results.rows import OK
from oodray.spelling import did_you_mean

MOST_LISTED = 3
"""Known ids that the message for an unknown one lists."""


def read_image(folder: ResultsFolder, image_id: str, columns: list[str]) -> dict[str, Any]:
    """Some columns of an image that was processed.

    Raises:
        ResultsError: the image is unknown, failed or not done yet, or a file cannot be read.
    """
    unit = unit_of_image(folder.manifest, image_id)
    if unit is None or folder.file_of(unit) is None:
        raise unknown_image(folder, image_id)
    rows = read_row(folder, unit, image_id, ["status", "error", *columns]).to_pylist()
    if not rows:
        raise unknown_image(folder, image_id)
    row: dict[str, Any] = rows[0]
    if row["status"] != OK:
        raise ResultsError(f"{image_id} failed, so there is nothing to show: {row['error']}")
    return {name: row[name] for name in columns}


def unknown_image(folder: ResultsFolder, image_id: str) -> ResultsError:
    """The error for an image without a row: the run has not done it yet, or does not know it."""
    known = image_ids(read_manifest(folder.manifest))
    if image_id in known:
        return ResultsError(f"{image_id} is not done yet; run the command of {folder.path} again to continue it")
    holding = [name for name in known if image_id and image_id in name]
    what = "ids that contain it" if holding else "known ids"
    hint = did_you_mean(image_id, holding or known, what=what, most=MOST_LISTED)
    return ResultsError(f"{folder.path} has no image {image_id!r}; {hint}")
