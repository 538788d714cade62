"""The three stages of a run, one after the other: what an executor puts to work.

    ListedImage ── Decoder ──> DecodedImage ── Worker ──> SegmentedImage ── Finisher ──> UnitDone, and a file

Each stage takes all images of a unit and gives as many. The executors decide where the stages work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar

import pyarrow as pa

from oodray.config import SELF
from oodray.datasets.manifest import ListedImage, slices_of_units
from oodray.job.attempts import Guard, Journal
from oodray.job.decoder import Decoder
from oodray.job.finisher import Finisher
from oodray.job.gathering import Gathering
from oodray.job.passes import FirstPass, SecondPass
from oodray.job.plan import LoadNetwork, Plan, network_of
from oodray.job.telemetry import Labels
from oodray.job.units import UnitDone
from oodray.method.settings import MethodSettings
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
        manifest: the images of the run, or of its share, in units.
        gathering: what is gathered of them for a fit, or which pass this is where a run's own images are the fit;
            None for any other run.
    """

    plan: Plan
    folder: ResultsFolder
    left: Left
    manifest: pa.Table
    gathering: Gathering | FirstPass | SecondPass | None = None

    def method(self) -> MethodSettings:
        """The settings of the method; where the run's own images are the fit, that lies in its folder."""
        settings = self.plan.method()
        if settings.fit is None or self.plan.config.fit != SELF:
            return settings
        return replace(settings, fit=replace(settings.fit, path=str(self.folder.reference)))

    def units(self) -> int:
        """How many units there are to compute."""
        return len(self.left.units)

    def slices(self, units: int = UNITS_OF_A_SLICE) -> Iterator[list[list[ListedImage]]]:
        """The images to compute, unit by unit, so many units at a time."""
        return (list(images.values()) for images in self.left.slices(units))

    def tables(self, units: int) -> Iterator[pa.Table]:
        """The rows of the images to compute, so many units at a time."""
        return slices_of_units(self.left.images, units)


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

    def expect(self, load: LoadNetwork) -> None:
        """Hear how the network of the run is loaded, as soon as that is known; an executor of this process does it."""
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
        gathering: what the second gathers for a fit, or which pass this is.
        labels: of the numbers for Prometheus.
    """

    decoder: Decoder
    load: LoadNetwork
    settings: MethodSettings
    finisher: Finisher
    threads: int
    guard: Guard
    gathering: Gathering | FirstPass | SecondPass | None
    labels: Labels


def stages_of(job: Job, journal: Journal, image_timeout: float) -> Stages:
    """The stages of a job; attempts at images are counted in a journal."""
    plan = job.plan
    guard = Guard(journal, image_timeout)
    return Stages(
        decoder=Decoder(plan.layout.label_codes, guard, names_classes=plan.config.id_quality),
        load=network_of(plan.model, plan.device, plan.config.dtype),
        settings=job.method(),
        finisher=Finisher(
            plan.method(),
            str(job.folder.path),
            guard,
            identity=job.folder.read_run()["identity"],
            tried_again=job.left.tried_again,
        ),
        threads=plan.config.threads,
        guard=guard,
        gathering=job.gathering,
        labels={"run": str(job.folder.path), "dataset": plan.layout.name},
    )
