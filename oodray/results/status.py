"""How far a run is, read from its folder: while it goes on, from any process, or afterwards."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oodray.datasets.manifest import read_manifest
from oodray.results.folder import ResultsFolder
from oodray.results.reading import read_rows
from oodray.results.rows import ERROR
from oodray.storage.place import Place

MOST_ERRORS = 5
"""Kinds of errors that a status lists."""

_CHANGING = re.compile(
    r"""(?<!\w)b?'[^']*' | (?<!\w)b?"[^"]*" | `[^`]*`  # what is quoted
    | \S*[/\\]\S*                                      # paths
    | \d+                                              # numbers
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Speed:
    """How fast images are finished, failed ones included.

    Attributes:
        images_per_second: above 0.
        with_start_up: True if measured by the seconds in run.json, which include the start of Ray and of the network.
            False if measured from the first results file to the last, because the run is unfinished or a killed
            session recorded no time: without the images of the first file, and with the pauses between sessions.
    """

    images_per_second: float
    with_start_up: bool


@dataclass(frozen=True)
class Status:
    """How far a run is.

    Attributes:
        total: images of the run.
        ok: images with results.
        failed: images with an error.
        left: images not done yet.
        speed: None where there is too little to tell.
        finished: whether the run came to its end.
        errors: the most frequent errors, and how many images have each. Messages that differ only in paths,
            quoted names and numbers count as one, and the first of them stands for all.
    """

    total: int
    ok: int
    failed: int
    left: int
    speed: Speed | None
    finished: bool
    errors: list[tuple[str, int]]

    @property
    def seconds_left(self) -> float | None:
        """Until the last image, at this speed; None where nothing is left, or there is no speed."""
        return self.left / self.speed.images_per_second if self.left and self.speed else None


def read_status(folder: ResultsFolder) -> Status:
    """The state of a run, now.

    Raises:
        ResultsError: `folder` is no results folder, or a file of it cannot be read.
    """
    run = folder.read_run()
    total = read_manifest(folder.manifest).num_rows
    parts = folder.parts()
    rows = read_rows(parts, ["status", "error", "image_uri", "label_uri"]).to_pylist()
    errors = [row for row in rows if row["status"] == ERROR]
    done = len(rows)
    left = total - done
    finished = left == 0 and "finished" in run
    return Status(
        total=total,
        ok=done - len(errors),
        failed=len(errors),
        left=left,
        speed=_speed(parts, done, run.get("seconds", 0) if finished else 0),
        finished=finished,
        errors=_most_frequent(errors),
    )


def _speed(parts: list[Place], images: int, seconds: float) -> Speed | None:
    """See `Speed`; `seconds` are those in run.json, 0 where the run is not finished."""
    if not parts:
        return None
    times = {part: part.stat().st_mtime for part in parts}
    first = min(parts, key=lambda part: times[part])
    span = max(times.values()) - times[first]
    if seconds >= span:
        return Speed(images / seconds, with_start_up=True) if seconds > 0 else None
    after_first: int = images - read_rows([first], ["status"]).num_rows
    return Speed(after_first / span, with_start_up=False) if after_first else None


def _most_frequent(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """The first message of each kind and how many there are, most frequent kind first."""
    examples: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for row in rows:
        kind = _kind(row)
        examples.setdefault(kind, row["error"])
        counts[kind] += 1
    return [(examples[kind], count) for kind, count in counts.most_common(MOST_ERRORS)]


def _kind(row: Mapping[str, Any]) -> str:
    """The message of a row without what changes from image to image."""
    message = str(row["error"])
    # Whole, as a path may hold blanks.
    for uri in (row["image_uri"], row["label_uri"]):
        message = message.replace(uri, "/") if uri else message
    return _CHANGING.sub("*", message)
