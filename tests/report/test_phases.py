from __future__ import annotations

import io
import os
import sys
import threading
from contextvars import copy_context
from pathlib import Path

import pytest
from rich.console import Console

from oodray.phases import heard_by, phase
from oodray.report.phases import Phases
from oodray.report.terminal import silent_console


class Listener:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def phase_begins(self, name: str) -> None:
        self.heard.append(f"begin {name}")

    def phase_ends(self, name: str, seconds: float) -> None:
        assert seconds >= 0
        self.heard.append(f"end {name}")


def test_phases_inside_of_each_other_and_of_other_threads_reach_all_listeners() -> None:
    first, second = Listener(), Listener()

    def elsewhere() -> None:
        with phase("b"):
            pass

    @phase("a")
    def fails() -> None:
        thread = threading.Thread(target=copy_context().run, args=(elsewhere,))
        thread.start()
        thread.join()
        raise ValueError("x")

    with heard_by(first, second):
        with pytest.raises(ValueError, match="x"):
            fails()
        unheard = threading.Thread(target=elsewhere)  # without a copy of the context
        unheard.start()
        unheard.join()
    with phase("c"):
        pass
    assert first.heard == second.heard == ["begin a", "begin b", "end b", "end a"]


def test_short_phases_are_not_told() -> None:
    console = Console(file=io.StringIO(), width=60)
    with Phases(console) as shown:
        for name, seconds in (("listing the images", 0.1), ("starting Ray", 4.21)):
            shown.phase_begins(name)
            shown.phase_ends(name, seconds)
        shown.note("a note")
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == "starting Ray: 4.2 s\na note\n"


def test_a_terminal_shows_what_goes_on() -> None:
    console = Console(file=io.StringIO(), width=60, force_terminal=True, force_interactive=True)
    now = [0.0]
    with Phases(console, lambda: now[0]) as shown:
        shown.phase_begins("starting Ray")
        shown.phase_begins("hashing the weights")
        now[0] = 7.0
        assert shown._live is not None
        shown._live.refresh()
        shown.phase_ends("starting Ray", 7.0)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "starting Ray ... 7 s, hashing the weights ... 7 s" in text
    assert "starting Ray: 7.0 s" in text


def test_it_is_seen_while_standard_error_leads_elsewhere(tmp_path: Path) -> None:
    """As it does while Ray starts."""
    with (tmp_path / "terminal").open("w") as terminal, (tmp_path / "notes").open("w") as notes:
        console = Console(file=terminal, width=60)
        with Phases(console) as shown:
            saved = os.dup(terminal.fileno())
            os.dup2(notes.fileno(), terminal.fileno())
            shown.phase_ends("hashing the weights", 2.0)
            os.dup2(saved, terminal.fileno())
            os.close(saved)
    assert (tmp_path / "terminal").read_text() == "hashing the weights: 2.0 s\n"


def test_silence_stays_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with Phases(silent_console()) as shown:
        shown.phase_ends("starting Ray", 9.0)
    sys.stderr.flush()
    assert capfd.readouterr() == ("", "")
