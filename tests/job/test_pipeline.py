"""How many workers of what size a run asks Ray for; the stream itself is tested in test_run.py."""

from __future__ import annotations

from typing import Any, cast

import pytest
import ray

from oodray.config import RunConfig
from oodray.errors import ConfigError
from oodray.job import pipeline
from oodray.job.plan import Plan


class Asking:
    """A plan of which only the configuration and the device are looked at."""

    def __init__(self, device: str, **options: Any) -> None:
        self.config = RunConfig("demo", threads=2, **options)
        self.device = device


def workers(
    monkeypatch: pytest.MonkeyPatch, gpus: float, cpus: float, units: int = 1000, **options: Any
) -> tuple[int, float]:
    monkeypatch.setattr(pipeline, "gpu_count", lambda: gpus)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": cpus})
    return pipeline._workers(cast(Plan, Asking("cuda" if gpus else "cpu", **options)), units)


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
        (2, {"gpus_per_worker": 0.0}, (1, 0.0)),
        (2, {"gpus_per_worker": 0.0, "workers": 4}, (4, 0.0)),
    ],
)
def test_one_worker_per_gpu_or_one(
    monkeypatch: pytest.MonkeyPatch, gpus: float, options: dict[str, Any], expected: tuple[int, float]
) -> None:
    assert workers(monkeypatch, gpus, 16, **options) == expected


@pytest.mark.parametrize(
    ("gpus", "cpus", "options", "problem"),
    [
        (0, 16, {"gpus_per_worker": 1.0}, r"1 workers with 1 GPUs each need 1 GPUs, Ray has 0: lower --workers"),
        (2, 16, {"workers": 3}, r"3 workers with 1 GPUs each need 3 GPUs, Ray has 2"),
        (1, 16, {"gpus_per_worker": 0.4, "workers": 3}, r"need 1.2 GPUs, Ray has 1"),
        (0, 4, {"workers": 2}, r"2 workers, and decoding and writing beside them, need 5 CPUs, Ray has 4"),
        (4, 4, {}, r"4 workers, .* need 5 CPUs, Ray has 4"),
    ],
)
def test_what_ray_does_not_have_is_refused(
    monkeypatch: pytest.MonkeyPatch, gpus: float, cpus: float, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        workers(monkeypatch, gpus, cpus, **options)


def test_gpus_that_the_network_does_not_run_on_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "gpu_count", lambda: 2.0)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 16})
    assert pipeline._workers(cast(Plan, Asking("cpu")), 1000) == (1, 0.0)


def test_more_workers_than_units_would_load_the_network_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers(monkeypatch, 8, 16, units=3) == (3, 1.0)
