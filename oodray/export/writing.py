"""Exports of whole runs: unit by unit, side by side, continued where one was interrupted.

`DIR/.oodray-export/` says what an export has written: `export.json` which run and which format, and a file for each
unit its names. A name is written down before its file is, so that a file that is there without one is of somebody
else, and is left alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from oodray.analysis.files import FILES_PER_TASK, CountedFiles
from oodray.cluster.shares import usable_cores
from oodray.errors import ResultsError
from oodray.export.format import ExportedImage
from oodray.export.formats import get_format
from oodray.method.rule import Rule
from oodray.results.folder import ResultsFolder, write_json
from oodray.results.maps import require_map, score_map
from oodray.results.stored_image import COLUMNS, StoredImage, codes_of_run, stored_images
from oodray.storage.atomic import replacing
from oodray.storage.place import Place, is_inside, storage_path

LOG = ".oodray-export"
"""The folder inside an export that says what it has written."""

_LAST = "last"  # the log of the files of all images


@dataclass(frozen=True)
class Exported:
    """What an export did.

    Attributes:
        images: images that are in it.
        written: those of them that this call wrote; the others were there.
        files: files that this call wrote.
    """

    images: int
    written: int
    files: int


@dataclass(frozen=True)
class _Job:
    """An export, as a task of Ray takes it."""

    folder: ResultsFolder
    target: Place
    format: str
    score: str
    rule: Rule

    def log(self, name: str) -> Place:
        return self.target / LOG / f"{name}.json"


def export_run(
    folder: ResultsFolder,
    to: str | Place,
    format_name: str,
    *,
    score: str = "ratio",
    on_images: Callable[[int], None] = lambda _: None,
) -> Exported:
    """Write what a run found as files of other programs, or continue to.

    Args:
        folder: of the run; it may still go on.
        to: a folder on a disk or in an object store, made where it is not there. Of its other files none is changed.
        format_name: one of `formats.FORMATS`.
        score: whose map is written, in formats that have one.
        on_images: hears how many more images are done.

    Raises:
        ConfigError: there is no such format.
        ResultsError: these are imported scores; the run does not store the maps of the score; the folder holds an
            export of another run or format, or a file of somebody else's where one would be written.
        RunError: a file cannot be written.
    """
    chosen, rule = get_format(format_name), folder.clustering_rule()
    job = _Job(folder, storage_path(to), format_name, score if chosen.needs_score else "ratio", rule)
    require_map(folder, job.score)
    files = CountedFiles.of(folder)
    _claim(job)
    images = written = count = 0
    for done in _all_units(job, files):
        images, written, count = images + done.images, written + done.written, count + done.files
        on_images(done.images)
    records = [record for part in files.parts for record in _read_log(job.log(part.stem))["records"]]
    count += _write_files(job, _LAST, list(chosen.last_files(records, folder.read_run())), {})
    return Exported(images, written, count)


def _claim(job: _Job) -> None:
    """Say whose export a folder is, or find that it is another's."""
    identity = {"format": job.format, "score": job.score, "run": job.folder.read_run()["identity"]}
    place = job.log("export")
    there = json.loads(place.read_text("utf-8")) if place.exists() else None
    if there is None:
        write_json(place, identity)
    elif json.loads(json.dumps(identity)) != there:
        raise ResultsError(
            f"{job.target} holds an export in the format {there.get('format')} of another run, or of another score; "
            "choose another --to"
        )


def _all_units(job: _Job, files: CountedFiles) -> Iterator[Exported]:
    """The units in any order: here, or by tasks of Ray where there are many."""
    if len(files.parts) <= FILES_PER_TASK:
        with ThreadPoolExecutor(usable_cores()) as threads:
            yield from threads.map(lambda unit: _export_unit(job, unit), files.chunks(1))
        return
    import ray

    from oodray.cluster.session import tasks

    task = ray.remote(_export_units)
    with tasks():
        left = [task.remote(job, chunk) for chunk in files.chunks(FILES_PER_TASK // 8)]
        while left:
            [ready], left = ray.wait(left)
            yield ray.get(ready)


def _export_units(job: _Job, files: CountedFiles) -> Exported:
    done = [_export_unit(job, unit) for unit in files.chunks(1)]
    return Exported(*(sum(getattr(unit, name) for unit in done) for name in ("images", "written", "files")))


def _export_unit(job: _Job, unit: CountedFiles) -> Exported:
    """The images of one file of results."""
    name, chosen = unit.parts[0].stem, get_format(job.format)
    [table] = unit.tables(COLUMNS)
    ids = table.filter([status == "ok" for status in table["status"].to_pylist()])["image_id"].to_pylist()
    log = _read_log(job.log(name))
    if log["done"] and log["images"] == ids:
        return Exported(len(ids), 0, 0)
    images = [_exported(job, stored) for stored in stored_images(table, job.rule, codes_of_run(job.folder))]
    content = list(chosen.unit_files(name, images))
    records = [chosen.record(image) for image in images]
    count = _write_files(job, name, content, {"images": ids, "records": records})
    return Exported(len(ids), len(ids), count)


def _exported(job: _Job, stored: StoredImage) -> ExportedImage:
    assert stored.mask is not None, "a run with a rule has masks"
    # Of all scores the ratio alone needs no other file than the row that is at hand.
    scores = stored.ratio_map() if job.score == "ratio" else score_map(job.folder, stored.image_id, job.score)
    return ExportedImage(stored, stored.mask, job.score, scores)


def _write_files(job: _Job, name: str, content: Sequence[tuple[str, bytes]], more: dict[str, Any]) -> int:
    """Write files, and before and after that the log of them."""
    log = _read_log(job.log(name))
    ours = set(log["files"])
    paths = [path for path, _ in content]
    for path in paths:
        _refuse_foreign(job.target, path, ours)
    write_json(job.log(name), log | more | {"files": sorted(ours | set(paths)), "done": False})
    for path, data in content:
        with replacing(job.target / path) as temporary:
            temporary.write_bytes(data)
    write_json(job.log(name), log | more | {"files": paths, "done": True})
    return len(content)


def _refuse_foreign(target: Place, path: str, ours: Iterable[str]) -> None:
    place = target / path
    if not is_inside(place.resolve(), target.resolve()):
        raise ResultsError(f"the name {path!r} leads out of {target}; it is not written")
    if path not in ours and place.exists():
        raise ResultsError(f"{place} is there, and was not written by this export; choose another --to")


def _read_log(place: Place) -> dict[str, Any]:
    empty: dict[str, Any] = {"files": [], "images": [], "records": [], "done": False}
    return empty | json.loads(place.read_text("utf-8")) if place.exists() else empty
