"""A node that is lost while a run is at work, in Ray's own stand-in for a cluster; real machines: test_two_machines."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import fakes
import pytest

from oodray.job.reading import read_rows
from oodray.job.results import ResultsFolder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

HERE = Path(__file__).parent

# The head holds the driver and nothing else, so that all work is on the two nodes, one of which is killed.
PROGRAM = """
import os
import sys
import threading
import time

from ray.cluster_utils import Cluster

from oodray.cli import main
from oodray.job.results import ResultsFolder

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
lost, _ = (cluster.add_node(num_cpus=2) for _ in range(2))
cluster.wait_for_nodes()
folder = ResultsFolder(sys.argv[1])


def lose():
    while len(folder.finished_units()) < 2:
        time.sleep(0.02)
    cluster.remove_node(lost, allow_graceful=False)
    print(f"lost after {len(folder.finished_units())} of 10", flush=True)


threading.Thread(target=lose, daemon=True).start()
os.environ["RAY_ADDRESS"] = cluster.address
sys.argv = ["oodray", *sys.argv[2:]]
try:
    main()
finally:
    cluster.shutdown()
"""


def test_its_images_are_computed_on_another(tiny_dataset: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    out = tmp_path / "out"
    options = {"dataset": "ade-ood", "root": tiny_dataset, "out": out, "model": "fakes:slow", "tau": fakes.TAU}
    flat = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, out, "run", *flat, "--threads", "1", "--workers", "2"],
        check=False,
        capture_output=True,
        text=True,
        cwd=HERE,
        env=environment | {"RAY_AUTH_MODE": "disabled"},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = re.search(r"lost after (\d+) of 10", ended.stdout)
    assert found, ended.stdout + ended.stderr
    assert int(found[1]) < 10
    rows = read_rows(ResultsFolder(out).parts(), ["image_id", "status"]).to_pylist()
    assert rows == [{"image_id": f"images/{index:02}", "status": "ok"} for index in range(10)]
