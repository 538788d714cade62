"""Runs that join a Ray which somebody else started, in a process and a folder of its own."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from oodray.results.folder import ResultsFolder
from oodray.results.reading import read_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TESTS = Path(__file__).parents[1]

CLUSTER = """
import os
import sys

import ray


@ray.remote
def folder():
    return os.getcwd()


context = ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
print(context.address_info["gcs_address"], flush=True)
for _ in sys.stdin:
    print(ray.get(folder.remote()), flush=True)
"""
"""Starts a Ray, says where, and has a worker answer every line with its folder until there are no more."""

NETWORK = f"""
import sys
from pathlib import Path

import ray

sys.path.append({str(TESTS)!r})
import fakes


class Witness(fakes.Colours):
    def __init__(self):
        Path(__file__).with_name("worker").write_text(ray.get_runtime_context().gcs_address)
"""
"""A network that leaves a note of the Ray that it runs in."""

PARALLEL = """
from pathlib import Path

import ray

from oodray import cli
from oodray.analysis import totals

NOTE = Path("reducer").absolute()
total_here = totals.total_here


def witness(*arguments, **options):
    NOTE.write_text(ray.get_runtime_context().gcs_address)
    return total_here(*arguments, **options)


totals.FILES_PER_TASK = 1
totals.total_here = witness
cli.main()
"""
"""The command line with a reduction that takes a task per file; its tasks leave a note as well."""

OTHER_RAY = """
import ray

ray.__version__ = "2.0.0"
from oodray.cli import main

main()
"""
"""The command line on another Ray than that of a cluster, as far as Ray can tell."""


class Cluster:
    """A Ray in another process."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        (folder / "cluster.py").write_text(CLUSTER, encoding="utf-8")
        self.folder = folder
        with (folder / "errors").open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, folder / "cluster.py"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=folder,
                env=environment,
            )
        self.address = self._read()

    def ask(self) -> str:
        """The folder of a worker: an answer that only a living Ray gives."""
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)
        return self._read()

    def stop(self) -> None:
        try:
            self.process.communicate(timeout=30)
        finally:
            self.process.kill()

    def _read(self) -> str:
        assert self.process.stdout is not None
        answer = self.process.stdout.readline().strip()
        assert answer, (self.folder / "errors").read_text()
        return answer


class Runs:
    """`oodray run` and others in a working directory that holds the network; the results folder is `out` there."""

    def __init__(self, folder: Path, root: Path, environment: dict[str, str]) -> None:
        self.folder, self.root, self.environment = folder, root, environment
        self.out = ResultsFolder(folder / "out")
        (folder / "network.py").write_text(NETWORK, encoding="utf-8")
        (folder / "parallel.py").write_text(PARALLEL, encoding="utf-8")
        (folder / "other_ray.py").write_text(OTHER_RAY, encoding="utf-8")

    def run(self, *options: str, program: tuple[str, ...] = ("-m", "oodray.cli")) -> subprocess.CompletedProcess[str]:
        dataset = ["--dataset", "ade-ood", "--root", str(self.root)]
        method = ["--model", "network:Witness", "--tau", "1.5", "--threads", "1"]
        return self.call(*program, "run", *dataset, *method, "--out", "out", *options)

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def note(self, who: str) -> str:
        """The Ray that a worker or a reducer was in."""
        return (self.folder / who).read_text()


@pytest.fixture(scope="module")
def secured(environment: dict[str, str]) -> dict[str, str]:
    """The environment of a Ray and of those who join it: Ray asks for the token that they share."""
    return environment | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex()}


@pytest.fixture(scope="module")
def cluster(secured: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), secured)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def local(undisturbed: Path) -> ResultsFolder:
    """The results of a run on a local Ray."""
    return ResultsFolder(undisturbed)


def rows(folder: ResultsFolder) -> pa.Table:
    table = read_rows(folder.parts())
    return table.drop([name for name in table.column_names if name.startswith("seconds")])


def metrics(folder: ResultsFolder) -> tuple[bytes, bytes]:
    return folder.metrics_json.read_bytes(), folder.metrics.read_bytes()


@pytest.mark.soak
def test_the_cluster_of_the_environment_is_joined_and_left_alone(
    cluster: Cluster, local: ResultsFolder, secured: dict[str, str], tiny_dataset: Path, tmp_path: Path
) -> None:
    runs = Runs(tmp_path, tiny_dataset, secured | {"RAY_ADDRESS": cluster.address})
    done = runs.run()
    assert done.returncode == 0, done.stderr
    assert runs.note("worker") == cluster.address
    assert rows(runs.out).num_rows == 10
    assert rows(runs.out).equals(rows(local))
    assert metrics(runs.out) == metrics(local)
    assert cluster.ask() == str(cluster.folder)

    # The reduction of a folder that is there, by workers in another one.
    runs.out.metrics_json.unlink()
    runs.out.metrics.unlink()
    done = runs.call("parallel.py", "evaluate", "out")
    assert done.returncode == 0, done.stderr
    assert runs.note("reducer") == cluster.address
    assert metrics(runs.out) == metrics(local)
    assert cluster.ask() == str(cluster.folder)


@pytest.mark.soak
def test_the_cluster_of_the_option_is_joined_and_reduces_in_parallel(
    cluster: Cluster, local: ResultsFolder, secured: dict[str, str], tiny_dataset: Path, tmp_path: Path
) -> None:
    # The option wins over the variable.
    runs = Runs(tmp_path, tiny_dataset, secured | {"RAY_ADDRESS": "127.0.0.1:1"})
    done = runs.run("--ray-address", cluster.address, program=("parallel.py",))
    assert done.returncode == 0, done.stderr
    assert runs.note("worker") == runs.note("reducer") == cluster.address
    assert rows(runs.out).equals(rows(local))
    assert metrics(runs.out) == metrics(local)
    assert cluster.ask() == str(cluster.folder)


@pytest.mark.soak
def test_a_cluster_of_another_ray_is_not_joined(
    cluster: Cluster, secured: dict[str, str], tiny_dataset: Path, tmp_path: Path
) -> None:
    runs = Runs(tmp_path, tiny_dataset, secured | {"RAY_ADDRESS": cluster.address})
    refused = runs.run("--gpus-per-worker", "0", program=("other_ray.py",))
    assert refused.returncode == 1
    assert f"error: cannot join the Ray cluster at {cluster.address}: Version mismatch" in refused.stderr
    assert "Start oodray with the Ray and the Python of the cluster" in refused.stderr
    assert "token" not in refused.stderr
    assert runs.out.parts() == []


@pytest.mark.parametrize("by_option", [pytest.param(True, marks=pytest.mark.soak), False])
def test_where_nobody_listens_nothing_is_run(
    by_option: bool, environment: dict[str, str], tiny_dataset: Path, tmp_path: Path
) -> None:
    nobody = "127.0.0.1:1"
    runs = Runs(tmp_path, tiny_dataset, environment if by_option else environment | {"RAY_ADDRESS": nobody})
    # Ray itself would wait for minutes, then say something else.
    done = runs.run(*(["--ray-address", nobody] if by_option else []))
    assert done.returncode == 2
    assert done.stdout == ""
    [message] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message.startswith(f"error: no Ray cluster answers at {nobody}: ")
    assert "RAY_ADDRESS" in message
    assert runs.out.parts() == []
    assert not (tmp_path / "worker").exists()
