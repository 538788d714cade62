"""A run from plan to metrics: start or continue, stream, evaluate."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow as pa

import oodray
from oodray.datasets.manifest import write_manifest
from oodray.errors import ResultsError, RunError
from oodray.job.cluster import connected
from oodray.job.pipeline import stream
from oodray.job.plan import Plan
from oodray.job.reduce import Evaluation, evaluate_run
from oodray.job.results import ResultsFolder

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
    """What the driver hears while a run goes on: counts since its start, and the new errors."""

    ok: int
    failed: int
    errors: list[str]


def run(plan: Plan, folder: ResultsFolder, on_unit: Callable[[UnitDone], None]) -> Evaluation:
    """Compute what is not there yet, then evaluate everything; `start_or_continue` comes before.

    Raises:
        RunError: if the run fails, all images failing included.
    """
    units = left_units(plan, folder)
    started = time.monotonic()
    if units:
        with connected(plan.config.ray_address, local_cpus=plan.local_cpus()):
            for summary in stream(plan, units, folder):
                on_unit(UnitDone(summary["ok"], summary["failed"], summary["errors"]))
            evaluation = evaluate_run(folder)
    else:
        evaluation = evaluate_run(folder)
    # A run may have been killed after its last unit.
    if units or "finished" not in folder.read_run():
        _finish(folder, evaluation, time.monotonic() - started)
    if evaluation.images == 0:
        raise RunError(
            f"all {evaluation.failed} images failed; `oodray status {folder.path}` shows the most frequent errors"
        )
    return evaluation


def left_units(plan: Plan, folder: ResultsFolder) -> set[int]:
    """Units of the manifest that have no file yet."""
    return set(plan.manifest["unit"].unique().to_pylist()) - folder.finished_units()


def images_done(plan: Plan, folder: ResultsFolder) -> int:
    """Images of the manifest that have a row already."""
    left = left_units(plan, folder)
    return sum(unit not in left for unit in plan.manifest["unit"].to_pylist())


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
    if not folder.finished_units():
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
            "Choose another --out, or delete the folder to start anew"
        )
    if not folder.manifest.exists():
        write_manifest(manifest, folder.manifest)
    folder.remove_leftovers()


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
