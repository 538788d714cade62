"""Images that end the process that works on them: counted outside of it, given a time, tried alone, then given up.

If a process dies, Ray starts it again with the same images, endlessly; for a process that hangs it waits endlessly.
So a journal that outlives the process counts the attempts, and a watchdog ends a process that hangs. An image that is
given up gets an `error`, passes the stages that are left, and becomes a row with `status="error"`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

ATTEMPTS = 3
"""How often a batch is tried before it is halved, and an image that is alone before it becomes an error row."""

DIED = "the process died: a crash, lack of memory, or a call that hung and could not be interrupted"

_GRACE_SECONDS = 2.0

Key = tuple[str, ...]
"""The name of a stage, and the ids of images that are tried together."""


class HasId(Protocol):
    """An image, at any stage."""

    @property
    def image_id(self) -> str:
        """Its name in the dataset."""
        ...


Image = TypeVar("Image", bound=HasId)
Done = TypeVar("Done")


class Journal(Protocol):
    """Attempts by key."""

    def begin(self, key: Key) -> list[str]:
        """Record a new attempt; return the failure reason of each earlier attempt that did not succeed."""

    def explain(self, key: Key, reason: str) -> None:
        """Record the reason for which the attempt under way is about to fail."""

    def end(self, key: Key) -> None:
        """Record that the attempt under way succeeded; the earlier ones are forgotten."""


class AttemptLog:
    """A journal in memory. A run on Ray keeps it in a process of its own, see `RemoteAttemptLog`.

    >>> journal = AttemptLog()
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
        if key in self._attempts:  # a log that was started again knows nothing
            self._attempts[key][-1] = reason

    def end(self, key: Key) -> None:
        """See `Journal`."""
        self._attempts.pop(key, None)


@dataclass(frozen=True)
class RemoteAttemptLog:
    """An `AttemptLog` in an actor of Ray's, which a lost worker, or node of workers, does not take along.

    It ends with the run: what a stopped run had begun says nothing against an image.
    """

    actor: Any

    @classmethod
    def start(cls) -> RemoteAttemptLog:
        """A new one, on the machine of the caller."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # If even this process is killed, the counts are lost, not the run.
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
        return cls(ray.remote(AttemptLog).options(**options).remote())

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


def _one_by_one(images: list[Image]) -> Iterator[list[Image]]:
    return ([image] for image in images)


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
        images: list[Image],
        work: Callable[[list[Image]], list[Done]],
        give_up: Callable[[Image, str], Done],
        batches: Callable[[list[Image]], Iterable[list[Image]]] = _one_by_one,
    ) -> list[Done]:
        """What `work` makes of some images, batch by batch; what `give_up` makes of those that it cannot work on.

        Where the process ends during the work, it is started again with the same images. Then three rules hold:

        1. Images of several batches that ended a process once are tried in two halves, each with whole batches. So all
           batches but the one at fault keep their members, and its results do not change.
        2. A single batch is tried again as it is, up to `ATTEMPTS` times: a death that it has no part in, as of a
           machine that is lost, changes nothing. After that its images are tried in two halves.
        3. A single image that ended `ATTEMPTS` processes is given up.

        Args:
            stage: its name, for the message.
            images: what to work on.
            work: makes one result of each image of a batch, within `image_timeout` for each of them.
            give_up: makes the result of an image from a message.
            batches: cuts images into batches. It is stable: the images of some of its batches give these batches again.
        """
        key = (stage, *(image.image_id for image in images))
        parts = list(batches(images))
        earlier = self.journal.begin(key)
        if len(earlier) >= (1 if len(parts) > 1 else ATTEMPTS):
            # This attempt was none. Its reason is kept, in case one of the halves ends the process too.
            self.journal.explain(key, earlier[-1])
            if len(images) == 1:
                return [give_up(images[0], f"given up after {ATTEMPTS} attempts ({stage}): {earlier[-1]}")]
            return [done for half in _halves(parts) for done in self.run(stage, half, work, give_up, batches)]
        finished = []
        for batch in parts:
            with _watchdog(self.image_timeout * len(batch), lambda reason: self.journal.explain(key, reason)):
                finished += work(batch)
        self.journal.end(key)
        return finished


def _halves(batches: list[list[Image]]) -> tuple[list[Image], list[Image]]:
    """The images of half of the batches and of the others; of a single batch, half of its images and the others."""
    if len(batches) == 1:
        [images] = batches
        batches = [[image] for image in images]
    half = len(batches) // 2
    return [image for batch in batches[:half] for image in batch], [
        image for batch in batches[half:] for image in batch
    ]


def unguarded() -> Guard:
    """For work in the caller's own process."""
    return Guard(AttemptLog(), 0)


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
