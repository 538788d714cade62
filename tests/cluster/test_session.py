"""A Ray of our own, in a process of its own: who else can reach it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest
import ray

from oodray.cluster import session as session_module
from oodray.cluster.session import Session, connected
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


class FakeRay:
    """What is asked of Ray, noted; it starts when it is let."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.addresses: list[object] = []
        self.may_start = threading.Event()
        self.may_start.set()
        self.failure: Exception | None = None
        self.runs = False

    def init(self, address: str, **_: object) -> None:
        self.may_start.wait()
        self.calls.append("init")
        self.addresses.append(address)
        if self.failure is not None:
            raise self.failure
        if threading.current_thread() is threading.main_thread():  # Ray takes signals where it may
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.runs = True

    def shutdown(self) -> None:
        self.calls.append("shutdown")
        self.runs = False


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: fake.runs)
    monkeypatch.setattr(ray, "init", fake.init)
    monkeypatch.setattr(ray, "shutdown", fake.shutdown)
    monkeypatch.setattr(session_module, "_require_listener", lambda address: None)
    return fake


def starters() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "starts Ray"]


def gone(threads: list[threading.Thread]) -> bool:
    for thread in threads:
        thread.join(timeout=20)
    return not any(thread.is_alive() for thread in threads)


class TestSession:
    def test_one_that_never_began_has_nothing_to_end(self, fake_ray: FakeRay) -> None:
        with Session():
            pass
        assert (fake_ray.calls, starters()) == ([], [])

    def test_a_ray_of_our_own_starts_beside_the_caller(self, fake_ray: FakeRay) -> None:
        fake_ray.may_start.clear()
        with Session() as session:
            session.begin()
            assert fake_ray.calls == []
            [starter] = starters()
            fake_ray.may_start.set()
            session.wait()
            # Linux ends what a thread started with it.
            assert starter.is_alive()
            assert fake_ray.addresses == ["local"]
        assert fake_ray.calls == ["init", "shutdown"]
        assert gone([starter])

    def test_it_starts_once(self, fake_ray: FakeRay) -> None:
        with Session() as session:
            for _ in range(2):
                session.begin()
                session.wait()
        assert fake_ray.calls == ["init", "shutdown"]

    def test_one_that_is_left_while_it_starts_is_ended_when_it_has(self, fake_ray: FakeRay) -> None:
        fake_ray.may_start.clear()
        with Session() as session:
            session.begin()
            threading.Timer(0.1, fake_ray.may_start.set).start()
        assert fake_ray.calls == ["init", "shutdown"]

    def test_a_ray_that_runs_is_left_alone(self, fake_ray: FakeRay) -> None:
        fake_ray.runs = True
        with Session("10.0.0.1:6379") as session:
            session.wait()
        assert fake_ray.calls == []

    def test_a_cluster_is_joined_when_the_session_begins(self, fake_ray: FakeRay) -> None:
        with Session("10.0.0.1:6379") as session:
            session.begin()
            assert (fake_ray.calls, fake_ray.addresses, starters()) == (["init"], ["10.0.0.1:6379"], [])
        assert fake_ray.calls == ["init", "shutdown"]

    def test_a_cluster_that_cannot_be_joined_says_so_when_the_session_begins(self, fake_ray: FakeRay) -> None:
        fake_ray.failure = RuntimeError("Version mismatch: 1 and 2\n")
        problem = "cannot join the Ray cluster at 10.0.0.1:6379: Version mismatch: 1 and 2\nStart oodray with the Ray"
        with Session("10.0.0.1:6379") as session, pytest.raises(RunError, match=problem):
            session.begin()

    def test_a_start_that_fails_says_so_where_it_is_waited_for(self, fake_ray: FakeRay) -> None:
        fake_ray.failure = Exception("The current node timed out during startup.")  # as Ray does
        with Session() as session:
            session.begin()
            for _ in range(2):
                with pytest.raises(RunError, match="cannot start Ray on this machine: The current node timed"):
                    session.wait()


class TestConnected:
    def test_a_ray_that_does_not_start_is_one_line(self, fake_ray: FakeRay) -> None:
        fake_ray.failure = Exception("The current node timed out during startup.")  # as Ray does
        with pytest.raises(RunError, match="cannot start Ray on this machine: The current node timed"), connected():
            pass

    @pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
    def test_ray_does_not_keep_the_signals_that_it_takes(self, fake_ray: FakeRay, address: str | None) -> None:
        with stoppable(), connected(address), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
