"""A Ray cluster of two nodes: in network namespaces with addresses of their own where this process may make some,
else two nodes on this machine's loopback.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from processes import descendants, end_all

HERE = Path(__file__).parent
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
PORT, DASHBOARD = 26379, 28265
CPUS = 2

COUNT = """
import sys, time
import ray

ray.init(address="auto", log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]):
    time.sleep(0.1)
"""
"""Ends when the head knows so many living nodes."""


class TwoMachines:
    """Two nodes; the first one is the head.

    Attributes:
        addresses: of the nodes.
        apart: whether each has a network of its own.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        # Ray notes there which cluster is the current one: no other Ray on this machine may change that.
        self._temporary = tempfile.mkdtemp(prefix="oodray")
        # Metrics come every second, not every ten.
        self.environment = (
            environment
            | {"RAY_metrics_report_interval_ms": "1000", "RAY_TMPDIR": self._temporary}
            | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
        )
        self._names = [f"oodray{os.getpid()}{letter}" for letter in "ab"]
        self.apart = self._make_namespaces()
        self.addresses = ["10.77.83.1", "10.77.83.2"] if self.apart else ["127.0.0.1", "127.0.0.1"]
        self._nodes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, hidden: Path, for_reading: Path, packages: Path, *, dashboard: bool) -> None:
        """Start both nodes, and wait until they see each other.

        Args:
            hidden: a folder that is another one on the second node, if they are apart.
            for_reading: a folder that the second node cannot write to, if they are apart.
            packages: a folder of packages that the second node has alone, beside a GPU on paper.
            dashboard: whether jobs can be submitted; its processes take seconds to start.
        """
        where = [f"--dashboard-host={self.addresses[0]}", f"--dashboard-port={DASHBOARD}"]
        self._start_until_there(0, "--head", f"--port={PORT}", *where, f"--include-dashboard={dashboard}")
        # `ip netns exec` gives a process mounts of its own.
        mounts = f'mount -t tmpfs tmpfs "{hidden}" && mount --bind -o ro "{for_reading}" "{for_reading}" && exec "$@"'
        before = ["sh", "-c", mounts, "sh"] if self.apart else []
        options = [f"--address={self.addresses[0]}:{PORT}", "--num-gpus=1"]
        packages_too = f"{self.environment['PYTHONPATH']}:{packages}"
        self._start_until_there(1, *options, before=before, PYTHONPATH=packages_too)

    def _start_until_there(self, node: int, *options: str, before: Sequence[str] = (), **variables: str) -> None:
        """Start a node again that has given up: Ray leaves it half a minute, which is little on a busy machine."""
        for _ in range(3):
            self._start(node, *options, before=before, **variables)
            while self._nodes[node].poll() is None:
                if self._are_living(node + 1):
                    return
        raise AssertionError(f"Ray's node {node} does not start")

    def _are_living(self, nodes: int) -> bool:
        """Whether the head comes to know so many nodes; False after half a minute, or where the head is not there."""
        try:
            return self.run([sys.executable, "-c", COUNT, str(nodes)], seconds=30, RAY_ADDRESS=self.gcs).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    @property
    def gcs(self) -> str:
        """What goes into `RAY_ADDRESS`."""
        return f"{self.addresses[0]}:{PORT}"

    @property
    def jobs(self) -> str:
        """Where jobs are submitted."""
        return f"http://{self.addresses[0]}:{DASHBOARD}"

    def popen(self, command: list[str], folder: Path = HERE, **variables: str) -> subprocess.Popen[str]:
        """A process on the first machine."""
        return subprocess.Popen(
            [*self._on(0), *command],
            env=self.environment | variables,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, command: list[str], folder: Path = HERE, seconds: float = 200, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """The same, to its end."""
        with self.popen(command, folder, **variables) as process:
            try:
                out, err = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                end_all([process.pid, *descendants(process.pid)])
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def lose(self, node: int) -> None:
        """Take the power from a machine."""
        end_all([self._nodes[node].pid, *descendants(self._nodes[node].pid)])
        self._nodes.pop(node).wait()

    def stop(self) -> None:
        """Both machines are gone."""
        for node in list(self._nodes):
            self.lose(node)
        if self.apart:
            for name in self._names:
                _ip("netns", "del", name)
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _start(self, node: int, *options: str, before: Sequence[str] = (), **variables: str) -> None:
        command = [
            *RAY,
            "start",
            "--block",
            f"--node-ip-address={self.addresses[node]}",
            f"--num-cpus={CPUS}",
            *options,
        ]
        self._nodes[node] = subprocess.Popen(
            [*self._on(node), *before, *command, "--object-store-memory=200000000"],
            env=self.environment | variables,
            cwd=HERE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _on(self, node: int) -> list[str]:
        return ["ip", "netns", "exec", self._names[node]] if self.apart else []

    def _make_namespaces(self) -> bool:
        one, other = self._names
        ends = [f"oo{os.getpid()}a", f"oo{os.getpid()}b"]
        try:
            made = _ip("netns", "add", one) and _ip("netns", "add", other)
            made = made and _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
            for name, end, address in zip(self._names, ends, ("10.77.83.1/24", "10.77.83.2/24"), strict=True):
                made = made and _ip("link", "set", end, "netns", name)
                made = made and _ip("-n", name, "addr", "add", address, "dev", end)
                made = made and _ip("-n", name, "link", "set", end, "up") and _ip("-n", name, "link", "set", "lo", "up")
        except FileNotFoundError:  # no command `ip`
            return False
        if not made:
            for name in self._names:
                _ip("netns", "del", name)
        return made


def _ip(*arguments: str) -> bool:
    return subprocess.run(["ip", *arguments], check=False, capture_output=True).returncode == 0
