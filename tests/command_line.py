"""The command line, called in this process."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass

import pytest

from oodray.cli import main


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said."""

    exit_code: int
    out: str
    err: str


def call(*arguments: object) -> Done:
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["oodray", *map(str, arguments)])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stop:
            main()
    assert stop.value.code is None or isinstance(stop.value.code, int)
    return Done(stop.value.code or 0, out.getvalue(), err.getvalue())
