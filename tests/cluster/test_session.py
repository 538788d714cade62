"""A Ray of our own, in a process of its own: who else can reach it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import ray
from ray._private import ray_constants

from oodray.cluster import session as session_module
from oodray.cluster.session import Session, connected
from oodray.cluster.signals import stoppable
from oodray.errors import ConfigError, RunError

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
    commands = [Path(f"/proc/{process}/cmdline").read_bytes().split(b"\\0") for process in descendants(os.getpid())]
    files = {Path(os.fsdecode(word)).name for command in commands for word in command}
    print("not needed:", sorted(files & {"monitor.py", "log_monitor.py", "dashboard.py"}))
    ours = {socket for process in descendants(os.getpid()) for socket in sockets(process)}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in ours:  # 0A: it listens
                print(fields[1].partition(":")[0])
"""

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_local_ray_listens_on_loopback_alone_and_has_no_process_that_nobody_asks(environment: dict[str, str]) -> None:
    environment = {name: value for name, value in environment.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", LISTENERS], check=True, capture_output=True, text=True, timeout=120, env=environment
    )
    not_needed, *found = done.stdout.splitlines()
    assert not_needed == "not needed: []"
    assert len(found) >= 4  # its servers, and the workers that wait
    assert set(found) <= LOOPBACK


class FakeRay:
    """What is asked of Ray, noted."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.addresses: list[object] = []
        self.threads: list[threading.Thread] = []
        self.failure: Exception | None = None
        self.runs = False

    def init(self, address: str, **_: object) -> None:
        self.calls.append("init")
        self.threads.append(threading.current_thread())
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


class TestToken:
    """Ray writes a token to HOME unless it is given one."""

    NAMES = ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")

    @pytest.fixture(autouse=True)
    def home(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        for name in self.NAMES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        return tmp_path

    def tokens(self) -> list[str | None]:
        return [os.environ.get(name) for name in self.NAMES]

    def test_a_ray_of_our_own_has_one_that_ends_with_it(self, fake_ray: FakeRay) -> None:
        with connected():
            token, *others = self.tokens()
            assert others == [None, None]
            assert token is not None
            assert len(token) == 64
        assert self.tokens() == [None, None, None]

    def test_it_ends_where_ray_cannot_start(self, fake_ray: FakeRay) -> None:
        fake_ray.failure = OSError("no")
        with pytest.raises(RunError, match="--executor local"), connected():
            pass
        assert self.tokens() == [None, None, None]

    @pytest.mark.parametrize("name", NAMES)
    def test_that_of_a_user_stays(self, name: str, fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(name, "token")
        before = self.tokens()
        with connected():
            assert self.tokens() == before
        assert self.tokens() == before

    def test_that_of_a_home_stays(self, home: Path, fake_ray: FakeRay) -> None:
        (home / ".ray").mkdir()
        (home / ".ray/auth_token").write_text("token")
        with connected():
            assert self.tokens() == [None, None, None]

    def test_a_cluster_is_shown_that_of_a_home(self, home: Path, fake_ray: FakeRay) -> None:
        (home / ".ray").mkdir()
        (home / ".ray/auth_token").write_text("token")
        with connected("10.0.0.1:6379"):
            assert self.tokens() == [None, "token", None]
        assert self.tokens() == [None, None, None]

    def test_a_cluster_is_joined_with_its_own(self, fake_ray: FakeRay) -> None:
        with connected("10.0.0.1:6379"):
            assert self.tokens() == [None, None, None]


class TestUv:
    """Ray's hook would start workers by the command line of `uv run`, and upload the working folder."""

    @pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
    def test_ray_starts_as_without_it(
        self, address: str | None, fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV
        seen: list[bool] = []
        monkeypatch.setattr(ray, "init", lambda **_: seen.append(ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV))
        with connected(address):
            pass
        assert seen == [False]
        assert before is ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV

    def test_who_asks_for_it_gets_it(self, fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "1")
        monkeypatch.setattr(ray_constants, "RAY_ENABLE_UV_RUN_RUNTIME_ENV", True)
        seen: list[bool] = []
        monkeypatch.setattr(ray, "init", lambda **_: seen.append(ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV))
        with connected():
            pass
        assert seen == [True]


def test_a_long_path_of_a_socket_has_a_remedy(fake_ray: FakeRay) -> None:
    fake_ray.failure = ValueError("validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes: /t")
    with pytest.raises(RunError, match="RAY_TMPDIR=/tmp"), connected():
        pass


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_of_another_user_has_a_remedy(number: int, fake_ray: FakeRay) -> None:
    """On a machine that several share, /tmp/ray belongs to the first who started a Ray."""
    fake_ray.failure = OSError(number, os.strerror(number), "/tmp/ray")
    with pytest.raises(RunError, match="RAY_TMPDIR=DIR names another"), connected():
        pass


@pytest.mark.parametrize(
    ("address", "reason", "remedy"),
    [
        (
            "auto",
            "Could not find any running Ray instance. Please see ..",
            r"Please see\. Start one with `ray start --head`",
        ),
        (None, "Timed out waiting for file /tmp/ray/s/port", "Is there room in the folder of that file"),
    ],
)
def test_further_errors_have_a_remedy(address: str | None, reason: str, remedy: str, fake_ray: FakeRay) -> None:
    fake_ray.failure = ConnectionError(reason)
    with pytest.raises(RunError, match=remedy) as refused, connected(address):
        pass
    assert "token" not in str(refused.value)


class TestSession:
    def test_one_that_never_began_has_nothing_to_end(self, fake_ray: FakeRay) -> None:
        with Session():
            pass
        assert fake_ray.calls == []

    def test_a_ray_of_our_own_starts_in_the_thread_of_the_caller(self, fake_ray: FakeRay) -> None:
        """Linux ends what a thread started with it."""
        with Session() as session:
            assert session.starts_its_own()
            session.begin()
            assert not session.starts_its_own()
            assert (fake_ray.addresses, fake_ray.threads) == (["local"], [threading.current_thread()])
        assert fake_ray.calls == ["init", "shutdown"]

    def test_it_starts_once(self, fake_ray: FakeRay) -> None:
        with Session() as session:
            session.begin()
            session.begin()
        assert fake_ray.calls == ["init", "shutdown"]

    def test_a_ray_that_runs_is_left_alone(self, fake_ray: FakeRay) -> None:
        fake_ray.runs = True
        with Session() as session:
            assert not session.starts_its_own()
            session.begin()
        with Session("10.0.0.1:6379") as session:
            session.begin()
        assert fake_ray.calls == []

    def test_a_cluster_is_joined(self, fake_ray: FakeRay) -> None:
        with Session("10.0.0.1:6379") as session:
            assert not session.starts_its_own()
            session.begin()
            assert (fake_ray.calls, fake_ray.addresses) == (["init"], ["10.0.0.1:6379"])
        assert fake_ray.calls == ["init", "shutdown"]

    def test_a_cluster_that_cannot_be_joined_says_so(self, fake_ray: FakeRay) -> None:
        fake_ray.failure = RuntimeError("Version mismatch: 1 and 2\n")
        problem = "cannot join the Ray cluster at 10.0.0.1:6379: Version mismatch: 1 and 2. Start oodray with the Ray"
        with Session("10.0.0.1:6379") as session, pytest.raises(RunError, match=problem):
            session.begin()
        assert fake_ray.calls == ["init", "shutdown"]

    def test_a_token_that_is_wrong_is_named_and_what_ray_wrote_is_in_a_file(
        self, fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

        def init(*_: object, **__: object) -> None:
            os.write(2, b"gcs_client.cc:210: InvalidAuthToken: Authentication token is missing or incorrect\n" * 20)
            raise ConnectionError("Failed to connect to Ray cluster")

        monkeypatch.setattr(ray, "init", init)
        with Session("10.0.0.1:6379") as session, pytest.raises(RunError, match="RAY_AUTH_TOKEN=TOKEN") as refused:
            session.begin()
        [file] = tmp_path.glob("oodray-ray-*.log")
        assert str(refused.value).endswith(f"is in {file}")
        assert file.read_text().count("InvalidAuthToken") == 20
        assert "gcs_client" not in capfd.readouterr().err

    def test_an_address_that_does_not_answer_is_asked_again(
        self, fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def nobody(_: str) -> None:
            raise ConfigError("no Ray cluster answers")

        monkeypatch.setattr(session_module, "_require_listener", nobody)
        with Session("10.0.0.1:6379") as session:
            for _ in range(2):
                with pytest.raises(ConfigError):
                    session.begin()
        assert fake_ray.calls == []

    def test_what_python_writes_to_the_terminal_is_kept_while_ray_starts(self, fake_ray: FakeRay) -> None:
        """rich and logging keep the stream that they find: it must be the same afterwards, and open."""
        before = sys.stderr
        with Session() as session:
            session.begin()
            assert sys.stderr is before
        assert not sys.stderr.closed


class TestConnected:
    def test_a_ray_that_does_not_start_is_one_line(self, fake_ray: FakeRay) -> None:
        fake_ray.failure = Exception("The current node timed out during startup.")  # as Ray does
        with pytest.raises(RunError, match="cannot start Ray on this machine: The current node timed"), connected():
            pass

    @pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
    def test_ray_does_not_keep_the_signals_that_it_takes(self, fake_ray: FakeRay, address: str | None) -> None:
        with stoppable(), connected(address), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
