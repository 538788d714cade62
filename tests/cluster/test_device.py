"""On what the workers compute, of a cluster that is one on paper; a real one is in test_two_machines.py."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from oodray.cluster import device
from oodray.cluster.device import Device, choose_device, refuse_absent_gpu
from oodray.cluster.nodes import Node
from oodray.cluster.shares import may_have_gpu
from oodray.config import RunConfig
from oodray.errors import ConfigError

Cluster = Callable[..., None]

HEAD = Node("10.0.0.1", 4, 0)
NO_CUML = "No module named 'cuml'"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Makes a cluster: a head without GPUs, and a machine with some for each answer, why it has no cuML, or None."""

    checked: list[Node] = []

    def make(*answers: str | None) -> None:
        machines = {Node(f"10.0.1.{index}", 8, 2): answer for index, answer in enumerate(answers)}

        def run_on_each_node(asked: list[Node], question: Any, *, gpus: float) -> Iterator[tuple[Node, str | None]]:
            assert question is device.cuml_problem
            assert gpus > 0  # a task without any sees none
            assert set(asked) <= set(checked)  # only a machine with this oodray understands the question
            yield from ((machine, machines[machine]) for machine in asked)

        monkeypatch.setattr(device, "connected", lambda _: contextlib.nullcontext())
        monkeypatch.setattr(device, "nodes", lambda: [HEAD, *machines])
        monkeypatch.setattr(device, "run_on_each_node", run_on_each_node)
        monkeypatch.setattr(device, "check_packages", checked.extend)

    return make


def choose(**options: Any) -> Device:
    return choose_device(RunConfig("demo", ray_address="10.0.0.1:6379", **options))


def test_cuml_is_used_where_the_gpus_are_although_the_head_has_none(cluster: Cluster) -> None:
    cluster(None, None)
    assert choose() == choose(gpus_per_worker=0.5) == choose(kmeans_backend="cuml") == Device("cuda", "cuml")


def test_without_it_anywhere_torch_clusters(cluster: Cluster) -> None:
    cluster(NO_CUML, NO_CUML)
    assert choose() == Device("cuda", "torch")


def test_one_machine_without_it_makes_all_take_torch_and_is_named(cluster: Cluster) -> None:
    cluster(None, NO_CUML)
    assert choose() == Device(
        "cuda", "torch", "cuML is on some nodes alone, not on 10.0.1.1: K-Means is torch's on all"
    )


def test_a_machine_without_a_device_of_a_gpu_needs_no_torch_to_know(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def is_available() -> bool:
        asked.append("torch")
        return True

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(device, "may_have_gpu", lambda: False)
    assert choose_device(RunConfig("demo", executor="local")) == Device("cpu", "torch")
    assert asked == []
    monkeypatch.setattr(device, "may_have_gpu", lambda: True)
    assert choose_device(RunConfig("demo", executor="local", kmeans_backend="torch")) == Device("cuda", "torch")
    assert asked == ["torch"]


@pytest.mark.parametrize("executor", ["ray", "local"])
def test_a_gpu_that_is_not_here_is_refused_at_once(executor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(device, "may_have_gpu", lambda: False)
    monkeypatch.setattr(device, "is_running", lambda: False)
    with pytest.raises(ConfigError, match=r"--gpus-per-worker 1 asks for a GPU, and torch finds none on this machine"):
        refuse_absent_gpu(RunConfig("demo", executor=executor, gpus_per_worker=1.0))
    refuse_absent_gpu(RunConfig("demo", executor=executor, gpus_per_worker=0.0))
    refuse_absent_gpu(RunConfig("demo", gpus_per_worker=1.0, ray_address="10.0.0.1:6379"))  # whose nodes may have one


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_machine_with_a_gpu_has_such_a_device() -> None:
    assert may_have_gpu()


def test_what_is_asked_for_and_not_there_is_refused_by_name(cluster: Cluster) -> None:
    cluster(None, NO_CUML)
    with pytest.raises(ConfigError, match=r"--kmeans-backend cuml: on the node 10\.0\.1\.1, No module named 'cuml'"):
        choose(kmeans_backend="cuml")
    cluster()
    with pytest.raises(ConfigError, match="--kmeans-backend cuml: no node has a GPU"):
        choose(kmeans_backend="cuml", gpus_per_worker=1.0)


def test_a_cluster_without_gpus_computes_on_cpus(cluster: Cluster) -> None:
    cluster()
    assert choose() == Device("cpu", "torch")


@pytest.mark.parametrize("options", [{"gpus_per_worker": 0.0}, {"gpus_per_worker": 1.0, "kmeans_backend": "sklearn"}])
def test_what_is_known_asks_nobody(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "connected", lambda _: pytest.fail("the cluster was joined"))
    assert choose(**options).kind == ("cuda" if options["gpus_per_worker"] else "cpu")
