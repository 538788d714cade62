"""Starting or joining Ray."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from typing import Any, Self

from oodray.cluster.noise import Notes, messages_off_stdout, start_notes_off_stderr
from oodray.cluster.shares import usable_cores
from oodray.cluster.signals import handlers_restored
from oodray.errors import ConfigError, RunError
from oodray.phases import phase

LOCAL_CPUS = 4
"""Logical CPUs that a local Ray has at least: fewer can leave a stage without one for ever."""

CONNECT_SECONDS = 10

_NO_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)

_REMEDIES = {
    "AF_UNIX path length": "Name a folder with a short path for Ray's own files: RAY_TMPDIR=/tmp",
    "Could not find any running Ray instance": "Start one with `ray start --head`, or leave out --ray-address and "
    "RAY_ADDRESS",
    "InvalidAuthToken": "The cluster asks for its token, and was shown none or another one: RAY_AUTH_MODE=token with "
    "RAY_AUTH_TOKEN=TOKEN, or a copy of its ~/.ray/auth_token, see docs/cluster.md",
    "Timed out waiting for file": "Is there room in the folder of that file? RAY_TMPDIR=DIR names another for Ray's "
    "own files",
    "Version mismatch": "Start oodray with the Ray and the Python of the cluster, such as those of its image",
}
"""What to do next, by words of Ray's errors."""

_TOKENS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""Variables by which a user decides on tokens."""

_NOT_NEEDED = ("start_monitor", "start_log_monitor", "start_api_server")
"""What starts the autoscaler, the process that sends logs to the driver, and that of the dashboard, which is off."""


class Session:
    """Ray, until the end of a `with` block: the one that runs, a cluster, or a Ray of its own on this machine.

    It is started or joined when the session begins. A session that never began has nothing to end.

    Args:
        address: of a cluster; None joins that of `RAY_ADDRESS`, or starts a Ray where there is none.
        local_cpus: logical CPUs that a Ray of its own has at least.
    """

    def __init__(self, address: str | None = None, local_cpus: int = 0) -> None:
        self._address, self._local_cpus = cluster_address(address), local_cpus
        self._has_begun = self._is_ours = False
        self._ends_with_us = contextlib.ExitStack()

    def starts_its_own(self) -> bool:
        """Whether a Ray of its own will be started, which takes seconds, mostly of waiting."""
        return not self._has_begun and self._address is None and not is_running()

    def __enter__(self) -> Self:
        return self

    def begin(self) -> None:
        """Join the cluster, or start a Ray; the second time nothing happens.

        Raises:
            ConfigError: nothing answers at the address.
            RunError: Ray cannot be joined or started all the same.
        """
        if self._has_begun or is_running():
            self._has_begun = True
            return
        if self._address:
            _require_listener(self._address)
        self._is_ours = self._has_begun = True
        notes = Notes()
        try:
            what = f"joining the Ray cluster at {self._address}" if self._address else "starting Ray"
            if self._address:  # before Ray is imported, which reads it
                self._ends_with_us.enter_context(_token_of_home())
            _set_defaults()
            with phase(what), start_notes_off_stderr(notes), handlers_restored(), _without_uv(), messages_off_stdout():
                import ray

                if self._address:
                    ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR)
                else:
                    self._ends_with_us.enter_context(_token_of_its_own())
                    _start_local(self._local_cpus)
        except Exception as error:  # Ray raises some of no class of their own, as where a busy machine starts it late
            where = f"join the Ray cluster at {self._address}" if self._address else "start Ray on this machine"
            reason = str(error).rstrip(". \n")
            advice = _advice(error, self._address, notes.text)
            raise RunError(f"cannot {where}: {reason}. {advice}{notes.saved()}") from error

    def __exit__(self, *error: object) -> None:
        ray = sys.modules.get("ray")
        if self._is_ours and ray is not None:
            with handlers_restored(), self._ends_with_us:
                ray.shutdown()


@contextlib.contextmanager
def connected(address: str | None = None, local_cpus: int = 0) -> Iterator[None]:
    """A `Session` that has begun.

    Raises:
        ConfigError: if nothing answers at the address.
        RunError: if Ray cannot be started or joined all the same.
    """
    with Session(address, local_cpus) as session:
        session.begin()
        yield


@contextlib.contextmanager
def tasks() -> Iterator[None]:
    """As `connected`, but the error of a task is raised as it was, without the wrapper that Ray puts around it."""
    from ray.exceptions import RayTaskError

    with connected():
        try:
            yield
        except RayTaskError as error:
            # Ray's own message holds a traceback; the cause is that of a file.
            raise error.cause from error


def is_running() -> bool:
    """Whether this process has a Ray; to ask that, Ray is not imported."""
    # While another thread imports Ray, its module is there without its functions.
    is_initialized = getattr(sys.modules.get("ray"), "is_initialized", None)
    return is_initialized is not None and bool(is_initialized())


def _advice(error: Exception, address: str | None, notes: str) -> str:
    """What to do next, as far as the error, and what Ray wrote before it, tell."""
    for words, remedy in _REMEDIES.items():
        if words in str(error) or words in notes:
            return remedy
    if address is not None:
        return "If the cluster asks for a token, set RAY_AUTH_MODE=token"
    if isinstance(error, OSError) and error.errno in _NO_PLACE:
        return "Ray's own files have no place there, which may be another user's: RAY_TMPDIR=DIR names another"
    return "Without Ray, in this process alone: --executor local"


def cluster_address(address: str | None) -> str | None:
    """The cluster to join, from the option or `RAY_ADDRESS`; None for a local Ray."""
    address = address or os.environ.get("RAY_ADDRESS")
    return None if address in (None, "", "local") else address


def _require_listener(address: str) -> None:
    """Ray itself waits for minutes, silently, for a cluster that is not there."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", or a form that Ray knows
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ConfigError(
            f"no Ray cluster answers at {address}: {error.strerror or error}. "
            "Check --ray-address and RAY_ADDRESS; without them oodray starts a Ray of its own"
        ) from error


def _set_defaults() -> None:
    # Workers without a GPU of their own see none, so a factory that takes any that it sees runs where it should.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")


def _start_local(wanted: int) -> None:
    import ray

    cpus = max(LOCAL_CPUS, usable_cores(), wanted)
    # Logical CPUs only decide how many tasks run at once. The dashboard stays off, and its port closed.
    with for_one_machine():
        ray.init(
            address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
        )


@contextlib.contextmanager
def for_one_machine() -> Iterator[None]:
    """Have `ray.init` start what a Ray of one machine needs, for which Ray has no switch.

    Ray listens on all interfaces, but where it takes this machine for one that cannot be part of a cluster. And it
    starts processes that a single machine does not use, and waits for the last of them: a third of its start. The agent
    of the dashboard has to be there, but not the web server in it, which Ray leaves out where packages for it lack.
    """
    from ray._private import ray_constants, utils
    from ray._private.node import Node

    changes: list[tuple[Any, str, Any]] = [(Node, name, lambda *_, **__: None) for name in _NOT_NEEDED]
    changes.append((utils, "get_dashboard_dependency_error", lambda: ImportError("the dashboard is off")))
    changes.append((ray_constants, "ENABLE_RAY_CLUSTER", False))
    with contextlib.ExitStack() as before:
        for owner, name, value in changes:
            if hasattr(owner, name):
                before.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, value)
        yield


@contextlib.contextmanager
def _token_of_its_own() -> Iterator[None]:
    """Give a Ray of our own a token that ends with it, where the user has none.

    Ray would write one to HOME, which may be no place to write to, and every cluster that is started there later would
    ask for it.
    """
    if _home_has_a_token() or any(name in os.environ for name in _TOKENS):
        yield
        return
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        yield
    finally:
        for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):  # the second one is set by Ray
            os.environ.pop(name, None)


@contextlib.contextmanager
def _token_of_home() -> Iterator[None]:
    """Show a cluster the token of HOME: where there is one, `ray start` asks everybody for it, and Ray shows none.

    A cluster that asks for none does not look at it.
    """
    if not _home_has_a_token() or any(name in os.environ for name in _TOKENS):
        yield
        return
    os.environ["RAY_AUTH_MODE"] = "token"
    try:
        yield
    finally:
        os.environ.pop("RAY_AUTH_MODE", None)


def _home_has_a_token() -> bool:
    # os.path answers for a HOME that is unknown or may not be looked into, where pathlib raises.
    return os.path.exists(os.path.expanduser("~/.ray/auth_token"))  # noqa: PTH110, PTH111


@contextlib.contextmanager
def _without_uv() -> Iterator[None]:
    """Keep Ray from starting its workers with the command line of `uv run` and from sending them the working folder.

    They are of the same environment as this process, which is all that they need. Ray's own variable asks for its way.
    """
    from ray._private import ray_constants

    name = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"
    before = getattr(ray_constants, name, None)
    if before is None or name in os.environ:
        yield
        return
    setattr(ray_constants, name, False)
    try:
        yield
    finally:
        setattr(ray_constants, name, before)
