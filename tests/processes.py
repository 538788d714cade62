"""The processes that a process leaves: found in /proc, ended, waited for."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

LONGEST_SECONDS = 60.0


def descendants(pid: int) -> Iterator[int]:
    """The processes that a process has started, and those that these have, as long as their parents live."""
    parents = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    border = {pid}
    while border:
        border = {child for child, parent in parents.items() if parent in border}
        yield from border


def end_all(pids: Iterable[int]) -> None:
    """Kill processes, those that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_until_gone(variable: str) -> None:
    """Wait for all processes that were started with a variable, `NAME=value`: orphans of Ray's live a moment longer.

    Not for Ray's own agents, which write nothing, and where their node is killed take a minute to see it.
    """
    deadline = time.monotonic() + LONGEST_SECONDS
    while left := [name for name in map(command_line, _started_with(variable)) if not name.endswith("Agent")]:
        assert time.monotonic() < deadline, f"with {variable} these do not end: {left}"
        time.sleep(0.1)


def command_line(pid: int) -> str:
    """What a process is; nothing of one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except OSError:
        return ""


def _started_with(variable: str) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if variable.encode() in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)
