"""A run on a cluster that has no machine for its workers yet, and gets some from Ray's own autoscaler when asked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import descendants, end_all
from two_machines import RAY

from oodray.results.folder import ResultsFolder

pytestmark = [pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(300)]

TESTS = Path(__file__).parents[1]
ADDRESS = "127.0.0.1:26381"
HEAD = "ray.head.default"
"""As Ray's provider for tests calls it."""

AUTOSCALER: dict[str, Any] = {
    "cluster_name": "growing",
    "max_workers": 2,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 10,
    # Its machines are processes.
    "provider": {"type": "fake_multinode", "gcs_address": ADDRESS},
    "head_node_type": HEAD,
    "available_node_types": {
        HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "gpus": {
            "resources": {"CPU": 2, "GPU": 1, "object_store_memory": 100_000_000},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 2,
        },
    },
    # What a cluster has that is made of real machines.
    **{name: {} for name in ("auth", "docker", "file_mounts")},
    **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands")},
    **{f"{who}setup_commands": [] for who in ("", "head_", "worker_")},
    **{f"{who}_start_ray_commands": [] for who in ("head", "worker")},
    "file_mounts_sync_continuously": False,
}


@pytest.fixture(scope="module")
def growing(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables that join a cluster of a head, and machines with GPUs on paper as they are needed, up to two."""
    config = tmp_path_factory.mktemp("growing") / "autoscaler.yaml"
    config.write_text(json.dumps(AUTOSCALER))
    variables = environment | {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_AUTH_MODE": "disabled",
    }
    temporary = tempfile.mkdtemp(prefix="oodray")
    variables |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": temporary, "OODRAY_WITNESSES": str(config.parent)}
    host, _, port = ADDRESS.partition(":")
    head = [*RAY, "start", "--head", "--block", f"--node-ip-address={host}", f"--port={port}", "--num-cpus=0"]
    options = [
        "--include-dashboard=false",
        "--ray-client-server-port=26382",
        "--object-store-memory=100000000",
        f"--autoscaling-config={config}",
    ]
    process = subprocess.Popen(
        [*head, *options], env=variables, cwd=TESTS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield variables | {"RAY_ADDRESS": ADDRESS}
    finally:
        end_all([process.pid, *descendants(process.pid)])
        process.wait()
        shutil.rmtree(temporary, ignore_errors=True)


def start(root: Path, out: Path, variables: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "oodray.cli",
        "run",
        "--dataset",
        "ade-ood",
        "--root",
        str(root),
        "--out",
        str(out),
    ]
    network = ["--model", "fakes:witness", "--tau", "1.5", "--kmeans-backend", "torch", "--gpus-per-worker", "1"]
    return subprocess.run(
        [*command, *network, *options], env=variables, cwd=TESTS, capture_output=True, text=True, check=False
    )


def test_machines_come_for_a_run_that_waits_for_them(
    growing: dict[str, str], tiny_dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    # Nobody has asked yet, so that there is no GPU, and there would never be one.
    deadline = time.monotonic() + 60
    while True:
        refused = start(tiny_dataset, out, growing)
        if "no Ray cluster answers" not in refused.stderr:
            break
        assert time.monotonic() < deadline
    assert refused.returncode == 2, refused.stderr
    assert "1 workers with 1 GPUs each need 1 GPUs, Ray has 0" in refused.stderr
    done = start(tiny_dataset, out, growing, "--workers", "1:2", "--wait", "120")
    assert done.returncode == 0, done.stderr
    assert "waiting up to 120 s for room for 1 workers with 1 GPU, 1 CPU each" in done.stderr
    assert "1 to 2 workers of 1 GPU" in done.stderr
    assert ResultsFolder(out).read_run()["images"] == {"ok": 10, "failed": 0}


def test_what_never_comes_is_refused_in_time(growing: dict[str, str], tiny_dataset: Path, tmp_path: Path) -> None:
    refused = start(tiny_dataset, tmp_path / "out", growing, "--workers", "9", "--wait", "3")
    assert refused.returncode == 2, refused.stderr
    assert (
        "the cluster has no room for 9 workers with 1 GPU, 1 CPU each after 3 s: `ray status` shows" in refused.stderr
    )
