"""Output folders that fill up, or are lost, while a run is at work: a clear end, and the run continues afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from runs import TESTS, Run

from oodray.errors import OodrayError, RunError
from oodray.job.units import UnitDone
from oodray.results.folder import ResultsFolder
from oodray.results.reading import read_rows

pytestmark = pytest.mark.timeout(240)

Go = Callable[..., object]


@pytest.fixture
def go(ray_session: None, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    """Starts or continues a run; the network is found in the working directory."""
    monkeypatch.chdir(TESTS)
    return lambda out, *on_unit: Run(tiny_dataset, out).go(*on_unit)


def rows(out: Path) -> pa.Table:
    table = read_rows(ResultsFolder(out).parts())
    return table.drop([name for name in table.column_names if name.startswith("seconds")])


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


def test_a_drive_that_is_full(go: Go, small_drive: Path, undisturbed: Path) -> None:
    ballast = small_drive / "ballast"
    ballast.write_bytes(b"\0" * 170 * 1024)
    with pytest.raises(RunError, match=r"cannot write .*: No space left on device"):
        go(small_drive / "out")
    begun = ResultsFolder(small_drive / "out").parts()
    assert len(begun) < 10
    read_rows(begun)  # each of them whole

    subprocess.run(["mount", "-o", "remount,size=8m", str(small_drive)], check=True)
    go(small_drive / "out")
    assert rows(small_drive / "out").equals(rows(undisturbed))
    assert list((small_drive / "out").rglob(".*")) == []


def test_a_drive_that_becomes_read_only(go: Go, small_drive: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_drive)], check=True)

    def protect(unit: UnitDone) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(small_drive)], check=True)

    with pytest.raises(RunError, match=r"cannot write .*: Read-only file system"):
        go(small_drive / "out", protect)
    with pytest.raises(OodrayError, match="Read-only file system"):
        go(small_drive / "elsewhere")
    subprocess.run(["mount", "-o", "remount,rw", str(small_drive)], check=True)
    go(small_drive / "out")
    assert rows(small_drive / "out").num_rows == 10


def test_a_folder_that_is_lost(go: Go, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def lose(unit: UnitDone) -> None:
        if (out / "results").is_dir():
            (out / "results").rename(out / "kept")
            (out / "results").touch()

    with pytest.raises(OodrayError, match=r"cannot .*results.*: (File exists|Not a directory)"):
        go(out, lose)
    (out / "results").unlink()
    (out / "kept").rename(out / "results")
    go(out)
    assert rows(out).num_rows == 10
