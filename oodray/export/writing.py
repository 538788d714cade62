"""Exports of whole runs: group by group, side by side, continued where one was cut short, or the run was not done."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oodray.analysis.files import FILES_PER_TASK, CountedFiles
from oodray.cluster.shares import usable_cores
from oodray.export.format import ExportedImage, Format, Record
from oodray.export.formats import get_format
from oodray.export.groups import Group, groups_of
from oodray.export.log import Logs, Writing
from oodray.method.rule import Rule
from oodray.results.folder import ResultsFolder
from oodray.results.maps import MAP_COLUMNS, STORED, map_in_row, require_map
from oodray.results.numbering import APPENDED
from oodray.results.stored_image import COLUMNS, codes_of_run, stored_images
from oodray.storage.place import Place, storage_path

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
    logs: Logs
    format: str
    score: str
    rule: Rule


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
    score, logs = score if chosen.needs_score else "ratio", Logs(storage_path(to))
    require_map(folder, score)
    files = CountedFiles.of(folder)
    run = folder.read_run()
    logs.claim({"format": format_name, "score": score, "run": run["identity"]}, grown=bool(run.get(APPENDED)))
    groups = groups_of(folder, files)
    names = {_LAST, *map(_log_name, groups)}
    earlier = frozenset(path for name in logs.superseded(names) for path in logs.read(name)["files"])
    job = _Job(folder, Logs(logs.target, earlier), format_name, score, rule)
    images = written = count = 0
    for done in _all_groups(job, groups):
        images, written, count = images + done.images, written + done.written, count + done.files
        on_images(done.images)
    found = [logs.read(_log_name(group)) for group in groups]
    records = [log["records"][image_id] for log in found for image_id in log["images"]]
    writing = Writing(job.logs, _LAST)
    for path, content in chosen.last_files(records, run):
        count += writing.write(path, content)
    job.logs.remove(names, {path for log in found for path in log["files"]}.union(writing.finish({})))
    return Exported(images, written, count)


def _all_groups(job: _Job, groups: Sequence[Group]) -> Iterator[Exported]:
    """The groups in any order: here, or by tasks of Ray where there are many."""
    if len(groups) <= FILES_PER_TASK:
        with ThreadPoolExecutor(usable_cores()) as threads:
            yield from threads.map(lambda group: _export_group(job, group), groups)
        return
    import ray

    from oodray.cluster.session import tasks

    task = ray.remote(_export_groups)
    size = FILES_PER_TASK // 8
    with tasks():
        left = [task.remote(job, groups[start : start + size]) for start in range(0, len(groups), size)]
        while left:
            [ready], left = ray.wait(left)
            yield ray.get(ready)


def _export_groups(job: _Job, groups: Sequence[Group]) -> Exported:
    done = [_export_group(job, group) for group in groups]
    return Exported(*(sum(getattr(group, name) for group in done) for name in ("images", "written", "files")))


def _export_group(job: _Job, group: Group) -> Exported:
    """The images of a group; one at a time is in memory."""
    chosen = get_format(job.format)
    ids = group.processed()
    log = job.logs.read(_log_name(group))
    if log["done"] and log["images"] == ids:
        return Exported(len(ids), 0, 0)
    # Of a group that a run has gone on with since, the images that are there stay; a file of many is written anew.
    there = frozenset() if chosen.in_groups or not log["done"] else frozenset(log["images"]).intersection(ids)
    records: dict[str, Record] = {name: record for name, record in log["records"].items() if name in there}
    writing = Writing(job.logs, _log_name(group))
    images = _noted(chosen, _exported(job, group, there), records)
    if chosen.in_groups:
        content = chosen.group_files(group.name, images) if ids else iter(())
    else:
        content = (file for image in images for file in chosen.image_files(image))
    files = sum(writing.write(path, data) for path, data in content)
    writing.finish({"images": ids, "records": records}, with_earlier=bool(there))
    return Exported(len(ids), len(ids) - len(there), files)


def _noted(chosen: Format, images: Iterator[ExportedImage], records: dict[str, Record]) -> Iterator[ExportedImage]:
    """The images, with what the format keeps of each."""
    for image in images:
        yield image
        records[image.image_id] = chosen.record(image)


def _exported(job: _Job, group: Group, there: Container[str]) -> Iterator[ExportedImage]:
    """The images of a group, without those that are there."""
    is_kept, codes = job.score not in STORED, codes_of_run(job.folder)
    for row in group.rows([*dict.fromkeys([*COLUMNS, *(MAP_COLUMNS if is_kept else ())])]):
        if row["image_id"][0].as_py() in there:
            continue
        [stored] = stored_images(row, job.rule, codes)
        assert stored.mask is not None, "a run with a rule has masks"
        read_scores = partial(_kept_scores, row.select(MAP_COLUMNS), job.score) if is_kept else stored.ratio_map
        yield ExportedImage(stored, stored.mask, job.score, read_scores)


def _kept_scores(row: pa.Table, score: str) -> NDArray[np.float64]:
    [content] = row.to_pylist()
    return map_in_row(content, score)


def _log_name(group: Group) -> str:
    return f"group-{group.name}"
