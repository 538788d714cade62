"""Runs on a cluster of two machines: both work, one may be lost, and the results are those of one machine."""

from __future__ import annotations

import re
import shutil
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
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the second machine does not share."""
    return tmp_path_factory.mktemp("hidden")


@pytest.fixture(scope="module")
def machines(environment: dict[str, str], witnesses: Path, hidden: Path) -> Iterator[TwoMachines]:
    path = f"{environment['PYTHONPATH']}:{HERE}"
    machines = TwoMachines(environment | {"PYTHONPATH": path, "OODRAY_WITNESSES": str(witnesses)})
    try:
        machines.start(hidden)
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


METRICS = """
import json, urllib.request, ray
ray.init(address="auto", log_to_driver=False)
for node in ray.nodes():
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    print(urllib.request.urlopen(url, timeout=20).read().decode())
"""


def test_its_numbers_are_on_rays_metrics_page(
    machines: TwoMachines, alone: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    submitted = machines.run(command(tiny_dataset, tmp_path / "out"), RAY_ADDRESS=machines.gcs)
    assert submitted.returncode == 0, submitted.stderr
    assert "2 nodes with 4 CPUs and 0 GPUs; 2 workers of 1 CPUs" in submitted.stderr
    deadline = time.monotonic() + 60
    while True:
        page = machines.run([sys.executable, "-c", METRICS], RAY_ADDRESS=machines.gcs).stdout
        images = sum(float(value) for value in re.findall(r'(?m)^ray_oodray_images\w*\{.*status="ok".*\} (\S+)', page))
        stages = set(re.findall(r'(?m)^ray_oodray_stage_seconds\w*\{.*stage="(\w+)"', page))
        if images >= 10 and "ray_oodray_worker_busy_share" in page:
            break
        assert time.monotonic() < deadline, [line for line in page.splitlines() if "oodray" in line]
        time.sleep(1)
    assert stages == {"decode", "segment", "cluster", "finish"}


def test_a_node_that_does_not_see_the_images_is_named(
    machines: TwoMachines, hidden: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    if not machines.apart:
        pytest.skip("two machines with files of their own need network namespaces")
    shutil.copytree(tiny_dataset, hidden / "root")
    for root, out, lacking in (
        (hidden / "root", tmp_path / "out", f"--root, {hidden}/root"),
        (tiny_dataset, hidden / "out", f"--out, {hidden}/out"),
    ):
        refused = machines.run(command(root, out), RAY_ADDRESS=machines.gcs)
        assert refused.returncode == 2, refused.stderr
        assert f"the node {machines.addresses[1]} does not see {lacking}: all nodes must share it" in refused.stderr
        assert list((out / "results").iterdir()) == []


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
