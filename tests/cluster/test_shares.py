"""How many cores a process may use: what control groups allow, of either version, in a container or outside."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from oodray.cluster import shares
from oodray.cluster.shares import gpus_here, usable_cores


def limits(tmp_path: Path, own: str, files: dict[str, str]) -> float:
    """The smallest limit, of a process in some groups whose files hold this."""
    for name, content in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(content)
    (tmp_path / "own").write_text(own)
    return min(shares._limits(tmp_path / "cgroup", tmp_path / "own"), default=math.inf)


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/\n", {}, math.inf),
        ("0::/kubepods/pod1\n", {"kubepods/pod1/cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),
        ("0::/of/the/host\n", {"cpu.max": "50000 100000"}, 0.5),
        ("3:cpu,cpuacct:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        ("3:memory:/\n", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        (
            "3:cpu:/docker/x\n",
            {"cpu/docker/x/cpu.cfs_quota_us": "1000", "cpu/docker/x/cpu.cfs_period_us": "0"},
            math.inf,
        ),
        ("nonsense\n\n::\n", {"cpu.max": "nonsense"}, math.inf),
    ],
)
def test_limits_of_control_groups(own: str, files: dict[str, str], cores: float, tmp_path: Path) -> None:
    assert limits(tmp_path, own, files) == cores


def test_no_linux_has_no_limits(tmp_path: Path) -> None:
    assert list(shares._limits(tmp_path, tmp_path / "none")) == []


@pytest.mark.parametrize(("limit", "cores"), [(2.0, 2), (1.5, 2), (0.5, 1), (math.inf, 8), (64.0, 8)])
def test_a_part_of_a_core_is_one(limit: float, cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(shares, "_limits", lambda: iter([] if math.isinf(limit) else [limit, 100.0]))
    assert usable_cores() == cores


@pytest.mark.parametrize("visible", ["", " ", ","])
def test_hidden_gpus_do_not_count(visible: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus_here() == 0
