"""Where the stages of a run work changes nothing that they write; and what only one of the executors promises."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import fakes
import numpy as np
import pytest
import torch
from pixel_oracles import METHOD, listed_image
from places import on_disk
from ray.exceptions import RayTaskError
from runs import TESTS, Run, in_parts

from oodray.analysis.evaluation import Evaluation
from oodray.config import EXECUTORS, RunConfig
from oodray.datasets import manifest as manifest_module
from oodray.datasets.manifest import ListedImage
from oodray.errors import ModelError, RunError
from oodray.job.attempts import unguarded
from oodray.job.executors import executor_of
from oodray.job.executors import local as local_module
from oodray.job.executors.local import UNITS_AHEAD, LocalExecutor
from oodray.job.executors.ray_data import RayExecutor, WorkerActor, _reason
from oodray.job.pipeline import Stages, stages_of
from oodray.job.units import DecodedImage, SegmentedImage, UnitDone, pack, unpack
from oodray.records import extended
from oodray.results.reading import check_parts, read_rows

Start = Callable[..., Run]

CORES = 3
"""Threads of each stage in the tests that count them."""


@pytest.fixture
def start(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Makes runs in this process; the network is found in the working directory."""
    monkeypatch.chdir(TESTS)

    def prepared(out: str = "out", **options: Any) -> Run:
        return Run(tiny_root, tmp_path / out, **options)

    return prepared


@pytest.fixture
def threads_of_torch() -> Iterator[None]:
    """For tests that change their number."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def stage_threads() -> list[str]:
    """The names of the threads that decode and finish."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("decode", "finish"))]


def in_units_of_five(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each of the ten images is a unit."""
    monkeypatch.setattr(manifest_module, "_WANTED_UNITS", 2)


def rows_and_metrics(run: Run) -> tuple[Any, bytes]:
    """All that a run has found."""
    return run.rows(), run.folder.metrics_json.read_bytes()


def test_each_name_has_its_executor() -> None:
    kinds = {"local": LocalExecutor, "ray": RayExecutor}
    assert set(EXECUTORS) == set(kinds)
    for name, kind in kinds.items():
        assert isinstance(executor_of(RunConfig("demo", executor=name)), kind)


class TestBoth:
    """What the executors have in common: all that a run writes."""

    @pytest.mark.parametrize(
        "options",
        [
            pytest.param({"batch_size": 3}, marks=pytest.mark.soak),
            pytest.param({"sweep_k": (3, 4), "confidence_bits": 12, "n_init": 1}, marks=pytest.mark.soak),
        ],
    )
    def test_they_write_the_same(
        self, start: Start, ray_session: None, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
    ) -> None:
        in_units_of_five(monkeypatch)
        runs = [start(executor, executor=executor, **options) for executor in EXECUTORS]
        evaluations = [run.go() for run in runs]
        (rows, metrics), (other_rows, other_metrics) = map(rows_and_metrics, runs)
        assert rows["status"].to_pylist() == ["ok"] * 10
        assert rows.equals(other_rows)
        assert (metrics, evaluations[0]) == (other_metrics, evaluations[1])
        assert set(runs[0].files()) == set(runs[1].files())
        assert sorted(map(repr, runs[0].heard)) == sorted(map(repr, runs[1].heard))

    def test_the_executor_is_no_part_of_what_a_run_is(self, start: Start) -> None:
        identities = [start(executor, executor=executor).plan.identity() for executor in EXECUTORS]
        assert identities[0] == identities[1]

    # What Ray began is continued in this process by test_kills.py, and the other way round by test_run.py, too.
    @pytest.mark.soak
    @pytest.mark.parametrize("executors", [EXECUTORS, EXECUTORS[::-1]])
    def test_what_one_began_the_other_continues(
        self, clean: Run, start: Start, ray_session: None, executors: tuple[str, str]
    ) -> None:
        first, second = (start(executor=executor) for executor in executors)
        first.go()
        begun = read_rows(first.folder.parts()).slice(5)
        for unit in range(5):
            in_parts(first.folder).part(unit).unlink()
        second.go()
        assert sum(unit.ok for unit in second.heard) == 5
        assert read_rows(second.folder.parts()).slice(5).equals(begun)
        assert rows_and_metrics(second)[0].equals(clean.rows())
        assert second.folder.metrics_json.read_bytes() == clean.folder.metrics_json.read_bytes()

    @pytest.mark.soak
    @pytest.mark.parametrize("executors", [EXECUTORS, EXECUTORS[::-1]])
    def test_what_failed_with_one_the_other_tries_again(
        self,
        clean: Run,
        start: Start,
        ray_session: None,
        tiny_root: Path,
        monkeypatch: pytest.MonkeyPatch,
        *,
        executors: tuple[str, str],
    ) -> None:
        in_units_of_five(monkeypatch)
        spoilt = [tiny_root / f"images/0{index}.png" for index in (1, 7)]
        contents = [path.read_bytes() for path in spoilt]
        for path in spoilt:
            path.write_bytes(b"")
        first, second = (start(executor=executor) for executor in executors)
        assert first.go().failed == 2
        for path, content in zip(spoilt, contents, strict=True):
            path.write_bytes(content)
        assert second.go().failed == 2, "nobody asked"
        assert second.heard == []
        assert second.go(retry_errors=True).failed == 0
        assert sum(unit.ok for unit in second.heard) == 2
        assert second.rows().drop(["unit"]).equals(clean.rows().drop(["unit"]))

    @pytest.mark.soak
    def test_where_all_images_fail_on_ray_the_run_does(self, start: Start, ray_session: None) -> None:
        self.check_that_it_fails(start(model="fakes:flat", executor="ray"))

    def test_where_all_images_fail_in_this_process_the_run_does(self, start: Start) -> None:
        self.check_that_it_fails(start(model="fakes:flat", executor="local"))

    def check_that_it_fails(self, failing: Run) -> None:
        with pytest.raises(RunError, match=r"all 10 images failed; `oodray status .*` shows the most frequent errors"):
            failing.go()
        assert sum(unit.failed for unit in failing.heard) == 10
        assert str(failing.rows()["error"][0]).startswith("the segmenter returned features of")

    def test_nothing_that_is_heard_depends_on_the_order(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        backwards = start()

        class Backwards(LocalExecutor):
            def stream(self, *args: Any) -> Iterator[UnitDone]:
                yield from reversed(list(super().stream(*args)))

        evaluation: Evaluation = backwards.go(executor=Backwards())
        assert evaluation == start("forwards").go()
        assert sum(unit.ok for unit in backwards.heard) == 10


def interrupt(done: UnitDone) -> NoReturn:
    """Ctrl-C, while a unit is heard of."""
    raise KeyboardInterrupt


class TestLocal:
    """The stages in this process."""

    @pytest.mark.parametrize("threads", [1, 3])
    def test_the_threads_of_the_network_are_those_asked_for_and_the_callers_come_back(
        self, start: Start, threads_of_torch: None, threads: int
    ) -> None:
        torch.set_num_threads(2)
        seen = set[int]()
        start(threads=threads).go(lambda _: seen.add(torch.get_num_threads()))
        assert (seen, torch.get_num_threads()) == ({threads}, 2)

    def test_the_threads_of_the_caller_come_back_after_an_error(self, start: Start, threads_of_torch: None) -> None:
        torch.set_num_threads(2)
        with pytest.raises(ModelError, match="the licence server is down"):
            start(model="fakes:never_starts", threads=3).go()
        with pytest.raises(KeyboardInterrupt):
            start("other", threads=3).go(interrupt)
        assert torch.get_num_threads() == 2

    def test_how_it_is_scheduled_is_said_in_a_line(self, start: Start) -> None:
        said: list[str] = []
        [*LocalExecutor().stream(start(threads=3).prepare(), said.append)]
        assert said == ["this process, 3 CPU threads for the network; 10 units of images left"]

    def test_a_stage_that_fails_ends_it_and_leaves_no_thread(self, start: Start) -> None:
        blocked = start()
        job = blocked.prepare()
        on_disk(blocked.folder.results).rmdir()
        blocked.folder.results.touch()
        with pytest.raises(RunError, match=r"cannot write .*part-000000.parquet"):
            [*LocalExecutor().stream(job, lambda _: None)]
        assert stage_threads() == []

    def test_an_error_of_the_program_is_raised_as_it_is(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        def mistaken(job: object, *_: object) -> Stages:
            return replace(stages_of(job, *_), decoder=Mistaken())  # type: ignore[arg-type]

        monkeypatch.setattr(local_module, "stages_of", mistaken)
        with pytest.raises(ZeroDivisionError):
            start().go()
        assert stage_threads() == []

    def test_what_is_interrupted_leaves_whole_files_alone(self, clean: Run, start: Start) -> None:
        stopped = start()
        with pytest.raises(KeyboardInterrupt):
            stopped.go(interrupt)
        assert stage_threads() == []
        parts = stopped.folder.parts()
        assert 1 <= len(parts) < 10
        check_parts(stopped.folder, stopped.plan.manifest)
        assert list(on_disk(stopped.folder.path).rglob(".*.tmp")) == []
        stopped.go()
        assert stopped.rows().equals(clean.rows())

    def test_a_stream_that_nobody_reads_on_leaves_no_thread(self, start: Start, threads_of_torch: None) -> None:
        torch.set_num_threads(2)
        stream = LocalExecutor().stream(start().prepare(), lambda _: None)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert (stage_threads(), torch.get_num_threads()) == ([], 2)

    def test_memory_does_not_grow_with_the_run(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        many = start()
        counted = Counted(CORES + UNITS_AHEAD + 1)  # the one that the network has, too
        monkeypatch.setattr(local_module, "usable_cores", lambda: CORES)
        monkeypatch.setattr(local_module, "stages_of", counted.stages_of)
        many.go()
        assert many.rows()["status"].to_pylist() == ["ok"] * 10
        assert counted.most_decoded <= counted.bound
        assert counted.most_segmented <= counted.bound
        assert counted.decoded == counted.segmented == counted.finished == 10

    def test_an_image_may_take_longer_than_its_timeout(self, start: Start) -> None:
        """A watchdog would end the process of the caller."""
        assert start(model="fakes:unhurried", image_timeout=0.001).go().images == 10

    def test_ray_is_never_imported(self, tiny_dataset: Path, tmp_path: Path, environment: dict[str, str]) -> None:
        program = f"""
import sys
from pathlib import Path
from runs import Run

Run(Path({str(tiny_dataset)!r}), Path({str(tmp_path / "out")!r})).go()
print([name for name in sys.modules if name.partition(".")[0] == "ray"])
"""
        done = subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=TESTS, env=environment
        )
        assert done.stdout == "[]\n"


class Mistaken:
    """A decoder with a mistake."""

    def __call__(self, images: list[ListedImage]) -> list[DecodedImage]:
        raise ZeroDivisionError


class Counted:
    """The stages of a job, which count the units between them.

    The second and the third do not begin before more units wait for them than a bound; or where that never happens,
    after a while.
    """

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.change = threading.Condition()
        self.decoded = self.segmented = self.finished = 0
        self.most_decoded = self.most_segmented = 0

    def stages_of(self, *args: Any) -> Stages:
        stages, counted = stages_of(*args), self

        def decoder(images: list[ListedImage]) -> list[DecodedImage]:
            # From here on there is memory for it.
            with self.change:
                self.decoded += 1
                self.most_decoded = max(self.most_decoded, self.decoded - self.segmented)
                self.change.notify_all()
            return stages.decoder(images)

        class Counting(fakes.Colours):
            def segment(self, images: list[Any]) -> list[Any]:
                with counted.change:
                    if not counted.segmented:
                        counted.change.wait_for(lambda: counted.decoded > counted.bound, timeout=1)
                found = super().segment(images)
                with counted.change:
                    counted.segmented += 1
                    counted.most_segmented = max(counted.most_segmented, counted.segmented - counted.finished)
                    counted.change.notify_all()
                return found

        def finisher(images: list[SegmentedImage]) -> UnitDone:
            with self.change:
                if not self.finished:
                    self.change.wait_for(lambda: self.segmented > self.bound, timeout=1)
            done = stages.finisher(images)
            with self.change:
                self.finished += 1
            return done

        return replace(stages, decoder=decoder, finisher=finisher, load=partial(Counting))  # type: ignore[arg-type]


class TestWorkerActor:
    """The second stage on Ray, here in this process."""

    def table(self) -> Any:
        image = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
        decoded = extended(DecodedImage, listed_image("a"), height=24, width=40, image=image)
        return pack([decoded], DecodedImage)

    def test_units_come_and_go_as_tables(self, threads_of_torch: None) -> None:
        [image] = unpack(WorkerActor(fakes.colours, 1, METHOD, unguarded())(self.table()), SegmentedImage)
        assert (image.image_id, image.error, image.size) == ("a", None, (24, 40))
        assert image.confidence is not None

    def test_what_keeps_the_network_from_starting_is_an_error_of_its_first_call(self, threads_of_torch: None) -> None:
        def load() -> NoReturn:
            raise ModelError("the licence server is down")

        worker = WorkerActor(load, 1, METHOD, unguarded())
        for _ in range(2):
            with pytest.raises(ModelError, match="the licence server is down"):
                worker(self.table())

    def test_threads_are_those_asked_for(self, threads_of_torch: None) -> None:
        for threads in (1, 3):
            WorkerActor(fakes.colours, threads, METHOD, unguarded())
            assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (KeyError("orientation"), "KeyError: 'orientation'"),
        (RunError("cannot write x.\nFailed to apply UDF after 1/1 attempts"), "cannot write x"),
    ],
)
def test_a_stage_that_fails_is_heard_of_by_the_name_of_its_error(cause: Exception, reason: str) -> None:
    assert _reason(RayTaskError("map", "its traceback", cause).as_instanceof_cause()) == reason
