"""Errors of Ray's: whether doing the same again can mend them."""

from __future__ import annotations

from oodray.errors import OodrayError

AGAIN = "Run the same command again"
ONCE_MENDED = "Once that is mended, the same command continues the run"
UNKNOWN = "The same would happen again: --debug shows where"


def next_step(error: Exception) -> str:
    """What to do after an error of Ray's.

    A process or a machine that died, or was late, may do better the next time. What our own code raised in a task comes
    again, unless its cause is taken away; and of an error that nobody foresaw, the place is wanted.
    """
    from ray.exceptions import AuthenticationError, RayTaskError, RuntimeEnvSetupError

    if isinstance(error, RayTaskError):
        known = isinstance(error, OodrayError) or isinstance(error.cause, OodrayError | OSError)
        return ONCE_MENDED if known else UNKNOWN
    return ONCE_MENDED if isinstance(error, AuthenticationError | RuntimeEnvSetupError) else AGAIN
