"""Runs on a cluster of two machines: both work, one may be lost, and the results are those of one machine."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dashboard import lacking
from runs import rows
from two_machines import TwoMachines

from oodray.results.folder import ResultsFolder
from oodray.results.reading import finished_units

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

TESTS = Path(__file__).parents[1]
SUBMIT = TESTS.parent / "jobs" / "submit.sh"

CUML = """
from sklearn.cluster import KMeans as Reference


class KMeans:
    def __init__(self, n_clusters, *, random_state, **_):
        self._reference = Reference(n_clusters, random_state=random_state, n_init=1)

    def fit_predict(self, points):
        return self._reference.fit_predict(points)
"""
"""Stands in for cuML's, on the machine with a GPU alone."""


@pytest.fixture(scope="module")
def witnesses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("witnesses")


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the second machine does not share."""
    return tmp_path_factory.mktemp("hidden")


@pytest.fixture(scope="module")
def for_reading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the second machine cannot write to."""
    return tmp_path_factory.mktemp("for_reading")


@pytest.fixture(scope="module")
def machines(
    pytestconfig: pytest.Config,
    environment: dict[str, str],
    witnesses: Path,
    hidden: Path,
    for_reading: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[TwoMachines]:
    packages = tmp_path_factory.mktemp("packages")
    (packages / "cuml.py").write_text(CUML)
    variables = {
        "PYTHONPATH": f"{environment['PYTHONPATH']}:{TESTS}",
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "OODRAY_WITNESSES": str(witnesses),
    }
    machines = TwoMachines(environment | variables)
    try:
        # The tests that submit jobs and read metrics are those of `make soak`.
        machines.start(hidden, for_reading, packages, dashboard=pytestconfig.getoption("--soak"))
        yield machines
    finally:
        machines.stop()


METHOD = ["--tau", "1.5", "--threads", "1"]
TWO_ON_CPUS = ["--workers", "2", "--gpus-per-worker", "0"]


def command(root: Path, out: Path, *options: str, model: str = "fakes:witness") -> list[str]:
    where = ["--dataset", "ade-ood", "--root", str(root), "--out", str(out), "--model", model]
    return [sys.executable, "-m", "oodray.cli", "run", *where, *METHOD, *(options or TWO_ON_CPUS)]


@pytest.mark.soak
def test_a_submitted_job_is_done_by_both(
    machines: TwoMachines, undisturbed: Path, tiny_dataset: Path, witnesses: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    submit = [str(SUBMIT), "ade-ood", str(tiny_dataset), str(out), "--model", "fakes:witness", *METHOD, *TWO_ON_CPUS]
    submitted = machines.run(submit, RAY_API_SERVER_ADDRESS=machines.jobs)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert rows(out).equals(rows(undisturbed))
    assert (out / "metrics.json").read_bytes() == (undisturbed / "metrics.json").read_bytes()
    assert len(list(witnesses.iterdir())) == 2


WATCH = """
import sys, time, urllib.request
from pathlib import Path

import ray

ray.init(address="auto", log_to_driver=False)
urls = [f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics" for node in ray.nodes()]
seen = {}
while not Path(sys.argv[1]).exists():
    time.sleep(1)
    for url in urls:
        for line in urllib.request.urlopen(url, timeout=20).read().decode().splitlines():
            if line.startswith("ray_oodray"):
                series, _, value = line.rpartition(" ")
                seen[series] = max(float(value), seen.get(series, 0))
print(*(f"{series} {value}" for series, value in seen.items()), sep="\\n")
"""
"""Reads the metrics pages of all nodes until a file is there, and prints the largest value of each of our series."""


@pytest.mark.soak
def test_its_numbers_are_on_rays_metrics_page(machines: TwoMachines, tiny_root: Path, tmp_path: Path) -> None:
    (tiny_root / "images" / "03.png").write_bytes(b"broken")
    stop = tmp_path / "stop"
    watching = machines.popen([sys.executable, "-c", WATCH, str(stop)], RAY_ADDRESS=machines.gcs)
    submitted = machines.run(command(tiny_root, tmp_path / "out"), RAY_ADDRESS=machines.gcs)
    time.sleep(5)  # a page is as old as a report
    stop.touch()
    page, errors = watching.communicate(timeout=120)
    assert submitted.returncode == 0, submitted.stderr
    assert "2 nodes with 4 CPUs and 1 GPU; 2 workers of 1 CPU" in submitted.stderr
    # The job before this one had no error. What a process counts in its last second may not be reported.
    assert counted(page, "error") == 1, page + errors
    assert counted(page, "ok") >= 5, page
    stages = set(re.findall(r'(?m)^ray_oodray_stage_seconds\w*\{.*stage="(\w+)"', page))
    assert stages == {"decode", "segment", "cluster", "finish"}
    shares = [float(share) for share in re.findall(r"(?m)^ray_oodray_worker_busy_share\{.*\} (\S+)", page)]
    assert shares
    assert all(0 < share <= 1 for share in shares)
    assert lacking(page) == []


def counted(page: str, status: str) -> float:
    """Images with a status, on a metrics page."""
    found = re.findall(rf'(?m)^ray_oodray_images\w*\{{.*\bstatus="{status}".*\}} (\S+)', page)
    return sum(map(float, found))


@pytest.mark.soak
def test_the_backend_is_that_of_the_machine_with_the_gpu(
    machines: TwoMachines, undisturbed: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    # As in a cluster whose head has no GPU, the driver's own machine has neither that nor cuML.
    done = machines.run(command(tiny_dataset, tmp_path / "out", "--workers", "1"), RAY_ADDRESS=machines.gcs)
    assert done.returncode == 0, done.stderr
    identity = ResultsFolder(tmp_path / "out").read_run()["identity"]
    assert (identity["device"], identity["kmeans_backend"]) == ("cuda", "cuml")
    assert ResultsFolder(undisturbed).read_run()["identity"]["kmeans_backend"] == "torch"
    assert rows(tmp_path / "out")["status"].to_pylist() == ["ok"] * 10


SHARE = "all nodes must share it"


@pytest.mark.soak
def test_a_node_that_lacks_something_is_named(
    machines: TwoMachines, hidden: Path, for_reading: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    if not machines.apart:
        pytest.skip("two machines with files of their own need network namespaces")
    shutil.copytree(tiny_dataset, hidden / "root")
    (hidden / "mine.py").write_text("import fakes\n\ndef make():\n    return fakes.witness()\n")
    for options, problem in (
        (command(hidden / "root", tmp_path / "out"), f"does not see --root, {hidden}/root: {SHARE}"),
        (command(tiny_dataset, hidden / "out"), f"does not see --out, {hidden}/out: {SHARE}"),
        (command(tiny_dataset, for_reading), f"cannot write to --out, {for_reading} (Read-only file system): mount it"),
        (
            command(tiny_dataset, tmp_path / "own", model="mine:make"),
            f"does not see the code mine.py, {hidden}/mine.py: {SHARE}",
        ),
    ):
        refused = machines.run(options, hidden, RAY_ADDRESS=machines.gcs)
        assert refused.returncode == 2, refused.stderr
        assert f"the node {machines.addresses[1]} {problem}" in refused.stderr
        out = Path(options[options.index("--out") + 1])
        assert finished_units(ResultsFolder(out)) == set()


def test_a_machine_that_is_lost_takes_nothing_along(
    machines: TwoMachines, undisturbed: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    # The variable alone makes it join the cluster.
    running = machines.popen(command(tiny_dataset, out), RAY_ADDRESS=machines.gcs)
    while len(finished_units(ResultsFolder(out))) < 3:
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    machines.lose(1)
    stdout, stderr = running.communicate(timeout=200)
    assert running.returncode == 0, stdout + stderr
    assert rows(out).equals(rows(undisturbed))
    assert (out / "metrics.json").read_bytes() == (undisturbed / "metrics.json").read_bytes()
