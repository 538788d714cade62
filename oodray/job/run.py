"""A run from plan to metrics: start or continue, stream, evaluate."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow as pa

import oodray
from oodray.analysis.evaluation import Evaluation, evaluate_run
from oodray.cluster.nodes import nodes
from oodray.cluster.pool import choose_pool, describe
from oodray.cluster.session import connected
from oodray.cluster.shared_storage import check_shared_storage
from oodray.cluster.signals import noted
from oodray.datasets.manifest import read_manifest, write_manifest
from oodray.errors import ResultsError, RunError
from oodray.job.pipeline import stream
from oodray.job.plan import Plan
from oodray.results.folder import ERROR, ResultsFolder
from oodray.results.reading import check_parts, read_rows
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
)


@dataclass(frozen=True)
class UnitDone:
    """What the driver hears while a run goes on: counts since its start, the new errors and warnings."""

    ok: int
    failed: int
    errors: list[str]
    warnings: list[str] = field(default_factory=list)


def run(
    plan: Plan,
    folder: ResultsFolder,
    on_unit: Callable[[UnitDone], None],
    *,
    retry_errors: bool = False,
    on_start: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Compute what is not there yet, then evaluate everything; `start_or_continue` comes before.

    With `retry_errors`, images that are there with an error count as not there. `on_start` hears how the run is
    scheduled.

    Raises:
        ConfigError: if the cluster cannot have the workers, or a node does not see a file.
        RunError: if the run fails, all images failing included.
    """
    left = left_images(plan.manifest, folder, retry_errors=retry_errors)
    units = left["unit"].unique()
    started = time.monotonic()
    if left.num_rows:
        with connected(plan.config.ray_address, local_cpus=plan.local_cpus()):
            machines = nodes()
            pool = choose_pool(plan.config, plan.device, len(units), machines)
            check_shared_storage(plan.places(), folder, machines)
            on_start(
                describe(
                    pool,
                    len(units),
                    machines,
                    batch_size=plan.config.batch_size,
                    weights_bytes=plan.weights_bytes(),
                )
            )
            with noted() as stopped:
                for summary in stream(plan, left, folder, pool):
                    on_unit(UnitDone(**{name: value for name, value in summary.items() if name != "unit"}))
                    if stopped.is_set():
                        raise KeyboardInterrupt
            evaluation = evaluate_run(folder)
    else:
        evaluation = evaluate_run(folder)
    # A run may have been killed after its last unit.
    if left.num_rows or "finished" not in folder.read_run():
        _finish(folder, evaluation, time.monotonic() - started)
    if evaluation.images == 0:
        raise RunError(
            f"all {evaluation.failed} images failed; `oodray status {folder.path}` shows the most frequent errors"
        )
    return evaluation


def left_images(manifest: pa.Table, folder: ResultsFolder, *, retry_errors: bool = False) -> pa.Table:
    """The rows of a manifest whose unit has no file yet; with `retry_errors`, those too that failed in one that has.

    What is there with `status="ok"` is never among them: the file of a unit that is tried again keeps it.
    """
    finished = folder.finished_units()
    failed = _failed_images(folder) if retry_errors else frozenset()
    rows = zip(manifest["unit"].to_pylist(), manifest["image_id"].to_pylist(), strict=True)
    left = [unit not in finished or image_id in failed for unit, image_id in rows]
    return manifest.filter(pa.array(left, pa.bool_()))


def _failed_images(folder: ResultsFolder) -> frozenset[str]:
    columns = ["image_id", "status"]
    # File by file, as messages and masks are not needed, and there may be very many rows.
    tables = (read_rows([part], columns).to_pylist() for part in folder.parts())
    return frozenset(row["image_id"] for rows in tables for row in rows if row["status"] == ERROR)


def start_anew(folder: ResultsFolder) -> None:
    """Remove the run that a folder holds, and nothing else.

    Raises:
        ResultsError: the folder holds results, and no run of oodray that they belong to.
        RunError: a file cannot be removed.
    """
    if not folder.run.exists():
        if folder.finished_units():
            raise ResultsError(f"{folder.path} holds results without run.json, so they stay; choose another --out")
        return
    folder.read_run()  # refuses a file that is not ours
    files = (folder.metrics, folder.metrics_json, folder.sweep, folder.manifest)
    try:
        # run.json goes last: as long as a result is there, it says what it belongs to.
        for path in (*folder.parts(), *files, folder.run):
            path.unlink(missing_ok=True)
        for pictures in (folder.pictures, folder.heat_maps):
            remove_folder(pictures)
    except OSError as error:
        raise RunError(f"cannot remove {error.filename}: {error.strerror}") from error


def start_or_continue(plan: Plan, folder: ResultsFolder) -> None:
    """Prepare the folder for a new run, or check that it holds an earlier part of this one.

    A run without a single finished unit is no obstacle: it was refused, or stopped at once.

    Raises:
        ResultsError: naming what is different from the run in the folder.
    """
    prepare_folder(folder, plan.manifest, plan.identity(), _description(plan))


def prepare_folder(
    folder: ResultsFolder, manifest: pa.Table, identity: Mapping[str, Any], description: Mapping[str, Any]
) -> None:
    """The same for whatever fills a results folder; `run.json` gets the description, and what `_made_by` adds.

    Raises:
        ResultsError: naming what is different from the run in the folder.
    """
    finished = folder.finished_units()
    if not finished:
        if folder.run.exists():
            folder.read_run()  # refuses a file that is not ours, instead of writing over it
        folder.create()
        folder.remove_leftovers()
        write_manifest(manifest, folder.manifest)
        folder.write_run(_made_by(identity) | dict(description))
        return
    if not folder.run.exists():
        raise ResultsError(f"{folder.path} holds results without run.json; choose another --out")
    before, now = folder.read_run()["identity"], identity
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        details = "; ".join(_difference(name, before.get(name), now[name]) for name in changed)
        raise ResultsError(
            f"{folder.path} holds a run with other settings: {details}. "
            "Choose another --out, or pass --overwrite to start anew"
        )
    check_parts(folder, manifest, finished)
    if not _holds(folder.manifest, manifest):
        write_manifest(manifest, folder.manifest)
    folder.remove_leftovers()


def _holds(path: Place, manifest: pa.Table) -> bool:
    """Whether a file is that manifest; if it is lost or damaged, nothing is, as the dataset still lists the same."""
    try:
        return bool(read_manifest(path).equals(manifest))
    except ResultsError:
        return False


_DIGESTS = {
    "manifest": "the dataset lists other images or labels",
    "model_sha256": "the weights have another content",
    "features_sha256": "the network of the features has another content",
    "code_sha256": "the file that makes the network has another content",
}


def _difference(name: str, before: Any, now: Any) -> str:
    return _DIGESTS.get(name, f"{name} was {before!r}, is {now!r}")


def _description(plan: Plan) -> dict[str, Any]:
    return {
        "dataset": {"name": plan.layout.name, "root": str(plan.root), "images": plan.manifest.num_rows},
        "model": plan.model.name,
        "config": asdict(plan.config),
    }


def _made_by(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "oodray": oodray.__version__,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "identity": dict(identity),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
    }


def _finish(folder: ResultsFolder, evaluation: Evaluation, seconds: float) -> None:
    content = folder.read_run()
    content["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    content["images"] = {"ok": evaluation.images, "failed": evaluation.failed}
    content["seconds"] = round(content.get("seconds", 0.0) + seconds, 3)
    folder.write_run(content)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
