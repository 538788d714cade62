from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oodray.cluster.signals import STOPPING, handlers_restored, noted, stoppable


@pytest.fixture(autouse=True)
def as_in_a_new_process() -> Iterator[None]:
    """Ray takes SIGTERM for itself, in tests that come before these; who starts the tests may ignore the others."""
    with handlers_restored():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        yield


@pytest.mark.parametrize("number", STOPPING)
def test_each_is_a_keyboard_interrupt(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in STOPPING]
    with stoppable() as stop:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert stop.number == number
    assert [signal.getsignal(each) for each in STOPPING] == before


def test_who_ignores_a_closed_terminal_goes_on() -> None:
    with handlers_restored():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with stoppable(), noted() as stopped:
            signal.raise_signal(signal.SIGHUP)
            assert not stopped.is_set()


@pytest.mark.parametrize("number", STOPPING)
def test_what_gets_lost_is_noted(number: signal.Signals) -> None:
    with stoppable(), noted() as stopped:
        with contextlib.suppress(KeyboardInterrupt):  # as a callback of Ray's does
            signal.raise_signal(number)
        assert stopped.is_set()


def test_what_others_do_to_signals_is_undone() -> None:
    with stoppable():
        ours = signal.getsignal(signal.SIGTERM)
        with handlers_restored():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        assert signal.getsignal(signal.SIGTERM) is ours


PROGRAM = """
import sys, time
from oodray.cli import main
from oodray.job import plan

def wait(*_, **__):
    print("waiting", flush=True)
    time.sleep(60)

plan.make_request = wait
sys.argv = ["oodray", "run", "--dataset", "demo"]
main()
"""


@pytest.mark.parametrize("number", STOPPING)
def test_a_command_ends_with_one_line_and_the_code_of_its_signal(
    number: signal.Signals, environment: dict[str, str], tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        os.kill(process.pid, number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err == "stopped. The same command continues a run.\n"
