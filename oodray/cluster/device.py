"""Whether the workers compute on CPUs or GPUs: their machines are asked, because the driver's may be another kind."""

from __future__ import annotations

from dataclasses import dataclass

from oodray.cluster.nodes import Node, check_packages, nodes, run_on_each_node
from oodray.cluster.session import cluster_address, connected, is_running
from oodray.cluster.shares import may_have_gpu
from oodray.config import RunConfig
from oodray.errors import ConfigError

A_LITTLE = 0.01
"""A share of a GPU to ask for: Ray hides GPUs from a task that asks for none."""


@dataclass(frozen=True)
class Device:
    """Where the workers run.

    Attributes:
        kind: `"cuda"` or `"cpu"`.
        kmeans_backend: never `"auto"`.
        warning: what the user should know, if anything.
    """

    kind: str
    kmeans_backend: str
    warning: str | None = None


def choose_device(config: RunConfig) -> Device:
    """As asked, else GPUs where the cluster, or this machine, has any; cuML where all of these have it.

    Raises:
        ConfigError: cuML is asked for, and a machine with GPUs cannot use it.
        RunError: the cluster cannot be joined, or a machine does not answer.
    """
    asked = None if config.gpus_per_worker is None else "cuda" if config.gpus_per_worker else "cpu"
    open_questions = asked is None or (asked == "cuda" and config.kmeans_backend in ("auto", "cuml"))
    of_cluster = config.executor == "ray" and cluster_address(config.ray_address) is not None
    if open_questions and of_cluster:
        # The driver's own machine says nothing about the workers': the head of a cluster often has no GPU.
        with connected(config.ray_address):
            return _of_cluster(asked, config.kmeans_backend)
    refuse_absent_gpu(config)
    kind = asked or _of_this_machine()
    return Device(kind, _resolved(config.kmeans_backend, kind))


def refuse_absent_gpu(config: RunConfig) -> None:
    """Refuse to look for a GPU where a run of this machine asks for one that it does not have.

    Raises:
        ConfigError: it does.
    """
    joins = config.executor == "ray" and (cluster_address(config.ray_address) is not None or is_running())
    if config.gpus_per_worker and not joins and _of_this_machine() != "cuda":
        raise ConfigError(
            f"--gpus-per-worker {config.gpus_per_worker:g} asks for a GPU, and torch finds none on this machine: "
            "leave it out, or pass 0 for the CPU; `oodray doctor` says what is missing"
        )


def _of_this_machine() -> str:
    if not may_have_gpu():
        return "cpu"  # known without torch, whose import takes seconds
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _resolved(backend: str, kind: str) -> str:
    """A K-Means backend by its name; torch is imported where that is in question alone."""
    if kind == "cpu" and backend in ("auto", "torch"):
        return "torch"
    from oodray.method.kmeans import resolve_backend

    return resolve_backend(backend, kind)


def _of_cluster(asked: str | None, backend: str) -> Device:
    with_gpus = [machine for machine in nodes() if machine.gpus]
    kind = asked or ("cuda" if with_gpus else "cpu")
    if kind == "cuda" and backend in ("auto", "cuml"):
        return _with_cuml(backend, with_gpus)
    return Device(kind, _resolved(backend, kind))


def _with_cuml(asked: str, machines: list[Node]) -> Device:
    """One backend for all machines with GPUs, as two give different numbers."""
    check_packages(machines)
    lacking = [
        (machine, problem) for machine, problem in run_on_each_node(machines, cuml_problem, gpus=A_LITTLE) if problem
    ]
    if not lacking and machines:
        return Device("cuda", "cuml")
    if asked == "cuml":
        where = f"on the node {lacking[0][0].address}, {lacking[0][1]}" if lacking else "no node has a GPU"
        raise ConfigError(f"--kmeans-backend cuml: {where}")
    warning = None
    if 0 < len(lacking) < len(machines):
        addresses = ", ".join(machine.address for machine, _ in lacking)
        warning = f"cuML is on some nodes alone, not on {addresses}: K-Means is torch's on all"
    return Device("cuda", "torch", warning)


def cuml_problem() -> str | None:
    """Why cuML cannot be used in this process; None if it can."""
    from oodray.method.kmeans import resolve_backend

    try:
        resolve_backend("cuml", "cuda")
    except ConfigError as error:
        return str(error)
    return None
