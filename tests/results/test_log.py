from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

import oodray
from oodray.job.units import UnitDone
from oodray.results.folder import ResultsFolder
from oodray.results.log import RunLog


def lines(folder: ResultsFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(str(folder.log)).read_text(encoding="utf-8").splitlines()]


def test_what_comes_before_the_folder_is_kept_and_sessions_follow_each_other(tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path)
    first, second = RunLog(), RunLog()
    first.phase_begins("starting Ray")
    first.phase_ends("starting Ray", 4.0004)
    first.add("start", dataset="demo", root=None)
    assert not Path(str(folder.log)).exists()
    with first.written_to(folder):
        first.add_unit(UnitDone(1, 1, ["a: broken\nfor good"], ["b: without its end"]))
        assert len(lines(folder)) == 4, "every line is there at once"
    with second.written_to(folder):
        second.add("start", dataset="Straße")
    found = lines(folder)
    assert all(line.pop("time").endswith("+00:00") for line in found)
    assert found == [
        {"event": "phase", "name": "starting Ray", "seconds": 4.0},
        {"event": "start", "oodray": oodray.__version__, "dataset": "demo"},
        {"event": "error", "text": "a: broken\nfor good"},
        {"event": "warning", "text": "b: without its end"},
        {"event": "end", "status": "finished"},
        {"event": "start", "oodray": oodray.__version__, "dataset": "Straße"},
        {"event": "end", "status": "finished"},
    ]


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), "stopped"), (ValueError("no room"), "failed")])
def test_how_a_session_ended(error: BaseException, status: str, tmp_path: Path) -> None:
    folder, log = ResultsFolder(tmp_path), RunLog()
    with pytest.raises(type(error)), log.written_to(folder):
        raise error
    found = lines(folder)
    assert (found[-1]["event"], found[-1]["status"]) == ("end", status)
    assert [line["text"] for line in found if line["event"] == "error"] == [str(error)] * (status == "failed")


def test_threads_do_not_part_lines(tmp_path: Path) -> None:
    folder, log = ResultsFolder(tmp_path), RunLog()
    with log.written_to(folder):

        def note(number: int) -> None:
            for at in range(50):
                log.add("warning", text=f"{number}-{at}")

        threads = [threading.Thread(target=note, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    texts = [line["text"] for line in lines(folder)[:-1]]
    assert sorted(texts) == sorted(f"{n}-{i}" for n in range(4) for i in range(50))


def test_a_log_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    folder, log = ResultsFolder(tmp_path / "gone"), RunLog()
    with log.written_to(folder):
        log.add("warning", text="x")
