from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from places import on_disk

from oodray.errors import ResultsError, RunError
from oodray.results import lease as lease_module
from oodray.results.folder import ResultsFolder
from oodray.results.lease import DEAD_AFTER_SECONDS, Holder, Lease


@pytest.fixture
def folder(tmp_path: Path) -> ResultsFolder:
    return ResultsFolder(tmp_path / "out")


def leave(folder: ResultsFolder, holder: Holder, *, age: float = 0) -> None:
    """The lease of a run that did not take it along."""
    folder.path.mkdir(exist_ok=True)
    path = on_disk(folder.path / "lease.json")
    path.write_text(json.dumps(asdict(holder)))
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age))


def ended() -> Holder:
    """A process that was here and is gone."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return replace(Holder.this_process(), pid=process.pid, born=1)


def test_a_second_run_is_refused_while_the_first_is_alive(folder: ResultsFolder) -> None:
    with Lease(folder), pytest.raises(ResultsError, match=f"at work on .*: process {os.getpid()} on"), Lease(folder):
        pass
    assert list(folder.path.iterdir()) == []
    with Lease(folder) as again:
        assert again.taken_over is None


def test_a_run_that_is_gone_is_taken_over_at_once(folder: ResultsFolder) -> None:
    gone = ended()
    leave(folder, gone)
    with Lease(folder) as lease:
        assert lease.taken_over == gone
    assert list(folder.path.iterdir()) == []


def test_a_number_that_went_to_another_process_does_not_keep_it(folder: ResultsFolder) -> None:
    leave(folder, replace(Holder.this_process(), born=1))
    with Lease(folder) as lease:
        assert lease.taken_over is not None


@pytest.fixture(params=[{"host": f"not-{socket.gethostname()}"}, {"pids": "pid:[1]", "pid": 2**22 + 1}])
def elsewhere(request: pytest.FixtureRequest) -> Holder:
    """A run on another host, and one in another container of this host's name."""
    return replace(Holder.this_process(), **request.param)


def test_elsewhere_its_age_decides(folder: ResultsFolder, elsewhere: Holder) -> None:
    leave(folder, elsewhere, age=DEAD_AFTER_SECONDS * 2)
    with Lease(folder, on_wait=lambda _: pytest.fail("what is long dead was listened for")) as lease:
        assert lease.taken_over == elsewhere


def test_one_elsewhere_that_gives_a_sign_of_life_is_left_alone(folder: ResultsFolder, elsewhere: Holder) -> None:
    leave(folder, elsewhere, age=DEAD_AFTER_SECONDS / 2)
    # It beats while it is listened for.
    beats = Lease(folder, on_wait=lambda _: os.utime(on_disk(folder.path / "lease.json")))
    with pytest.raises(ResultsError, match="counts as dead 120 s after"), beats:
        pass


def test_a_machine_in_place_of_one_that_was_lost_waits_and_goes_on(
    folder: ResultsFolder, elsewhere: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "SECONDS_BETWEEN_LOOKS", 0.1)
    leave(folder, elsewhere, age=DEAD_AFTER_SECONDS - 1)
    heard: list[str] = []
    with Lease(folder, on_wait=heard.append) as lease:
        assert lease.taken_over == elsewhere
    assert heard == [f"{folder.path} is held by {elsewhere}: listening for a sign of life"]


def test_one_that_ends_while_it_is_listened_for_leaves_the_folder(folder: ResultsFolder, elsewhere: Holder) -> None:
    leave(folder, elsewhere, age=DEAD_AFTER_SECONDS / 2)
    with Lease(folder, on_wait=lambda _: (folder.path / "lease.json").unlink()) as lease:
        assert lease.taken_over == elsewhere


# Some that no process has, and some that mean many.
PIDS = [json.dumps(asdict(Holder.this_process()) | {"pid": pid}) for pid in ("7", None, 1.5, True, 0, -1, 2**64)]


DAMAGED = ["", "{", "[]", '{"host": 3}', *PIDS]


# By number: what they hold is another thing in each of the processes that share the tests.
@pytest.mark.parametrize("content", DAMAGED, ids=map(str, range(len(DAMAGED))))
def test_a_damaged_lease_is_taken_over_when_it_is_old(content: str, folder: ResultsFolder) -> None:
    leave(folder, ended(), age=DEAD_AFTER_SECONDS * 2)
    path = on_disk(folder.path / "lease.json")
    age = path.stat().st_mtime
    path.write_text(content)
    with pytest.raises(ResultsError, match="one that cannot be read"), Lease(folder):
        pass
    os.utime(path, (age, age))
    with Lease(folder) as lease:
        assert lease.taken_over is None


def test_it_gives_signs_of_life(folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "SECONDS_BETWEEN_BEATS", 0.01)
    path = on_disk(folder.path / "lease.json")
    with Lease(folder):
        content = path.read_bytes()
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 30
        while path.stat().st_mtime == 1:
            assert time.monotonic() < deadline
        assert path.read_bytes() == content


def test_it_gives_none_for_another_run(folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "SECONDS_BETWEEN_BEATS", 0.01)
    path = on_disk(folder.path / "lease.json")
    with Lease(folder):
        path.write_text("{}")
        os.utime(path, (1, 1))
        time.sleep(0.2)
        assert path.stat().st_mtime == 1


def test_of_many_that_find_it_dead_one_gets_it(folder: ResultsFolder) -> None:
    leave(folder, ended())
    got: list[str] = []
    start = threading.Barrier(8)
    hold = threading.Event()

    def ask() -> None:
        start.wait()
        try:
            with Lease(folder):
                got.append("taken")
                hold.wait(30)
        except ResultsError:
            got.append("refused")
            if got.count("refused") == 7:
                hold.set()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == ["refused"] * 7 + ["taken"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_on_a_drive_that_locks_nothing_a_run_goes_on(
    folder: ResultsFolder, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def refuse(descriptor: int) -> bool:
        asked.append(descriptor)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lease_module, "lock_descriptor", refuse)
    with Lease(folder):
        assert [path.name for path in on_disk(folder.path).iterdir()] == ["lease.json"]
    assert len(asked) == 1


def test_the_folder_is_locked_while_the_lease_is_written_and_no_longer(
    folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked_by_nobody() -> bool:
        descriptor = os.open(on_disk(folder.path), os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    seen: list[bool] = []
    write = Lease._write

    def look_and_write(lease: Lease) -> None:
        seen.append(locked_by_nobody())
        write(lease)

    monkeypatch.setattr(Lease, "_write", look_and_write)
    with Lease(folder):
        seen.append(locked_by_nobody())
    assert seen == [False, True]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot write to"), Lease(ResultsFolder(tmp_path / "file" / "out")):
        pass
