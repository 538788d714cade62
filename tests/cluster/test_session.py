"""A Ray of our own, in a process of its own: who else can reach it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
import ray

from oodray.cluster.session import connected
from oodray.cluster.signals import stoppable
from oodray.errors import RunError

LISTENERS = """
import os
from pathlib import Path

from oodray.cluster.session import connected


def descendants(parent):
    children = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(status.parent.name))
    found, left = [], [parent]
    while left:
        found.append(left.pop())
        left += children.get(found[-1], [])
    return found


def sockets(process):
    for file in Path(f"/proc/{process}/fd").glob("*"):
        try:
            yield os.readlink(file)
        except OSError:
            continue


with connected():
    ours = {socket for process in descendants(os.getpid()) for socket in sockets(process)}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in ours:  # 0A: it listens
                print(fields[1].partition(":")[0])
"""

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_local_ray_listens_on_loopback_alone(environment: dict[str, str]) -> None:
    environment = {name: value for name, value in environment.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", LISTENERS], check=True, capture_output=True, text=True, timeout=120, env=environment
    )
    found = done.stdout.split()
    assert len(found) >= 4  # its servers, and the workers that wait
    assert set(found) <= LOOPBACK


class TestConnected:
    @pytest.fixture(autouse=True)
    def no_ray(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setattr(ray, "shutdown", lambda: None)

    def test_a_ray_that_does_not_start_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(**_: object) -> None:
            raise Exception("The current node timed out during startup.")  # as Ray does

        monkeypatch.setattr(ray, "init", fail)
        with pytest.raises(RunError, match="cannot start Ray on this machine: The current node timed"), connected():
            pass

    def test_ray_does_not_keep_the_signals_that_it_takes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ray, "init", lambda **_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
        with stoppable(), connected(), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
