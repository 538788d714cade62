from __future__ import annotations

import sys

import pytest

from oodray.report.progress import Progress
from oodray.report.terminal import console, note, silent_console, warn


def test_lines_are_printed_as_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    note(console(), "[bold]one " + "x" * 200)
    warn(console(stderr=True), "two [/x]")
    assert capfd.readouterr() == ("[bold]one " + "x" * 200 + "\n", "warning: two [/x]\n")


@pytest.mark.parametrize("forced", [False, True])
def test_a_silent_one_prints_nothing_and_leaves_prints_alone(
    forced: bool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if forced:  # as in a terminal
        monkeypatch.setenv("FORCE_COLOR", "1")
    silent = silent_console()
    note(silent, "one")
    warn(silent, "two")
    with Progress(total=2, console=silent) as progress:
        progress.note("three")
        sys.stderr.write("of the caller's own program\n")
    assert capfd.readouterr() == ("", "of the caller's own program\n")
