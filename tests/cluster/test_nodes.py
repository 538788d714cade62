from __future__ import annotations

import os
import time
from typing import Any

import pytest

import oodray
from oodray.cluster import nodes as module
from oodray.cluster.nodes import check_packages, nodes, run_on_each_node
from oodray.errors import ConfigError, RunError

pytestmark = pytest.mark.usefixtures("ray_session")


def test_a_machine_and_what_it_answers() -> None:
    [machine] = nodes()
    assert (machine.cpus, machine.gpus) == (4, 2)
    assert list(run_on_each_node([machine], lambda whole, part: whole // part, 7, 3)) == [(machine, 2)]


def test_one_that_does_not_answer_in_time_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.5)
    [machine] = nodes()
    with pytest.raises(RunError, match=rf"the node {machine.address} does not answer: .*\. Run the same command again"):
        list(run_on_each_node([machine], lambda: time.sleep(5)))


def test_one_that_fails_is_named() -> None:
    [machine] = nodes()
    with pytest.raises(RunError, match=rf"the node {machine.address} does not answer: .*--debug shows where") as caught:
        list(run_on_each_node([machine], lambda: 7 // 0))
    assert "again" not in str(caught.value).replace("would happen again", "")


def test_one_that_can_be_mended_is_not_said_to_mend_itself() -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match="Once that is mended, the same command continues the run"):
        list(run_on_each_node(nodes(), fail))


def test_a_process_that_dies_may_do_better_the_next_time() -> None:
    with pytest.raises(RunError, match="Run the same command again"):
        list(run_on_each_node(nodes(), lambda: os._exit(1)))


def test_gpus_that_others_have_are_said_to_be_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    # Inside of a function, as a worker does not find the modules of tests.
    class Holder:
        def is_there(self) -> bool:
            return True

    holder: Any = ray.remote(num_gpus=2)(Holder).remote()
    ray.get(holder.is_there.remote())
    monkeypatch.setattr(module, "ANSWER_SECONDS", 1)
    try:
        with pytest.raises(RunError, match=r"Its GPUs may be at work for others"):
            list(run_on_each_node(nodes(), lambda: None, gpus=0.01))
    finally:
        ray.kill(holder)


def test_another_oodray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_packages(nodes())
    here = oodray.__version__
    monkeypatch.setattr(oodray, "__version__", "9.9")
    with pytest.raises(ConfigError, match=rf"has another oodray than this machine, {here} instead of 9\.9: all nodes"):
        check_packages(nodes())
