"""An executor that is told to begin and computes nothing, for tests of what comes before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Self

import pytest

from oodray.job.pipeline import Job, Result
from oodray.job.plan import LoadNetwork
from oodray.job.units import UnitDone


class Idle:
    """Starts no Ray; asked for images, it fails the test."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing was started."""

    uses_ray = False

    def start_beside(self, work: Callable[[], Result]) -> Result:
        """Nothing takes long."""
        return work()

    def expect(self, load: LoadNetwork) -> None:
        """No network is needed."""

    def stream(self, job: Job, on_start: Callable[[str], None]) -> Iterator[UnitDone]:
        """Not to be called."""
        pytest.fail(f"{job.left.images.num_rows} images were asked for")
