"""The machines of a cluster: what they offer, and what each of them answers to a question."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import oodray
from oodray.cluster.failures import next_step
from oodray.errors import ConfigError, RunError

ANSWER_SECONDS = 120
"""A first answer imports torch, maybe from a network drive."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Node:
    """What one machine of the cluster offers; `id` is Ray's name for it."""

    address: str
    cpus: float
    gpus: float
    id: str = ""


def nodes() -> list[Node]:
    """The machines of the cluster that Ray runs on, those that live."""
    import ray

    return [
        Node(
            node["NodeManagerAddress"],
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
            node["NodeID"],
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def run_on_each_node(
    machines: list[Node], question: Callable[..., Answer], *arguments: object, gpus: float = 0.0
) -> Iterator[tuple[Node, Answer]]:
    """What each machine answers, all asked at once; a question may need a share of a GPU to see any.

    Raises:
        RunError: a machine does not answer.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # An answer takes no CPU, as a cluster may be at work.
    task = ray.remote(num_cpus=0, num_gpus=gpus, max_retries=0)(question)
    answers = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(machine.id, soft=False)).remote(*arguments)
        for machine in machines
    ]
    for machine, answer in zip(machines, answers, strict=True):
        try:
            yield machine, ray.get(answer, timeout=ANSWER_SECONDS)
        except RayError as error:
            reason = str(error).partition("\n")[0]
            busy = ". Its GPUs may be at work for others: --kmeans-backend torch asks nothing of them" if gpus else ""
            raise RunError(f"the node {machine.address} does not answer: {reason}{busy}. {next_step(error)}") from error


def check_packages(machines: list[Node]) -> None:
    """Refuse a cluster of which a machine has another oodray, or none.

    Raises:
        ConfigError: naming the machine.
        RunError: a machine does not answer.
    """

    # Inside of a function, as Ray sends such a one along; any other it looks for in the oodray that is there.
    def version() -> str:
        try:
            import oodray as found
        except ImportError as error:
            return f"none ({error})"
        return found.__version__

    for machine, found in run_on_each_node(machines, version):
        if found != oodray.__version__:
            raise ConfigError(
                f"the node {machine.address} has another oodray than this machine, {found} instead of "
                f"{oodray.__version__}: all nodes must have the same, such as the image of the Dockerfile"
            )
