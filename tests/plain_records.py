"""Records as plain Python, to be compared: an array has no single answer to `==`."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """A record as a dict, what it holds included; an array as its type, its shape and its bytes.

    >>> plain([np.array([1, 2], np.uint8), None])
    [('uint8', (2,), b'\\x01\\x02'), None]
    """
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return value.dtype.name, value.shape, value.tobytes()
    return value


def without_seconds(value: Any) -> Any:
    """The same, but for how long anything took."""
    if isinstance(value, list):
        return [without_seconds(entry) for entry in value]
    return {name: entry for name, entry in plain(value).items() if not name.startswith("seconds")}
