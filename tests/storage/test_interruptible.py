"""Calls that never come back: what ends the wait for them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from oodray.storage.interruptible import NoAnswerError, interruptible

HANGS = """
import signal, sys, time
from oodray.cluster.signals import stoppable
from oodray.storage.interruptible import interruptible

def hang():
    print("hangs", flush=True)
    while True:
        time.sleep(1000)

# A parent may ignore them, as nohup and shells in the background do.
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.default_int_handler)
with stoppable():
    try:
        interruptible(hang)
    except KeyboardInterrupt:
        print("stopped")
"""


def test_the_answer_and_the_error_are_those_of_the_call() -> None:
    assert interruptible(lambda: 5, 1) == 5
    for error in (KeyError("a"), TimeoutError("its own"), NoAnswerError("its own")):
        with pytest.raises(type(error), match=str(error.args[0])):
            interruptible(lambda error=error: (_ for _ in ()).throw(error), 60)  # type: ignore[misc]


def test_one_that_takes_too_long_is_left_behind() -> None:
    end = threading.Event()
    with pytest.raises(NoAnswerError, match="no answer in time"):
        interruptible(end.wait, 0.01)
    end.set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_wait_and_the_process(number: signal.Signals, environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", HANGS]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "hangs\n"
        since = time.monotonic()
        process.send_signal(number)
        assert process.communicate(timeout=60)[0] == "stopped\n"
        assert process.returncode == 0
        assert time.monotonic() - since < 50  # it does not wait for the call
