"""Places of tests, all of which lie on this disk unless a test is about object stores."""

from __future__ import annotations

from pathlib import Path

from oodray.storage.place import Place


def on_disk(place: Place) -> Path:
    """A place as a path, to do with it what only a path can."""
    assert isinstance(place, Path)
    return place
