"""Where the stages of a run work: in processes of Ray's, or in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oodray.config import RunConfig
    from oodray.job.pipeline import Executor


def executor_of(config: RunConfig) -> Executor:
    """The executor that a configuration names."""
    if config.executor == "local":
        from oodray.job.executors.local import LocalExecutor

        return LocalExecutor()
    from oodray.job.executors.ray_data import RayExecutor

    return RayExecutor(config)
