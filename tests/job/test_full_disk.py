"""Output folders that fill up, or are lost, while a run is at work: a clear end, and the run continues afterwards."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from runs import TESTS, Run, rows

from oodray.errors import OodrayError, RunError
from oodray.job.units import UnitDone
from oodray.results.folder import ResultsFolder
from oodray.results.reading import read_rows

pytestmark = pytest.mark.timeout(240)

Start = Callable[[Path], Run]

LOCAL_AND_IN_SOAK_RAY = ["local", pytest.param("ray", marks=pytest.mark.soak)]
"""That an error of ours comes through Ray as it is, is in test_executors.py."""


@pytest.fixture
def start(request: pytest.FixtureRequest, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Makes runs with one of the executors; the network is found in the working directory."""
    monkeypatch.chdir(TESTS)
    if request.param == "ray":
        request.getfixturevalue("ray_session")
    return partial(Run, tiny_dataset, executor=request.param)


@pytest.fixture
def small_drive(tmp_path: Path) -> Iterator[Path]:
    """A drive of 256 KiB, where this process may mount one."""
    drive = tmp_path / "drive"
    drive.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(drive)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small drive needs to be root")
    yield drive
    subprocess.run(["umount", "--lazy", str(drive)], check=True)


@pytest.mark.parametrize("start", LOCAL_AND_IN_SOAK_RAY, indirect=True)
def test_a_drive_that_is_full(start: Start, small_drive: Path, undisturbed: Path) -> None:
    ballast = small_drive / "ballast"
    ballast.write_bytes(b"\0" * 170 * 1024)
    with pytest.raises(RunError, match=r"cannot write .*: No space left on device"):
        start(small_drive / "out").go()
    begun = ResultsFolder(small_drive / "out").parts()
    assert len(begun) < 10
    read_rows(begun)  # each of them whole

    subprocess.run(["mount", "-o", "remount,size=8m", str(small_drive)], check=True)
    start(small_drive / "out").go()
    assert rows(small_drive / "out").equals(rows(undisturbed))
    assert list((small_drive / "out").rglob(".*")) == []


@pytest.mark.parametrize("start", LOCAL_AND_IN_SOAK_RAY, indirect=True)
def test_a_drive_that_becomes_read_only(start: Start, small_drive: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_drive)], check=True)

    def protect(unit: UnitDone) -> None:
        deadline = time.monotonic() + 60
        # As long as a file there is being written, the drive is busy.
        while subprocess.run(["mount", "-o", "remount,ro", str(small_drive)], check=False).returncode != 0:
            assert time.monotonic() < deadline

    with pytest.raises(RunError, match=r"cannot write .*: Read-only file system"):
        start(small_drive / "out").go(protect)
    with pytest.raises(OodrayError, match="Read-only file system"):
        start(small_drive / "elsewhere").go()
    subprocess.run(["mount", "-o", "remount,rw", str(small_drive)], check=True)
    start(small_drive / "out").go()
    assert rows(small_drive / "out").num_rows == 10


@pytest.mark.parametrize("start", LOCAL_AND_IN_SOAK_RAY, indirect=True)
def test_a_folder_that_is_lost(start: Start, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def lose(unit: UnitDone) -> None:
        if (out / "results").is_dir():
            (out / "results").rename(out / "kept")
            (out / "results").touch()

    # A file in its place; none for a moment, between the two steps.
    with pytest.raises(
        OodrayError, match=r"cannot .*results.*: (File exists|Not a directory|No such file or directory)"
    ):
        start(out).go(lose)
    (out / "results").unlink()
    (out / "kept").rename(out / "results")
    start(out).go()
    assert rows(out).num_rows == 10
