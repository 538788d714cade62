"""How many workers of what size a run asks Ray for; the stream itself is tested in test_run.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from oodray.cluster import pool as pool_module
from oodray.cluster.nodes import Node
from oodray.cluster.pool import Pool, choose_pool, crowding, describe, local_cpus
from oodray.cluster.shares import usable_cores
from oodray.config import RunConfig
from oodray.errors import ConfigError

CORES = usable_cores()


def pool(machines: list[tuple[float, float]], units: int = 1000, device: str | None = None, **options: Any) -> Pool:
    """The pool on machines of so many GPUs and CPUs."""
    nodes = [Node(f"10.0.0.{index}", cpus, gpus) for index, (gpus, cpus) in enumerate(machines)]
    has_gpus = any(gpus for gpus, _ in machines)
    config = RunConfig("demo", threads=2, **options)
    return choose_pool(config, device or ("cuda" if has_gpus else "cpu"), units, nodes)


@pytest.mark.parametrize(
    ("gpus", "options", "expected"),
    [
        (0, {}, (1, 0.0)),
        (0, {"workers": 3}, (3, 0.0)),
        (1, {}, (1, 1.0)),
        (8, {}, (8, 1.0)),
        (8, {"workers": 2}, (2, 1.0)),
        (2, {"gpus_per_worker": 0.5}, (4, 0.5)),
        (3, {"gpus_per_worker": 2.0}, (1, 2.0)),
        (1, {"gpus_per_worker": 0.1}, (10, 0.1)),
        (3, {"gpus_per_worker": 0.4}, (6, 0.4)),
        (2, {"gpus_per_worker": 0.0}, (1, 0.0)),
        (2, {"gpus_per_worker": 0.0, "workers": 4}, (4, 0.0)),
    ],
)
def test_one_worker_per_gpu_or_one(gpus: float, options: dict[str, Any], expected: tuple[int, float]) -> None:
    found = pool([(gpus, 16)], **options)
    assert (found.fewest, found.most, found.gpus) == (expected[0], *expected)


@pytest.mark.parametrize(
    ("machines", "options", "problem"),
    [
        ([(0, 16)], {"gpus_per_worker": 1.0}, r"1 workers with 1 GPUs each need 1 GPUs, Ray has 0: lower --workers"),
        ([(2, 16)], {"workers": 3}, r"3 workers with 1 GPUs each need 3 GPUs, Ray has 2"),
        ([(1, 16)], {"gpus_per_worker": 0.4, "workers": 3}, r"need 1.2 GPUs, Ray has 1"),
        ([(1, 16), (1, 16)], {"gpus_per_worker": 2.0, "workers": 1}, r"1 workers with 2 GPUs .* has 2 on 2 machines"),
        ([(2, 16)], {"fewest_workers": 3, "workers": 8}, r"3 workers with 1 GPUs each need 3 GPUs, Ray has 2"),
        ([(0, 4)], {"workers": 2}, r"2 workers, and decoding and writing beside them, need 5 CPUs, .* Ray has 4 on 1"),
        ([(4, 4)], {}, r"4 workers, .* need 5 CPUs, .* Ray has 4"),
        # Together there is enough; GPUs and CPUs lie on different machines.
        ([(4, 1), (0, 16)], {}, r"4 workers, .* need 5 CPUs, 1 of each worker beside its GPU, .* enough for 1 workers"),
        ([(2, 16)], {"gpus_per_worker": 0.7, "workers": 3}, r"3 workers with 0.7 GPUs each"),
        ([(3, 16)], {"gpus_per_worker": 0.4, "workers": 7}, r"7 workers with 0.4 GPUs each"),
        ([(0, 1)] * 8, {"workers": 2}, r"need 5 CPUs, 2 of each worker on one machine, Ray has 8 on 8"),
    ],
)
def test_what_ray_does_not_have_is_refused(
    machines: list[tuple[float, float]], options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        pool(machines, **options)


def test_gpus_that_the_network_does_not_run_on_are_left_alone() -> None:
    assert pool([(2, 16)], device="cpu") == Pool(1, 1, 2, 0.0, CORES // 2, whole=CORES <= 2)


def test_more_workers_than_units_would_load_the_network_for_nothing() -> None:
    assert pool([(8, 16)], units=3) == Pool(3, 3, 1, 1.0, min(CORES, 3))
    assert pool([(8, 16)], units=3, fewest_workers=2, workers=8) == Pool(2, 3, 1, 1.0, min(CORES, 3))


def test_a_range_needs_its_fewest_now() -> None:
    assert pool([(2, 16)], fewest_workers=2, workers=16) == Pool(2, 16, 1, 1.0, CORES)


def test_the_gpus_of_all_machines_count() -> None:
    assert pool([(4, 8), (2, 8), (0, 8)]) == Pool(6, 6, 1, 1.0, CORES)


def test_tasks_of_a_local_ray_are_no_more_than_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert pool([(4, 64)]).tasks == CORES
    assert pool([(0, 64)], device="cpu").tasks == CORES // 2, "they share them beside networks on CPUs"
    assert pool([(0, 64)], device="cpu", units=1).tasks == 1
    assert pool([(0, 64)], units=1).tasks == 1
    assert pool([(0, 64)], ray_address="10.0.0.0:6379").tasks is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.0:6379")
    assert pool([(0, 64)]).tasks is None


def test_the_schedule_in_one_line() -> None:
    machines = [Node("a", 8, 4), Node("b", 8, 0)]
    assert describe(Pool(2, 16, 1, 0.5), 75, machines, batch_size=2, weights_bytes=3 * 2**20, of_its_own=False) == (
        "2 nodes with 16 CPUs and 4 GPUs; 2 to 16 workers of 0.5 GPU, each at least 3 MiB for its weights; "
        "batches of 2; 75 units of images left"
    )


def test_of_a_ray_of_our_own_the_cores_are_named_and_not_what_ray_counts() -> None:
    line = describe(Pool(1, 1, 2, 0), 8, [Node("a", 20, 0)], batch_size=1, weights_bytes=None, of_its_own=True)
    cores = f"{CORES} core{'' if CORES == 1 else 's'}"
    assert line == f"this machine with {cores} and 0 GPUs; 1 worker of 2 CPUs; batches of 1; 8 units of images left"


def test_more_threads_than_cores_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(pool_module, "usable_cores", lambda: 2)
    asked = RunConfig("demo", workers=9)
    assert crowding(asked, "cpu") == (
        "9 workers of 2 threads share 2 cores, and each holds a network: --workers 1 is about as fast, and needs less "
        "memory"
    )
    for config, device in (
        (asked, "cuda"),
        (RunConfig("demo", threads=9), "cpu"),  # one worker, and its user's own choice
        (RunConfig("demo", workers=2, threads=1), "cpu"),
        (replace(asked, ray_address="10.0.0.0:6379"), "cpu"),
    ):
        assert crowding(config, device) is None


@pytest.mark.parametrize(
    ("gpus", "options"),
    [
        (0, {}),
        (0, {"workers": 5}),
        (0, {"workers": 5, "gpus_per_worker": 0.0}),
        (8, {}),
        (8, {"workers": 8}),
        (8, {"gpus_per_worker": 1.0}),
        (8, {"gpus_per_worker": 0.1}),
        (8, {"gpus_per_worker": 0.4, "workers": 13}),
        (8, {"gpus_per_worker": 2.0}),
        (8, {"gpus_per_worker": 0.0}),
    ],
)
def test_a_ray_of_our_own_has_room_for_the_workers_that_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, gpus: float, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(pool_module, "gpus_here", lambda: gpus)
    needed = local_cpus(RunConfig("demo", threads=2, **options))
    device = "cuda" if gpus and options.get("gpus_per_worker") != 0 else "cpu"
    found = pool([(gpus, needed)], device=device, **options)
    assert found.most * found.cpus < needed, "decoding and writing need one beside them"
