"""How far a run is, read from its folder: while it goes on, from any process, or afterwards."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from oodray.datasets.manifest import count_images
from oodray.results.folder import ResultsFolder
from oodray.results.reading import closed_wave, read_rows
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

    def as_plain(self) -> dict[str, Any]:
        """The same as plain values for JSON, None where something is not known."""
        speed = self.speed
        return {
            "finished": self.finished,
            "images": self.total,
            "ok": self.ok,
            "failed": self.failed,
            "left": self.left,
            "images_per_second": None if speed is None else speed.images_per_second,
            "speed_with_start_up": None if speed is None else speed.with_start_up,
            "seconds_left": self.seconds_left,
            "errors": [{"message": message, "images": images} for message, images in self.errors],
        }


def read_status(folder: ResultsFolder) -> Status:
    """The state of a run, now.

    Raises:
        ResultsError: `folder` is no results folder, or a file of it cannot be read.
    """
    run = folder.read_run()
    total = count_images(folder.manifest)
    parts = folder.parts()
    statuses = read_rows(parts, ["status"])["status"]
    done = len(statuses)
    errors = _error_rows(parts) if pc.index(statuses, ERROR).as_py() >= 0 else []
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


def _error_rows(parts: list[Place]) -> list[dict[str, Any]]:
    """What is said of the failed images; of a million images that did not fail no address becomes a Python object."""
    columns = ["status", "error", "image_uri", "label_uri"]
    tables = (read_rows([part], columns) for part in parts)
    return [row for table in tables for row in table.filter(pc.equal(table["status"], pa.scalar(ERROR))).to_pylist()]


def _speed(parts: list[Place], images: int, seconds: float) -> Speed | None:
    """See `Speed`; `seconds` are those in run.json, 0 where the run is not finished."""
    if not parts:
        return None
    times = {part: _written(part) for part in parts}
    first = min(parts, key=lambda part: times[part].began)
    span = max(written.ended for written in times.values()) - times[first].began
    if seconds >= span:
        return Speed(images / seconds, with_start_up=True) if seconds > 0 else None
    in_first = times[first].images_of_the_first
    after_first = images - (read_rows([first], ["status"]).num_rows if in_first is None else in_first)
    return Speed(after_first / span, with_start_up=False) if after_first else None


class _Written(NamedTuple):
    """When the first unit of a file was written, and the last; images of that first unit, None for all of the file."""

    began: float
    ended: float
    images_of_the_first: int | None


def _written(part: Place) -> _Written:
    wave = closed_wave(part)
    if wave is not None:
        return _Written(wave.began, wave.ended, wave.images_of_the_first)
    try:
        time = part.stat().st_mtime
    except NotADirectoryError:  # its wave was closed just now
        return _written(part.parent)
    return _Written(time, time, None)


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
