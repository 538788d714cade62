"""Starting or joining Ray."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

from oodray.errors import RunError

LOCAL_CPUS = 4
"""Logical CPUs that a local Ray has at least: fewer can leave a stage without one for ever."""


@contextlib.contextmanager
def connected(address: str | None = None, local_cpus: int = 0) -> Iterator[None]:
    """Ray for the length of the block: the one that runs, the cluster at `address` or `RAY_ADDRESS`, or a local one
    with at least `local_cpus` logical CPUs.

    Raises:
        RunError: if the cluster cannot be reached.
    """
    with _quiet():
        import ray

    if ray.is_initialized():
        yield
        return
    address = cluster_address(address)
    with _quiet():
        try:
            if address:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            else:
                _start_local(local_cpus)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise RunError(f"cannot reach the Ray cluster {address or 'on this machine'}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def cluster_address(address: str | None) -> str | None:
    """The cluster to join, from the option or `RAY_ADDRESS`; None for a local Ray."""
    return address or os.environ.get("RAY_ADDRESS") or None


def gpu_count() -> float:
    """GPUs that Ray knows of."""
    import ray

    return float(ray.cluster_resources().get("GPU", 0))


def _start_local(wanted: int) -> None:
    import ray

    cpus = max(LOCAL_CPUS, os.cpu_count() or 1, wanted)
    # Logical CPUs only decide how many tasks run at once. The dashboard stays off, and its port closed.
    ray.init(address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's start-up notes off the terminal: none of them is for a user of oodray. They are shown if it fails."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # The notes come from C++, below sys.stderr.
    with warnings.catch_warnings(), tempfile.TemporaryFile() as notes:
        warnings.simplefilter("ignore")
        sys.stderr.flush()
        terminal = os.dup(2)
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except BaseException:
            notes.seek(0)
            os.write(terminal, notes.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
