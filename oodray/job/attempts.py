"""Images that end the process that works on them: counted outside of it, given a time, tried alone, then given up.

Ray starts a process that died again, with the same images, for ever; and waits for one that hangs, for ever. A journal
that outlives the process counts the attempts, and a watchdog makes a hanging process one that died.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from oodray.job.units import Rows  # not at run time: a process that counts attempts needs no numpy

ATTEMPTS = 3
"""How often a batch is tried before it is halved, and an image that is alone before it becomes an error row."""

DIED = "the process died: a crash, lack of memory, or a call that hung and could not be interrupted"

_GRACE_SECONDS = 2.0

Key = tuple[str, ...]


class Journal(Protocol):
    """Attempts by key: the name of a stage and the ids of images that are tried together."""

    def begin(self, key: Key) -> list[str]:
        """Note an attempt; gives how each earlier one ended that was never said to have ended well."""

    def explain(self, key: Key, reason: str) -> None:
        """Say of the attempt under way how it is about to end."""

    def end(self, key: Key) -> None:
        """The attempt under way has ended well: forget the earlier ones."""


class Memory:
    """A journal in this process, which for a run is one of its own.

    >>> journal = Memory()
    >>> journal.begin(("segment", "a")), journal.begin(("segment", "a"))
    ([], ['the process died: a crash, lack of memory, or a call that hung and could not be interrupted'])
    >>> journal.end(("segment", "a"))
    >>> journal.begin(("segment", "a"))
    []
    """

    def __init__(self) -> None:
        self._attempts: dict[Key, list[str]] = {}

    def begin(self, key: Key) -> list[str]:
        """See `Journal`."""
        earlier = list(self._attempts.get(key, ()))
        self._attempts[key] = [*earlier, DIED]
        return earlier

    def explain(self, key: Key, reason: str) -> None:
        """See `Journal`."""
        if key in self._attempts:  # a memory that was started again knows nothing
            self._attempts[key][-1] = reason

    def end(self, key: Key) -> None:
        """See `Journal`."""
        self._attempts.pop(key, None)


@dataclass(frozen=True)
class RemoteMemory:
    """A `Memory` in an actor of Ray's, which a lost worker, or node of workers, does not take along.

    It ends with the run: what a stopped run had begun says nothing against an image.
    """

    actor: Any

    @classmethod
    def start(cls) -> RemoteMemory:
        """A new one, on the machine of the caller."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # If even this process is killed, the counts are lost, not the run.
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
        return cls(ray.remote(Memory).options(**options).remote())

    def begin(self, key: Key) -> list[str]:
        """See `Journal`."""
        import ray

        earlier: list[str] = ray.get(self.actor.begin.remote(key))
        return earlier

    def explain(self, key: Key, reason: str) -> None:
        """See `Journal`."""
        import ray

        # Not for ever, as a watchdog asks, whose process may be in any state; and without it the run goes on as well.
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self.actor.explain.remote(key, reason), timeout=_GRACE_SECONDS / 2)

    def end(self, key: Key) -> None:
        """See `Journal`."""
        self.actor.end.remote(key)


def _one_by_one(rows: Rows) -> Iterator[Rows]:
    return ([row] for row in rows)


@dataclass(frozen=True)
class Guard:
    """Work on images that may end the process.

    Attributes:
        journal: where attempts are counted.
        image_timeout: seconds that an image may take; 0 is for ever.
    """

    journal: Journal
    image_timeout: float

    def run(
        self,
        stage: str,
        rows: Rows,
        work: Callable[[Rows], Rows],
        batches: Callable[[Rows], Iterable[Rows]] = _one_by_one,
    ) -> Rows:
        """The rows that `work` makes of some images, batch by batch; with an error where it cannot.

        Where the process ends, images are tried again: all but those of one batch in halves of their batches, at once;
        a batch as it is, so that a death that it has no part in changes nothing, and after `ATTEMPTS` in halves too.

        Args:
            stage: its name, for the message.
            rows: images; each row has an `image_id`.
            work: makes a row of each of a batch, within `image_timeout` for each of its images.
            batches: cuts images into batches; cuts the images of some of its batches into the same ones.
        """
        key = (stage, *(row["image_id"] for row in rows))
        parts = list(batches(rows))
        earlier = self.journal.begin(key)
        if len(earlier) >= (1 if len(parts) > 1 else ATTEMPTS):
            # This one was none. What was learnt is kept, in case one of the halves ends the process too.
            self.journal.explain(key, earlier[-1])
            if len(rows) == 1:
                return [rows[0] | {"error": f"given up after {ATTEMPTS} attempts ({stage}): {earlier[-1]}"}]
            return [row for half in _halves(parts) for row in self.run(stage, half, work, batches)]
        done = []
        for batch in parts:
            with _watchdog(self.image_timeout * len(batch), lambda reason: self.journal.explain(key, reason)):
                done += work(batch)
        self.journal.end(key)
        return done


def _halves(batches: list[Rows]) -> tuple[Rows, Rows]:
    """The images of half of the batches and of the others; of a single batch, half of its images and the others."""
    if len(batches) == 1:
        [images] = batches
        batches = [[image] for image in images]
    half = len(batches) // 2
    return [row for batch in batches[:half] for row in batch], [row for batch in batches[half:] for row in batch]


def unguarded() -> Guard:
    """For work in the caller's own process."""
    return Guard(Memory(), 0)


@contextlib.contextmanager
def _watchdog(seconds: float, explain: Callable[[str], None]) -> Iterator[None]:
    """End this process if the block takes longer than some seconds; 0 lets it."""
    if not seconds:
        yield
        return

    def end_process() -> None:
        with contextlib.suppress(Exception):
            explain(f"nothing came within --image-timeout, {seconds:g} s")
        os._exit(1)

    timer = threading.Timer(seconds, end_process)
    timer.daemon = True
    timer.start()
    # A call that never gives the interpreter back stops the timer as well, but not this.
    faulthandler.dump_traceback_later(seconds + _GRACE_SECONDS, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        timer.cancel()
