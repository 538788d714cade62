from __future__ import annotations

import io

import pytest
from rich.console import Console

from oodray.job.units import UnitDone
from oodray.report.progress import MOST_WARNINGS, Progress


class Clock:
    """Time that passes when told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def plain(width: int = 40) -> Console:
    return Console(file=io.StringIO(), width=width)


def terminal() -> Console:
    return Console(file=io.StringIO(), width=100, force_terminal=True, force_interactive=True)


def output(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def done(ok: int, *errors: str) -> UnitDone:
    return UnitDone(ok, len(errors), list(errors))


def test_plain_lines_come_at_most_every_ten_seconds_and_at_the_end() -> None:
    console, clock = plain(), Clock()
    with Progress(600, 100, console=console, clock=clock) as progress:
        for _ in range(5):
            clock.now += 4
            progress.update(done(20))
    assert output(console).splitlines() == [
        "120/600 images, the first after 0:04",
        "180/600 images, 5.0 images/s, 1:24 left",
        "200/600 images, 5.0 images/s, 1:20 left",
    ]


def test_the_example_of_the_help() -> None:
    clock = Clock()
    progress = Progress(600, console=plain(), clock=clock)
    progress.update(done(10))
    clock.now += 110 / 4.1
    progress.update(done(107, "a: broken", "b: broken", "c: broken"))
    assert progress.summary() == "120/600 images, 3 failed, 4.1 images/s, 1:57 left"


def test_the_speed_is_that_of_this_session() -> None:
    clock = Clock()
    progress = Progress(1000, 900, console=plain(), clock=clock)
    clock.now += 7
    with progress:  # what was before it does not count
        clock.now += 33  # starting Ray and the network does not count either
        progress.update(done(10))
        clock.now += 100
        progress.update(done(50))
        assert progress.summary() == "960/1000 images, 0.5 images/s, 1:20 left"


def test_time_left_runs_down_between_units_but_not_below_zero() -> None:
    clock = Clock()
    progress = Progress(20, console=plain(), clock=clock)
    progress.update(done(2))
    clock.now += 8
    progress.update(done(8))
    lefts = []
    for _ in range(3):
        lefts.append(progress.summary().split(", ")[-1])
        clock.now += 6
    assert lefts == ["0:10 left", "0:04 left", "0:00 left"]


def test_before_the_first_image_the_time_left_is_unknown() -> None:
    clock = Clock()
    progress = Progress(5, console=plain(), clock=clock)
    assert progress.summary() == "0/5 images, the workers start, 0:00"
    clock.now += 12
    assert progress.summary() == "0/5 images, the workers start, 0:12"
    progress.update(done(1))  # no time has passed
    assert progress.summary() == "1/5 images, the first after 0:12"


def test_nothing_left_to_do() -> None:
    console = plain()
    with Progress(5, 5, console=console, clock=Clock()):
        pass
    assert output(console) == "5/5 images\n"


def test_the_last_line_says_how_long_it_took_and_comes_once() -> None:
    console, clock = plain(60), Clock()
    with Progress(5, console=console, clock=clock) as progress:
        clock.now += 20
        progress.update(done(1))
        clock.now += 80
        progress.update(done(4))
    assert output(console).splitlines() == ["1/5 images, the first after 0:20", "5/5 images, 0.05 images/s, in 1:40"]


def test_a_session_of_one_unit_has_a_duration_but_no_speed() -> None:
    console, clock = plain(60), Clock()
    with Progress(5, console=console, clock=clock) as progress:
        clock.now += 100
        progress.update(done(5))
    assert output(console) == "5/5 images, in 1:40\n"


def test_the_first_errors_are_printed_each_on_a_line() -> None:
    console, clock = plain(), Clock()
    long = "frames/012: cannot read [red]/a/b c/012.jpg:\n\t\x1bNo such file " + "x" * 100
    errors = [long, *(f"frames/{index}: broken" for index in range(20))]
    with Progress(30, console=console, clock=clock) as progress:
        progress.update(done(0, *errors[:3]))
        progress.update(done(0, *errors[3:]))
    lines = output(console).splitlines()
    warnings = [line for line in lines if line.startswith("warning: ")]
    assert len(warnings) == MOST_WARNINGS
    assert warnings[0] == "warning: frames/012: cannot read [red]/a/b c/012.jpg: No such file " + "x" * 100
    assert warnings[1:] == [f"warning: frames/{index}: broken" for index in range(MOST_WARNINGS - 1)]
    assert lines[-1].startswith("21/30 images, 21 failed")


def break_off(progress: Progress, clock: Clock) -> None:
    with progress:
        progress.update(done(1))
        clock.now += 1
        progress.update(done(2))
        raise KeyboardInterrupt


class Closed(io.StringIO):
    """A terminal that is gone."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def test_a_terminal_that_was_closed_does_not_hide_why_the_run_stops() -> None:
    console = terminal()

    def close_and_stop() -> None:
        with Progress(9, console=console, clock=Clock()):
            console.file = Closed()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        close_and_stop()


def test_the_last_line_comes_although_the_run_breaks_off() -> None:
    console, clock = plain(), Clock()
    with pytest.raises(KeyboardInterrupt):
        break_off(Progress(9, console=console, clock=clock), clock)
    assert output(console).splitlines()[-1] == "3/9 images, 2.0 images/s, 0:03 left"


def test_in_a_terminal_one_line_with_a_bar() -> None:
    console, clock = terminal(), Clock()
    with Progress(20, 5, console=console, clock=clock) as progress:
        progress.update(done(2))
        clock.now += 8
        progress.update(done(7, "frames/012: broken"))
    shown = output(console)
    assert "5/20 images, the workers start, " in shown
    assert "warning: frames/012: broken" in shown
    last = shown.splitlines()[-2]
    assert "━" in last
    assert "15/20 images, 1 failed, 1.0 images/s, 0:05 left" in last


def test_a_terminal_is_left_in_order_when_the_run_breaks_off() -> None:
    console, clock = terminal(), Clock()
    with pytest.raises(KeyboardInterrupt):
        break_off(Progress(9, console=console, clock=clock), clock)
    assert "3/9 images, 2.0 images/s, 0:03 left" in output(console).splitlines()[-2]
    assert output(console).endswith("\x1b[?25h")  # the cursor is back


def test_images_with_a_warning_are_named_and_counted() -> None:
    console, clock = plain(width=200), Clock()
    with Progress(60, console=console, clock=clock) as progress:
        for index in range(20):
            progress.update(UnitDone(3, 0, [], [f"frames/{index}: turned"]))
    lines = output(console).splitlines()
    warnings = [line for line in lines if line.startswith("warning: ")]
    assert warnings == [f"warning: frames/{index}: turned" for index in range(MOST_WARNINGS)]
    assert lines[-1].startswith("60/60 images, 20 with a warning")
