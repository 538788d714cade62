"""Loops compiled by numba."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

_Loop = TypeVar("_Loop", bound=Callable[..., Any])


def compiled(loop: _Loop) -> _Loop:
    """A function of numbers and numpy arrays as machine code. In a thread it lets the others run.

    It is compiled when it is first called, and kept in a file for the next process: beside its source, else in the
    user's cache folder, or where `NUMBA_CACHE_DIR` says. Where none of these can be written to, every process compiles
    it anew.

    >>> @compiled
    ... def total(numbers):
    ...     found = 0
    ...     for number in numbers:
    ...         found += number
    ...     return found
    >>> import numpy as np
    >>> total(np.arange(4))
    6
    """
    from numba import njit

    machine_code: _Loop
    try:
        machine_code = njit(cache=True, nogil=True)(loop)
    except RuntimeError as error:
        logging.getLogger(__name__).info("compiled anew in every process: %s", error)
        machine_code = njit(nogil=True)(loop)
    return machine_code
