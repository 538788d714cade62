"""What Ray writes of its own accord, kept off the output of a command, which may be read by another program."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

WATCHED = ("raylet", "gcs_server")
"""Processes of a Ray of our own without which this one is ended by Ray, without a word."""

LOOK_SECONDS = 2.0

UNHEARD_SECONDS = 10.0
"""After which a cluster that does not answer is spoken of; Ray gives it up after 60."""


@dataclass
class Notes:
    """What Ray wrote to stderr while it was started or joined, in vain."""

    text: str = ""

    def saved(self) -> str:
        """A sentence that names the file that they are saved in now; nothing where there are none."""
        if not self.text.strip():
            return ""
        try:
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", prefix="oodray-ray-", suffix=".log", delete=False
            ) as file:
                file.write(self.text)
        except OSError:
            return ""
        return f". What Ray wrote about it is in {file.name}"


@contextlib.contextmanager
def start_notes_off_stderr(notes: Notes) -> Iterator[None]:
    """Keep what Ray writes in the block, from C++ below sys.stderr, off the terminal; if it fails, `notes` has it."""
    with tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        terminal = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield
        except Exception:
            sys.stderr.flush()
            file.seek(0)
            notes.text = file.read().decode(errors="replace")
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)


@contextlib.contextmanager
def messages_off_stdout() -> Iterator[None]:
    """Have a Ray that begins in the block print no messages of its processes: it writes them to stdout.

    What they say of images and workers that died is said by the run, in its own words; Ray's logs have all of them.
    Ray has no switch for it. In the place of the thread that prints them, one looks after Ray's processes.
    """
    from ray._private import worker

    name = "listen_error_messages"
    before = getattr(worker, name, None)
    if before is None:
        yield
        return
    setattr(worker, name, _watch_processes)
    try:
        yield
    finally:
        setattr(worker, name, before)


def _watch_processes(_: Any, stopped: threading.Event) -> None:
    """Say on stderr that Ray is gone, until it is shut down: without it Ray ends this process, and says nothing."""
    from ray._private import worker

    unheard = 0.0
    while not stopped.wait(LOOK_SECONDS):
        node: Any = worker._global_node
        if node is None:
            continue
        ended = [kind for kind, _ in node.dead_processes() if kind in WATCHED]
        if ended:
            _say(
                f"error: Ray's process {ended[0]} has ended, by a signal or for lack of memory, and the run with it. "
                "Run the same command again: it goes on from here"
            )
            return
        before, unheard = unheard, 0.0 if node.all_processes or _answers(node.gcs_address) else unheard + LOOK_SECONDS
        if before < UNHEARD_SECONDS <= unheard:
            _say(
                f"warning: the Ray cluster at {node.gcs_address} does not answer any more. Ray ends the run if that "
                "lasts for a minute: once the cluster is back, run the same command again"
            )


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=LOOK_SECONDS).close()
    except OSError:
        return False
    return True


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
