"""The log of a run, `OUT/log.jsonl`: a line of JSON for each thing that happened, in all sessions, in their order.

Every line has `time` (UTC) and `event`: `start`, `phase` (`name`, `seconds`), `warning` and `error` (`text`), and `end`
(`status`: `finished`, `stopped` or `failed`). A log cannot be appended to in an object store, and is not kept there.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import oodray
from oodray.results.folder import ResultsFolder
from oodray.storage.remote import is_remote


class UnitDone(Protocol):
    """What a log takes of a finished unit, see `oodray.job.units.UnitDone`."""

    @property
    def errors(self) -> Sequence[str]:
        """Of images that failed."""

    @property
    def warnings(self) -> Sequence[str]:
        """Of images that were processed."""


class RunLog:
    """Appends to the log of a run. What happens before the folder is there is kept until then.

    A log that cannot be written to is no reason to end a run: then it has fewer lines.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._folder: ResultsFolder | None = None
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def written_to(self, folder: ResultsFolder) -> Iterator[None]:
        """Write to the log of a folder, which exists, from now on, and how the block ended, at its end."""
        self._folder = folder
        self._write()
        try:
            yield
        except KeyboardInterrupt:
            self.add("end", status="stopped")
            raise
        except Exception as error:
            self.add("error", text=str(error) or type(error).__name__)
            self.add("end", status="failed")
            raise
        self.add("end", status="finished")

    def add(self, event: str, **fields: Any) -> None:
        """Note what happened; fields without a value are left out."""
        content = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event}
        content |= {"oodray": oodray.__version__} if event == "start" else {}
        content |= {name: value for name, value in fields.items() if value is not None}
        with self._lock:
            self._lines.append(json.dumps(content, ensure_ascii=False) + "\n")
        if self._folder is not None:
            self._write()

    def add_unit(self, done: UnitDone) -> None:
        """Note the errors and warnings of the images of a unit."""
        for event, texts in (("error", done.errors), ("warning", done.warnings)):
            for text in texts:
                self.add(event, text=text)

    def phase_begins(self, name: str) -> None:
        """See `oodray.phases.PhaseListener`: a phase is noted when it has ended."""

    def phase_ends(self, name: str, seconds: float) -> None:
        """See `oodray.phases.PhaseListener`."""
        self.add("phase", name=name, seconds=round(seconds, 3))

    def _write(self) -> None:
        with self._lock:
            text, self._lines = "".join(self._lines), []
            if self._folder is None or is_remote(self._folder.path):
                return
            # One write, so that two processes do not part each other's lines.
            with contextlib.suppress(OSError), open(str(self._folder.log), "a", encoding="utf-8") as file:  # noqa: PTH123
                file.write(text)
