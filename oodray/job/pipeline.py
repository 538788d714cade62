"""The three stages of a run, one after the other: what an executor puts to work.

    ListedImage ── Decoder ──> DecodedImage ── Worker ──> SegmentedImage ── Finisher ──> UnitDone, and a file

Each stage takes all images of a unit and gives as many. The executors decide where the stages work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol, Self, TypeVar

from oodray.datasets.manifest import ListedImage
from oodray.job.attempts import Guard, Journal
from oodray.job.decoder import Decoder
from oodray.job.finisher import Finisher
from oodray.job.plan import Plan
from oodray.job.units import UnitDone
from oodray.method.settings import MethodSettings
from oodray.models.dtype import FLOAT32
from oodray.models.loading import load_segmenter
from oodray.models.segmenter import Segmenter
from oodray.models.source import ModelSource
from oodray.results.continuing import Left
from oodray.results.folder import ResultsFolder

UNITS_OF_A_SLICE = 1024
"""Units of a manifest that exist as objects at a time."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Job:
    """What is left to do of a run, and in which folder.

    Attributes:
        plan: of the run.
        folder: of its results.
        left: the images to compute.
    """

    plan: Plan
    folder: ResultsFolder
    left: Left

    def units(self) -> int:
        """How many units there are to compute."""
        return len(self.left.units)

    def slices(self, units: int = UNITS_OF_A_SLICE) -> Iterator[list[list[ListedImage]]]:
        """The images to compute, unit by unit, so many units at a time."""
        return (list(images.values()) for images in self.left.slices(units))


class Executor(Protocol):
    """Where the stages of a run work; a context, which is left when the run has been evaluated."""

    def __enter__(self) -> Self:
        """Nothing starts yet."""
        ...

    def __exit__(self, *error: object) -> None:
        """End what was started."""
        ...

    uses_ray: bool
    """Whether the evaluation of a large run may use Ray, too."""

    def start_beside(self, work: Callable[[], Result]) -> Result:
        """Start what takes long to start, and do some work meanwhile; gives what the work returns.

        Without this, `stream` starts it.
        """
        ...

    def stream(self, job: Job, on_start: Callable[[str], None]) -> Iterator[UnitDone]:
        """Compute and write all images of a job; gives what was done of each unit, as soon as it is.

        `on_start` hears how the job is scheduled, in a line.

        Raises:
            ConfigError: there is no room for it, or a machine does not see a file.
            RunError: a stage failed as a whole.
        """
        ...


@dataclass(frozen=True)
class Stages:
    """The stages of a job.

    Attributes:
        decoder: the first.
        load: loads the network of the second; raises what keeps it from starting.
        settings: of the method, for the second.
        finisher: the third.
        threads: CPU threads that the network has.
        guard: of the work on images.
    """

    decoder: Decoder
    load: partial[Segmenter]
    settings: MethodSettings
    finisher: Finisher
    threads: int
    guard: Guard


def stages_of(job: Job, journal: Journal, image_timeout: float) -> Stages:
    """The stages of a job; attempts at images are counted in a journal."""
    plan = job.plan
    guard = Guard(journal, image_timeout)
    return Stages(
        decoder=Decoder(plan.layout.label_codes, guard),
        load=network_of(plan.model, plan.device, plan.config.dtype),
        settings=plan.method(),
        finisher=Finisher(
            plan.method(),
            str(job.folder.path),
            guard,
            identity=job.folder.read_run()["identity"],
            tried_again=job.left.tried_again,
        ),
        threads=plan.config.threads,
        guard=guard,
    )


def network_of(model: ModelSource, device: str, dtype: str | None) -> partial[Segmenter]:
    """What loads a network: small enough to be sent to every worker."""
    return partial(load_segmenter, model, device, dtype or FLOAT32)
