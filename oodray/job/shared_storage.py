"""Whether every machine of a cluster sees what a run reads and writes, asked before it starts."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

from oodray.errors import ConfigError, RunError
from oodray.job.plan import Plan
from oodray.job.results import ResultsFolder
from oodray.storage import is_remote, storage_path

ANSWER_SECONDS = 60


def check_shared_storage(plan: Plan, folder: ResultsFolder) -> None:
    """Ask every node of the cluster for the dataset, the results folder and the weights; one node needs no asking.

    Raises:
        ConfigError: naming the node that does not see something, and what.
        RunError: a node does not answer, or the results folder cannot be written to.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    places = {"--root": str(plan.root), "the first image": plan.manifest["image_uri"][0].as_py()}
    places |= {f"the weights {path.name}": str(path) for path in plan.model.files()}
    with _mark(folder) as mark:
        places["--out"] = str(mark)
        # An answer takes no CPU, as a cluster may be at work.
        ask = ray.remote(num_cpus=0, max_retries=0)(absent)
        answers = {
            node["NodeManagerAddress"]: ask.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(places)
            for node in nodes
        }
        for address, answer in answers.items():
            try:
                lacking = ray.get(answer, timeout=ANSWER_SECONDS)
            except ray.exceptions.RayError as error:
                reason = str(error).partition("\n")[0]
                raise RunError(f"the node {address} does not answer: {reason}. Run the same command again") from error
            if lacking:
                named = str(folder.path) if lacking == "--out" else places[lacking]
                raise ConfigError(
                    f"the node {address} does not see {lacking}, {named}: all nodes must share it, at the same path. "
                    "Mount it there, or name a place in an object store, such as s3://bucket/folder"
                )


def absent(places: dict[str, str]) -> str | None:
    """The first of some places that this machine does not see."""
    return next((name for name, place in places.items() if not _is_there(place)), None)


def _is_there(place: str) -> bool:
    try:
        return storage_path(place).exists()
    except OSError:
        return False


@contextlib.contextmanager
def _mark(folder: ResultsFolder) -> Iterator[Path]:
    """A file in the results folder, as a folder of that name may be on every machine."""
    mark = folder.path / f".{uuid.uuid4().hex}.tmp"
    if is_remote(mark):
        yield folder.run
        return
    try:
        mark.touch()
        yield mark
    except OSError as error:
        raise RunError(f"cannot write to {folder.path}: {error.strerror}") from error
    finally:
        mark.unlink(missing_ok=True)
