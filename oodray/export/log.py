"""What an export has written, noted down beside it.

`DIR/.oodray-export/` has `export.json`, which says which run and which format, and a log for each group of images:
which of them are done, and the names of its files. A name is written down before its file is, so that a file that is
there without one is of somebody else, and is left alone.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oodray.datasets.images import read_bytes
from oodray.errors import ResultsError
from oodray.export.format import Original
from oodray.results.folder import write_json
from oodray.storage.atomic import link_to, replacing
from oodray.storage.place import Place, is_inside
from oodray.storage.remote import is_remote

LOG = ".oodray-export"
"""The folder inside an export that says what it has written."""

_CLAIM = "export"


@dataclass(frozen=True)
class Logs:
    """The logs of an export.

    Attributes:
        target: the folder of the export.
        earlier: files of logs that are superseded, which may be written over.
    """

    target: Place
    earlier: frozenset[str] = frozenset()

    def claim(self, identity: Mapping[str, Any], *, grown: bool) -> None:
        """Say whose export the folder is, or find that it is another's.

        Args:
            identity: the format, the score, and the identity of the run.
            grown: whether images were appended to the run, which lists others since.

        Raises:
            ResultsError: it is another's.
            RunError: it cannot be written to.
        """
        place = self._place(_CLAIM)
        there = json.loads(place.read_text("utf-8")) if place.exists() else None
        asked = json.loads(json.dumps(identity))
        if grown and there is not None and "manifest" in asked["run"]:
            there["run"]["manifest"] = asked["run"]["manifest"]
        if there is None or grown:
            write_json(place, identity)
        if there not in (None, asked):
            raise ResultsError(
                f"{self.target} holds an export in the format {there.get('format')} of another run, or of another "
                "score; choose another --to"
            )

    def read(self, name: str) -> dict[str, Any]:
        """A log: its `files`, the `images` in them, their `records` for files of all of them, and if it is `done`."""
        place = self._place(name)
        empty: dict[str, Any] = {"files": [], "images": [], "records": {}, "done": False}
        return empty | json.loads(place.read_text("utf-8")) if place.exists() else empty

    def superseded(self, names: Container[str]) -> Iterator[str]:
        """Logs that have none of some names: of an earlier version, which named them after files of results."""
        for place in (self.target / LOG).glob("*.json"):
            if place.stem not in names and place.stem != _CLAIM:
                yield place.stem

    def remove(self, names: Container[str], kept: Container[str]) -> None:
        """Remove superseded logs and the files that only these have."""
        for path in sorted(self.earlier):
            if path not in kept:
                (self.target / path).unlink(missing_ok=True)
        for name in list(self.superseded(names)):
            self._place(name).unlink(missing_ok=True)

    def _place(self, name: str) -> Place:
        return self.target / LOG / f"{name}.json"


class Writing:
    """Files of one log: each has its name in it before it is written.

    Args:
        logs: of the export.
        name: of the log.
    """

    def __init__(self, logs: Logs, name: str) -> None:
        self._target, self._earlier = logs.target, logs.earlier
        self._place = logs.target / LOG / f"{name}.json"
        self._log = logs.read(name)
        self._noted = set(self._log["files"])
        self._written: list[str] = []

    def write(self, path: str, content: bytes | Original) -> int:
        """Write a file; gives how many were, 1.

        Raises:
            ResultsError: a file of somebody else is there, or the path leads out of the export.
            RunError: it cannot be written.
        """
        self._refuse_foreign(path)
        if path not in self._noted:
            self._noted.add(path)
            write_json(self._place, self._log | {"files": sorted(self._noted), "done": False})
        _write_file(self._target / path, content)
        self._written.append(path)
        return 1

    def finish(self, more: Mapping[str, Any], *, with_earlier: bool = False) -> list[str]:
        """Say that all are written, and remove those of before that none has taken the place of.

        Gives the names of all files; `with_earlier`: those of before belong to the export, too, and stay.
        """
        files = [*dict.fromkeys([*(self._log["files"] if with_earlier else ()), *self._written])]
        for path in sorted(self._noted.difference(files)):
            (self._target / path).unlink(missing_ok=True)
        write_json(self._place, self._log | dict(more) | {"files": files, "done": True})
        return files

    def _refuse_foreign(self, path: str) -> None:
        place = self._target / path
        # The file itself may be a link, to an image of the dataset, which is replaced and not followed.
        if not is_inside(place.parent.resolve(), self._target.resolve()):
            raise ResultsError(f"the name {path!r} leads out of {self._target}; it is not written")
        if path not in self._noted and path not in self._earlier and (place.exists() or place.is_symlink()):
            raise ResultsError(f"{place} is there, and was not written by this export; choose another --to")


def _write_file(place: Place, content: bytes | Original) -> None:
    if isinstance(content, Original):
        if isinstance(place, Path) and not is_remote(content.uri) and link_to(place, Path(content.uri).absolute()):
            return
        content = read_bytes(content.uri)
    with replacing(place) as temporary:
        temporary.write_bytes(content)
