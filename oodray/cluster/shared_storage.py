"""Whether every machine of a cluster sees what a run reads, and can write its results, asked before it starts."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator

from oodray.cluster.nodes import Node, check_packages, run_on_each_node
from oodray.errors import ConfigError, RunError
from oodray.storage.place import Place, storage_path
from oodray.storage.remote import is_remote

_REMEDY = (
    "all nodes must share it, at the same path. "
    "Mount it there, or name a place in an object store, such as s3://bucket/folder"
)


def check_shared_storage(places: dict[str, str], out: Place, inside: Place, machines: list[Node]) -> None:
    """Ask every node of a cluster for some places, by name, and for the folder `out`; one node needs no asking.

    `inside` is a file that this machine wrote into `out`.

    Raises:
        ConfigError: naming the node that does not see something, and what.
        RunError: a node does not answer, or the results folder cannot be written to.
    """
    if len(machines) < 2:
        return
    check_packages(machines)
    with _mark(out, inside) as mark:
        for machine, problem in run_on_each_node(machines, lacking, places, str(mark), str(out)):
            if problem is not None:
                raise ConfigError(f"the node {machine.address} {problem}")


def lacking(places: dict[str, str], mark: str, out: str) -> str | None:
    """Check that this machine sees every place and the mark in the results folder `out`, and can write there.

    Returns what is lacking, None where nothing is.
    """
    for name, place in places.items():
        if not _is_there(place):
            return f"does not see {name}, {place}: {_REMEDY}"
    if not _is_there(mark):
        return f"does not see --out, {out}: {_REMEDY}"
    # A drive may be mounted for reading alone, or belong to another user.
    own = storage_path(out) / f".{uuid.uuid4().hex}.tmp"
    try:
        own.touch()
        own.unlink()
    except OSError as error:
        return (
            f"cannot write to --out, {out} ({error.strerror}): mount it there for writing, by the user of Ray's workers"
        )
    return None


def _is_there(place: str) -> bool:
    try:
        return storage_path(place).exists()
    except OSError:
        return False


@contextlib.contextmanager
def _mark(out: Place, inside: Place) -> Iterator[Place]:
    """A file in the folder that no other has, as a folder of that name may be on every disk; a store is one for all."""
    mark = out / f".{uuid.uuid4().hex}.tmp"
    if is_remote(mark):
        yield inside
        return
    try:
        mark.touch()
        yield mark
    except OSError as error:
        raise RunError(f"cannot write to {out}: {error.strerror}") from error
    finally:
        mark.unlink(missing_ok=True)
