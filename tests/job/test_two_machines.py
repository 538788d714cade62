"""Runs on a cluster of two machines: both work, one may be lost, and the results are those of one machine."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from two_machines import RAY, TwoMachines

from oodray.job.reading import read_rows
from oodray.job.results import ResultsFolder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def witnesses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("witnesses")


@pytest.fixture(scope="module")
def machines(environment: dict[str, str], witnesses: Path) -> Iterator[TwoMachines]:
    path = f"{environment['PYTHONPATH']}:{HERE}"
    machines = TwoMachines(environment | {"PYTHONPATH": path, "OODRAY_WITNESSES": str(witnesses)})
    try:
        machines.start()
        yield machines
    finally:
        machines.stop()


def command(root: Path, out: Path) -> list[str]:
    options = {"dataset": "ade-ood", "root": root, "out": out, "model": "fakes:witness", "tau": 1.5, "threads": 1}
    flat = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return [sys.executable, "-m", "oodray.cli", "run", *flat, "--workers", "2"]


def rows(out: Path) -> pa.Table:
    table = read_rows(ResultsFolder(out).parts())
    return table.drop([name for name in table.column_names if name.startswith("seconds")])


@pytest.fixture(scope="module")
def alone(
    tiny_dataset: Path,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The same run on this machine alone."""
    base = tmp_path_factory.mktemp("alone")
    variables = environment | {"OODRAY_WITNESSES": str(base)}
    subprocess.run(command(tiny_dataset, base / "out"), check=True, capture_output=True, cwd=HERE, env=variables)
    return base / "out"


def test_a_submitted_job_is_done_by_both(
    machines: TwoMachines, alone: Path, tiny_dataset: Path, witnesses: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    submit = [*RAY, "job", "submit", "--address", machines.jobs, "--", *command(tiny_dataset, out)]
    submitted = machines.run(submit)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert rows(out).equals(rows(alone))
    assert (out / "metrics.json").read_bytes() == (alone / "metrics.json").read_bytes()
    assert len(list(witnesses.iterdir())) == 2


def test_a_machine_that_is_lost_takes_nothing_along(
    machines: TwoMachines, alone: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    # The variable alone makes it join the cluster.
    running = machines.popen(command(tiny_dataset, out), RAY_ADDRESS=machines.gcs)
    while len(ResultsFolder(out).finished_units()) < 3:
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    machines.lose(1)
    stdout, stderr = running.communicate(timeout=200)
    assert running.returncode == 0, stdout + stderr
    assert rows(out).equals(rows(alone))
    assert (out / "metrics.json").read_bytes() == (alone / "metrics.json").read_bytes()
