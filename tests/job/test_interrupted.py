"""Runs that are stopped in the middle, and continued by the same command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import call
from processes import wait_until_gone
from runs import rows

from oodray.cluster.signals import handlers_restored
from oodray.results.folder import ResultsFolder
from oodray.results.reading import read_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TESTS = Path(__file__).parents[1]
MARK = "OODRAY_STOPPED_RUN"
"""The variable that all processes of a run have."""

ENOUGH = 2  # finished images before the run is stopped

Command = Callable[[Path], list[str]]


@pytest.fixture(scope="module")
def command(tiny_dataset: Path) -> Command:
    def arguments(out: Path) -> list[str]:
        options = {"dataset": "ade-ood", "root": tiny_dataset, "model": "fakes:slow", "out": out, "threads": 1}
        return ["run", *(text for name, value in options.items() for text in (f"--{name}", str(value))), "--tau", "1.5"]

    return arguments


def start(arguments: list[str], out: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """A run in a process group of its own, with the first images done."""
    with handlers_restored():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # what its parent ignores, a process ignores, too
        process = subprocess.Popen(
            [sys.executable, "-m", "oodray.cli", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            cwd=TESTS,
            env=environment | {MARK: str(out)},
            start_new_session=True,
        )
    while len(ResultsFolder(out).parts()) < ENOUGH:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    return process


def times(out: Path) -> dict[str, float]:
    """The seconds that each finished image took: an image that is computed again takes others."""
    found = read_rows(ResultsFolder(out).parts(), ["image_id", "seconds_segment"]).to_pylist()
    return {row["image_id"]: row["seconds_segment"] for row in found}


# Ctrl-C reaches all of a terminal's processes; a machine that will be taken away asks the one that it knows.
@pytest.mark.parametrize(
    ("executor", "number", "send"),
    [
        pytest.param("local", signal.SIGINT, os.killpg, marks=pytest.mark.soak),
        ("local", signal.SIGTERM, os.kill),
        pytest.param("ray", signal.SIGINT, os.killpg, marks=pytest.mark.soak),
        pytest.param("ray", signal.SIGTERM, os.kill, marks=pytest.mark.soak),
    ],
)
def test_after_a_signal_the_same_command_continues_it(
    command: Command,
    undisturbed: Path,
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    executor: str,
    number: signal.Signals,
    send: Callable[[int, int], None],
) -> None:
    out = tmp_path / "out"
    process = start([*command(out), "--executor", executor], out, environment)
    send(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err.endswith("stopped. The same command continues a run.\n")
    assert "Traceback" not in err
    assert not (out / "lease.json").exists()
    wait_until_gone(f"{MARK}={out}")
    before = times(out)
    assert ENOUGH <= len(before) < 10

    monkeypatch.chdir(TESTS)
    assert call(*command(out), "--executor", "local").exit_code == 0
    assert rows(out).equals(rows(undisturbed))
    assert {image: seconds for image, seconds in times(out).items() if image in before} == before
    for name in ("metrics.json", "metrics.parquet", "manifest.parquet"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes()
    assert list(out.rglob(".*")) == []
