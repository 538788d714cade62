"""Where a run is started, continued or started anew: what its folder holds, and what is left to do."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import oodray
from oodray.datasets.manifest import ListedImage, images_by_unit, read_manifest, slices_by_unit, write_manifest
from oodray.errors import ResultsError, RunError
from oodray.results.folder import ResultsFolder
from oodray.results.numbering import APPENDED
from oodray.results.reading import check_parts, finished_units, read_rows
from oodray.results.rows import ERROR
from oodray.results.waves import remove_closed_parts, remove_waves
from oodray.storage.place import Place, remove_folder

PACKAGES = (
    "ray",
    "torch",
    "triton",
    "mmsegmentation",
    "mmengine",
    "mmcv-lite",
    "mmcv",
    "numpy",
    "pyarrow",
    "scikit-learn",
    "pillow",
    "opencv-python",
    "transformers",
)
"""Packages whose versions `run.json` notes."""


@dataclass(frozen=True)
class Left:
    """What is left to do of a run.

    Attributes:
        images: rows of the manifest.
        finished: units that have a file.
    """

    images: pa.Table
    finished: frozenset[int]

    @property
    def tried_again(self) -> frozenset[int]:
        """Finished units whose failed images are computed again."""
        return self.finished & self.units

    @cached_property
    def units(self) -> frozenset[int]:
        """The units of the images."""
        return frozenset(np.unique(self.images["unit"].to_numpy()).tolist())

    def by_unit(self) -> dict[int, list[ListedImage]]:
        """The images, by unit."""
        return images_by_unit(self.images)

    def slices(self, units: int) -> Iterator[dict[int, list[ListedImage]]]:
        """The images by unit, so many units at a time."""
        return slices_by_unit(self.images, units)


def start_or_continue(
    folder: ResultsFolder,
    manifest: pa.Table,
    identity: Mapping[str, Any],
    description: Mapping[str, Any],
    *,
    append: bool = False,
) -> frozenset[int]:
    """Prepare a folder for a new run, or to go on with the run that it holds; gives the units that have a file.

    Args:
        folder: of the results.
        manifest: one row per image.
        identity: what a continued run must share.
        description: what `run.json` says beside that.
        append: whether the manifest may list images that the run has not seen, after those that it has.

    Raises:
        ResultsError: the folder holds another run; the message names what is different.
        RunError: the folder cannot be written to.
    """
    finished = finished_units(folder)
    if not finished:
        if folder.run.exists():
            folder.read_run()  # refuses a file that is not ours, instead of writing over it
        folder.create()
        folder.remove_leftovers()
        remove_waves(folder)
        write_manifest(manifest, folder.manifest)
        folder.write_run(_made_by(identity) | dict(description))
        return finished
    if not folder.run.exists():
        raise ResultsError(f"{folder.path} holds results without run.json; choose another --out")
    before = folder.read_run()["identity"]
    refuse_another(folder.path, "run", before, {**identity, "manifest": before.get("manifest")} if append else identity)
    check_parts(folder, manifest)
    if not _holds(folder.manifest, manifest):
        write_manifest(manifest, folder.manifest)
    if append and before.get("manifest") != identity["manifest"]:
        # After the manifest: a run that is killed between the two is told to append once more, and then has both.
        _note_appended(folder, identity, description)
    folder.remove_leftovers()
    remove_closed_parts(folder)
    return finished


def other_versions(folder: ResultsFolder) -> str | None:
    """A warning where a run was begun with other versions of the packages that decide its numbers.

    Raises:
        ResultsError: `run.json` cannot be read.
    """
    begun = folder.read_run()
    before, now = (
        {"oodray": begun.get("oodray"), **begun.get("versions", {})},
        {"oodray": oodray.__version__, **_versions()},
    )
    other = [f"{name} {before[name]}, now {now[name]}" for name in now if name in before and before[name] != now[name]]
    if not other:
        return None
    return (
        f"{folder.path} was begun with other versions: {'; '.join(other)}. What is left may differ from it in the last "
        "digits, or in more; --overwrite starts anew"
    )


def what_is_left(
    folder: ResultsFolder, manifest: pa.Table, finished: frozenset[int], *, retry_errors: bool = False
) -> Left:
    """The images whose unit has no file yet; with `retry_errors`, those too that failed in one that has.

    An image with `status="ok"` is never among them: the file of a unit that is tried again keeps it.

    Raises:
        ResultsError: with `retry_errors`, a file cannot be read.
    """
    if not finished:
        return Left(manifest, finished)
    left = pc.invert(pc.is_in(manifest["unit"], pa.array(sorted(finished), pa.int32())))
    if retry_errors:
        left = pc.or_(left, pc.is_in(manifest["image_id"], pa.array(_failed_images(folder), pa.string())))
    return Left(manifest.filter(left), finished)


def start_anew(folder: ResultsFolder) -> None:
    """Remove the run that a folder holds, and nothing else.

    Raises:
        ResultsError: the folder holds results, and no run of oodray that they belong to.
        RunError: a file cannot be removed.
    """
    if not folder.run.exists():
        if folder.parts():
            raise ResultsError(f"{folder.path} holds results without run.json, so they stay; choose another --out")
        return
    folder.read_run()  # refuses a file that is not ours
    try:
        # run.json goes last: as long as a result is there, it says what it belongs to.
        remove_waves(folder)
        remove_measured(folder)
        for path in (*folder.parts(), folder.report, folder.manifest, folder.log, folder.run):
            path.unlink(missing_ok=True)
        for made in (folder.pictures, folder.report_files, folder.reference, folder.totals):
            remove_folder(made)
    except OSError as error:
        raise RunError(f"cannot remove {error.filename}: {error.strerror}") from error


def remove_measured(folder: ResultsFolder) -> None:
    """Remove the numbers of the images that a run had, before it computes further ones.

    Raises:
        OSError: a file cannot be removed.
    """
    for table in (folder.metrics, folder.metrics_json, folder.components, folder.components_summary, folder.sweep):
        table.unlink(missing_ok=True)
    remove_folder(folder.heat_maps)


def finish(folder: ResultsFolder, images: int, failed: int, seconds: float) -> None:
    """Note in `run.json` that the run came to its end, and how many seconds this session took."""
    content = folder.read_run()
    content["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    content["images"] = {"ok": images, "failed": failed}
    content["seconds"] = round(content.get("seconds", 0.0) + seconds, 3)
    folder.write_run(content)


def _note_appended(folder: ResultsFolder, identity: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    """Note in `run.json` that the run has more images, and so has not come to its end."""
    content = folder.read_run()
    images = content.get("dataset", {}).get("images")
    content.pop("finished", None)
    content |= {"identity": dict(identity), APPENDED: [*content.get(APPENDED, []), images]}
    folder.write_run(content | {"dataset": description["dataset"]})


def _failed_images(folder: ResultsFolder) -> list[str]:
    # Of very many rows these two columns are small.
    rows = read_rows(folder.parts(), ["image_id", "status"])
    return cast("list[str]", rows.filter(pc.equal(rows["status"], pa.scalar(ERROR)))["image_id"].to_pylist())


def refuse_another(path: Place, what: str, before: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Refuse to continue, or to take, what has another identity.

    Args:
        path: of the folder that holds it.
        what: a word for it, such as "run".
        before: its identity.
        identity: the one that is asked for.

    Raises:
        ResultsError: naming what is different.
    """
    changed = [name for name in identity if before.get(name) != identity[name]]
    if changed:
        details = "; ".join(difference(name, before.get(name), identity[name]) for name in changed)
        raise ResultsError(
            f"{path} holds a {what} with other settings: {details}. "
            "Choose another --out, or pass --overwrite to start anew"
        )


def _holds(path: Place, manifest: pa.Table) -> bool:
    """Whether a file is that manifest; if it is lost or damaged, nothing is, as the dataset still lists the same."""
    try:
        return bool(read_manifest(path).equals(manifest))
    except ResultsError:
        return False


_DIGESTS = {
    "manifest": "the dataset lists other images or labels (--append takes images that were added)",
    "maps": "the score maps were written anew since, or others are there",
    "model_sha256": "the weights have another content",
    "features_sha256": "the network of the features has another content",
    "code_sha256": "the file that makes the network has another content",
}


def difference(name: str, before: Any, now: Any) -> str:
    """What differs between two identities, in words."""
    return _DIGESTS.get(name, f"{name} was {before!r}, is {now!r}")


def _made_by(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "oodray": oodray.__version__,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "identity": dict(identity),
        "versions": _versions(),
    }


def _versions() -> dict[str, str | None]:
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
