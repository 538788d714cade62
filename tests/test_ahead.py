from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from threading import Event

import pytest

from oodray.ahead import in_threads, map_ahead


@pytest.mark.parametrize("ahead", [0, 2])
def test_no_more_items_are_taken_than_it_may_be_ahead(ahead: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(6):
            taken.append(item)
            yield item

    with ThreadPoolExecutor(2) as threads:
        for given, result in enumerate(map_ahead(threads, lambda item: 10 * item, items(), ahead)):
            assert result == 10 * given
            assert len(taken) == min(given + 1 + ahead, 6)


def test_an_error_is_raised_where_its_result_would_be() -> None:
    with ThreadPoolExecutor(1) as threads:
        results = map_ahead(threads, lambda item: 1 // item, [1, 0, 1], 1)
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_results_are_in_the_order_of_the_items_though_later_ones_end_first() -> None:
    ended = [Event() for _ in range(4)]

    def work(item: int) -> int:
        if item + 1 < len(ended):
            assert ended[item + 1].wait(60)
        ended[item].set()
        return 10 * item

    assert in_threads(work, range(4), threads=4) == [0, 10, 20, 30]


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_is_raised_and_no_further_item_is_begun(threads: int) -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        return 1 // item

    with pytest.raises(ZeroDivisionError):
        in_threads(work, [0] * 1000, threads)
    assert len(begun) < 1000


def test_work_sees_the_context_of_who_asked() -> None:
    said = ContextVar("said", default="nothing")
    token = said.set("hello")
    try:
        assert in_threads(lambda item: said.get(), range(3), threads=2) == ["hello"] * 3
    finally:
        said.reset(token)


HANGS = """
import signal, time
from oodray.ahead import in_threads

signal.signal(signal.SIGINT, signal.default_int_handler)

def hang(item):
    print("hangs", flush=True)
    time.sleep(1000)

try:
    in_threads(hang, range(9), threads=1 + 1, daemon=True)
except KeyboardInterrupt:
    print("stopped")
"""


def test_a_signal_ends_the_wait_for_work_that_a_process_may_leave_behind(environment: dict[str, str]) -> None:
    with subprocess.Popen([sys.executable, "-c", HANGS], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["hangs\n"] * 2
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == "stopped\n"
        assert process.returncode == 0
