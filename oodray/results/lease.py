"""Who is working on a results folder: one run at a time.

A run holds `lease.json` in its folder, and writes it anew while it lives. The file of a run that was killed stays;
whether it still means anything is known at once on the same host, elsewhere by its age.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import lock_descriptor

from oodray.errors import ResultsError, RunError
from oodray.results.folder import ResultsFolder
from oodray.storage.atomic import replacing
from oodray.storage.place import Place

SECONDS_BETWEEN_BEATS = 10.0
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_BE_OVERWRITTEN = 2.0
DEAD_AFTER_SECONDS = 120.0
"""Age of the last beat after which a run on another host is taken for dead: clocks and network drives lag."""


@dataclass(frozen=True)
class Holder:
    """A process, by host, number and start: the start is needed because numbers are given again.

    Attributes:
        host: name of the machine.
        pid: of the process there.
        pids: the namespace of the number: containers of a machine can share its name, and number processes
            separately. None where there is but one.
        born: when the process started, in the kernel's ticks since boot; None where that is unknown.
        since: when it took the lease, UTC.
    """

    host: str
    pid: int
    born: int | None
    since: str
    pids: str | None = None

    @classmethod
    def this_process(cls) -> Holder:
        """The one that asks."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(socket.gethostname(), os.getpid(), _born(os.getpid()), now, _pids())

    @property
    def is_elsewhere(self) -> bool:
        """Whether nothing is known of the process here but its beats."""
        return (self.host, self.pids) != (socket.gethostname(), _pids())

    def is_alive(self, age: float) -> bool:
        """Whether the process still works, `age` seconds after its last beat."""
        if self.is_elsewhere:
            return age < DEAD_AFTER_SECONDS
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # it is there, and another user's
        return self.born is None or _born(self.pid) == self.born

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class Lease:
    """The right to write into a results folder, for the length of a `with` block.

    A run on another host is listened for, until it gives a sign of life or counts as dead; `on_wait` hears of that.

    Raises:
        ResultsError: on entering, if another run is at work there.
        RunError: on entering, if the folder cannot be written to.
    """

    def __init__(self, folder: ResultsFolder, on_wait: Callable[[str], None] = lambda _: None) -> None:
        self._on_wait = on_wait
        self.path = folder.path / "lease.json"
        self.taken_over: Holder | None = None
        self._holder = Holder.this_process()
        self._done = threading.Event()
        self._beats = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _one_at_a_time(self.path.parent):
                self._refuse_the_living()
                self._write()
                self._refuse_a_later_one()
        except OSError as error:
            raise RunError(f"cannot write to {self.path.parent}: {error.strerror}") from error
        except KeyboardInterrupt:
            self._give_back()
            raise
        self._beats.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._beats.join()
        self._give_back()

    def _write(self) -> None:
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(asdict(self._holder)), encoding="utf-8")

    def _give_back(self) -> None:
        if _read(self.path) == self._holder:
            self.path.unlink(missing_ok=True)

    def _refuse_the_living(self) -> None:
        try:
            beat = self.path.stat().st_mtime
        except FileNotFoundError:
            return
        holder, age = _read(self.path), time.time() - beat
        alive = age < DEAD_AFTER_SECONDS if holder is None else holder.is_alive(age)
        if alive and holder is not None and holder.is_elsewhere:
            # The machine may be gone, and this be the one in its place: a job that is tried again, on a new cluster.
            self._on_wait(f"{self.path.parent} is held by {holder}: listening for a sign of life")
            # Where the clock of its drive is ahead, its age is negative.
            alive = self._gives_a_sign(beat, min(DEAD_AFTER_SECONDS, DEAD_AFTER_SECONDS - age))
        if alive:
            raise ResultsError(
                f"another run is at work on {self.path.parent}: {holder or 'one that cannot be read'}. Wait for it, or "
                f"choose another --out. On another host a run counts as dead {DEAD_AFTER_SECONDS:.0f} s after its last "
                "sign of life"
            )
        self.taken_over = holder

    def _gives_a_sign(self, beat: float, seconds: float) -> bool:
        """Whether there is another beat than the one that is known, within some seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(min(SECONDS_BETWEEN_LOOKS, seconds))
            try:
                if self.path.stat().st_mtime != beat:
                    return True
            except FileNotFoundError:
                return False  # it has just ended
        return False

    def _refuse_a_later_one(self) -> None:
        """In an object store, which locks nothing, of two that start at once the one that wrote last goes on."""
        if not isinstance(self.path, Path):
            time.sleep(SECONDS_TO_BE_OVERWRITTEN)
            holder = _read(self.path)
            if holder != self._holder:
                raise ResultsError(f"another run has just started on {self.path.parent}: {holder}")

    def _beat(self) -> None:
        while not self._done.wait(SECONDS_BETWEEN_BEATS):
            try:
                # What is another run's, or gone, or cannot be read now, is left alone.
                if _read(self.path) == self._holder:
                    self._write()
            except (OSError, RunError):
                continue  # a drive that is away for a while; the run itself will say what it cannot write


@contextlib.contextmanager
def _one_at_a_time(folder: Place) -> Iterator[None]:
    """Of two that find the same dead lease, the second sees the first one's."""
    if not isinstance(folder, Path):
        yield
        return
    # The folder itself is locked: a lock file would lie among the results, and removing it would let a third run in.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network drives lock no folder; there, two runs that start in the same instant are not told apart.
        with contextlib.suppress(OSError):
            lock_descriptor(descriptor)
        yield
    finally:
        os.close(descriptor)


def _read(path: Place) -> Holder | None:
    try:
        holder = Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return holder if type(holder.pid) is int and 0 < holder.pid < 2**31 else None


def _pids() -> str | None:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def _born(pid: int) -> int | None:
    try:
        # The name of a program, in brackets, may hold blanks and brackets; what follows are numbers, this the 20th.
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None
