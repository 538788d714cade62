from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import on_disk
from small_run import SmallRun

from oodray.errors import ResultsError
from oodray.results.folder import ResultsFolder
from oodray.results.parts import write_part
from oodray.results.status import MOST_ERRORS, Speed, read_status


@pytest.fixture
def small_run(tmp_path: Path) -> SmallRun:
    return SmallRun(tmp_path)


def set_times(folder: ResultsFolder, *seconds: float) -> None:
    for part, time in zip(folder.parts(), seconds, strict=True):
        os.utime(on_disk(part), (0, 1e9 + time))


def test_a_run_that_goes_on(small_run: SmallRun) -> None:
    for name in "abcde":
        small_run.add(name)
    small_run.fail("f", "broken")
    for name in "gh":
        small_run.add(name)
    folder = small_run.write(unwritten=2)
    (on_disk(folder.results) / ".part-000006.parquet.77.tmp").write_bytes(b"half")
    status = read_status(folder)
    assert (status.total, status.ok, status.failed, status.left) == (8, 5, 1, 2)
    assert not status.finished
    assert status.errors == [("broken", 1)]


WITHOUT = """
import sys

sys.modules.update(ray=None, torch=None, mmengine=None, mmseg=None)
from oodray.cli import main

main()
"""
"""The command line where heavy packages are not installed."""


def test_it_takes_neither_ray_nor_torch(small_run: SmallRun, environment: dict[str, str]) -> None:
    for name in "abc":
        small_run.add(name)
    folder = small_run.write(unwritten=2)
    command = [sys.executable, "-c", WITHOUT, "status", str(folder.path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert "1 of 3 done, 2 left" in done.stdout


def test_before_the_first_unit(small_run: SmallRun) -> None:
    small_run.add("a")
    status = read_status(small_run.write(unwritten=1))
    assert (status.total, status.ok, status.failed, status.left) == (1, 0, 0, 1)
    assert status.speed is None
    assert status.errors == []


def test_done_but_not_yet_evaluated_is_not_finished(small_run: SmallRun) -> None:
    small_run.add("a")
    assert not read_status(small_run.write()).finished


def test_the_speed_of_a_finished_run_is_that_of_run_json(small_run: SmallRun) -> None:
    for name in "abcd":
        small_run.add(name)
    folder = small_run.write(finished="2026-01-01T00:00:00+00:00", seconds=8.0)
    set_times(folder, 0, 1, 2, 6)
    status = read_status(folder)
    assert status.finished
    assert status.speed == Speed(0.5, with_start_up=True)


def test_the_speed_of_a_run_that_goes_on_is_that_of_its_files(small_run: SmallRun) -> None:
    for name in "abcde":
        small_run.add(name)
    folder = small_run.write(unwritten=1)
    # The first file to be done is the third; that of a resumed unit may bring two images.
    write_part(folder, 2, [small_run.rows[2], small_run.rows[4]])
    set_times(folder, 14, 30, 10, 20)
    status = read_status(folder)
    assert status.speed == Speed(3 / 20, with_start_up=False)
    assert status.seconds_left is None, "all is done"


def test_seconds_that_lack_a_killed_session_do_not_make_a_run_faster(small_run: SmallRun) -> None:
    for name in "abc":
        small_run.add(name)
    folder = small_run.write(finished="2026-01-01T00:00:00+00:00", seconds=0.5)
    set_times(folder, 0, 10, 40)
    assert read_status(folder).speed == Speed(2 / 40, with_start_up=False)


def test_files_of_one_moment_tell_no_speed(small_run: SmallRun) -> None:
    for name in "abc":
        small_run.add(name)
    folder = small_run.write()
    set_times(folder, 0, 0, 0)
    assert read_status(folder).speed is None


def test_messages_of_one_kind_are_one(small_run: SmallRun) -> None:
    kinds = [
        [
            "cannot read /a/1.jpg: No such file",
            "cannot read /a/b/2.jpg: No such file",
            "cannot read /c: No such file",
        ],
        ["the image holds 'it is' in 7 places", "the image holds 'other' in 12 places"],
        ["it begins with b'<html' and ends", 'it begins with b"it\'s" and ends'],
        ["can't open it, don't know why"],
    ]
    for index in range(3):
        for messages in kinds:
            for message in messages[index : index + 1]:
                small_run.fail(f"{index}{message}", message)
    errors = read_status(small_run.write()).errors
    assert errors == [(messages[0], len(messages)) for messages in kinds]


def test_a_path_with_blanks_is_one_path(small_run: SmallRun) -> None:
    for name in ("a", "b"):
        image_uri = f"/my pictures of {name * 3}/an image {name}.jpg"
        label_uri = f"/my labels of {name * 5}/of {name}.png"
        error = f"the label {label_uri} does not fit {image_uri}"
        small_run.fail(name, error, image_uri=image_uri, label_uri=label_uri)
    first = small_run.rows[0].error
    assert read_status(small_run.write()).errors == [(first, 2)]


def test_the_most_frequent_errors_come_first_and_the_rest_is_left_out(small_run: SmallRun) -> None:
    words = ["one", "two", "three", "four", "five", "six", "seven"]
    for count, word in enumerate(words, start=1):
        for index in range(count):
            small_run.fail(f"{word}{index}", word)
    status = read_status(small_run.write())
    assert status.failed == 28
    assert status.errors == [("seven", 7), ("six", 6), ("five", 5), ("four", 4), ("three", 3)]
    assert len(status.errors) == MOST_ERRORS


def test_the_time_left_is_that_of_the_images_left(small_run: SmallRun) -> None:
    for name in "abcdef":
        small_run.add(name)
    folder = small_run.write(unwritten=3)
    set_times(folder, 0, 0, 0)
    assert read_status(folder).seconds_left is None, "no speed"
    set_times(folder, 0, 4, 8)
    assert read_status(folder).seconds_left == 3 / (2 / 8)


def test_no_results_folder(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"no run\.json"):
        read_status(ResultsFolder(tmp_path))


def test_a_damaged_file_is_named(small_run: SmallRun) -> None:
    small_run.add("a")
    folder = small_run.write()
    on_disk(folder.part(0)).write_bytes(b"PAR1 and no more")
    with pytest.raises(ResultsError, match=r"part-000000\.parquet"):
        read_status(folder)


def test_plain_values_for_other_programs(small_run: SmallRun) -> None:
    small_run.add("a")
    small_run.fail("b", "broken")
    found = read_status(small_run.write()).as_plain()
    assert found.pop("images_per_second") is None or found.pop("speed_with_start_up") is False
    assert {name: found[name] for name in ("finished", "images", "ok", "failed", "left", "seconds_left", "errors")} == {
        "finished": False,
        "images": 2,
        "ok": 1,
        "failed": 1,
        "left": 0,
        "seconds_left": None,
        "errors": [{"message": "broken", "images": 1}],
    }
