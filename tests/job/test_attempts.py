from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oodray.job.attempts import ATTEMPTS, DIED, Guard, Memory, unguarded
from oodray.job.units import Rows


class Death(BaseException):
    """The end of a process, in this one."""


def rows_of(ids: str) -> Rows:
    return [{"image_id": image_id, "error": None} for image_id in ids]


def until_it_lives(
    guard: Guard,
    rows: Rows,
    work: Callable[[Rows], Rows],
    batches: Callable[[Rows], Iterable[Rows]] | None = None,
) -> tuple[Rows, int]:
    """What Ray does: start again with the same images. Gives the rows, and how often it died."""
    deaths = 0
    while True:
        try:
            return guard.run("segment", rows, work, *([batches] if batches else [])), deaths
        except Death:
            deaths += 1
            assert deaths < 1000


def killed_by(killers: str, seen: list[str]) -> Callable[[Rows], Rows]:
    def work(rows: Rows) -> Rows:
        ids = "".join(row["image_id"] for row in rows)
        seen.append(ids)
        if set(ids) & set(killers):
            raise Death
        return [row | {"done": True} for row in rows]

    return work


def batches_of(size: int) -> Callable[[Rows], Iterator[Rows]]:
    return lambda rows: (rows[start : start + size] for start in range(0, len(rows), size))


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)), st.integers(1, n))))
def test_just_the_images_that_end_the_process_become_errors(case: tuple[int, set[int], int]) -> None:
    count, killers, batch = case
    ids = "abcdefghijkl"[:count]
    deadly = "".join(ids[index] for index in killers)
    guard = Guard(Memory(), 0)
    found, deaths = until_it_lives(guard, rows_of(ids), killed_by(deadly, []), batches_of(batch))
    assert "".join(row["image_id"] for row in found) == ids
    assert {row["image_id"] for row in found if row["error"]} == set(deadly)
    assert all(row["done"] for row in found if row["error"] is None)
    # What is tried together is split in two, so there are at most so many groups; those of several batches die once.
    assert deaths <= (ATTEMPTS * len(killers) + count - 1 if batch == 1 else ATTEMPTS * (2 * count - 1))


def test_batches_are_told_apart_then_the_one_at_fault_is_halved() -> None:
    seen: list[str] = []
    found, deaths = until_it_lives(Guard(Memory(), 0), rows_of("abcdef"), killed_by("d", seen), batches_of(2))
    # All three batches, two of them, the one alone; its image.
    assert deaths == 1 + 1 + ATTEMPTS + ATTEMPTS
    assert found[3]["error"] == f"given up after {ATTEMPTS} attempts (segment): {DIED}"
    # After each death Ray starts anew, so that those before are computed again. No other batch gets other members.
    assert [ids for ids in seen if ids != "ab"] == ["cd"] * (2 + ATTEMPTS) + ["c", "d"] * ATTEMPTS + ["c", "ef"]


def test_a_death_from_outside_changes_no_batch() -> None:
    seen: list[str] = []
    fate = iter([False, True] + [False] * 10)

    def work(rows: Rows) -> Rows:
        seen.append("".join(row["image_id"] for row in rows))
        if next(fate):
            raise Death
        return rows

    found, deaths = until_it_lives(Guard(Memory(), 0), rows_of("abcdefgh"), work, batches_of(3))
    assert deaths == 1
    assert "".join(row["image_id"] for row in found) == "abcdefgh"
    assert set(seen) == {"abc", "def", "gh"}


def test_one_death_is_forgotten_once_it_went_well() -> None:
    journal = Memory()
    guard, fate = Guard(journal, 0), [True, True, False] * ATTEMPTS

    def work(rows: Rows) -> Rows:
        if fate.pop(0):
            raise Death
        return rows

    for _ in range(ATTEMPTS):
        found, deaths = until_it_lives(guard, rows_of("a"), work)
        assert deaths == 2
        assert found[0]["error"] is None
    assert journal.begin(("segment", "a")) == []


def test_the_reason_is_the_last_one_given() -> None:
    journal = Memory()
    guard = Guard(journal, 0)

    def work(rows: Rows) -> Rows:
        journal.explain(("segment", "a"), "too slow")
        raise Death

    found, _ = until_it_lives(guard, rows_of("a"), work)
    assert found[0]["error"].endswith("(segment): too slow")


def test_stages_count_for_themselves() -> None:
    journal = Memory()
    journal.begin(("decode", "a"))
    assert journal.begin(("segment", "a")) == []


def test_errors_of_the_program_pass_through() -> None:
    def work(rows: Rows) -> Rows:
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        unguarded().run("segment", rows_of("a"), work)


HANGS = {
    "asleep": ("import time; time.sleep(60)", "nothing came within --image-timeout, 0.5 s"),
    "in a call that never comes back": ("import re; re.match(r'(a+)+$', 'a' * 60 + 'b')", None),
}


@pytest.mark.parametrize("hang", HANGS)
def test_a_hanging_process_ends_itself(hang: str, environment: dict[str, str]) -> None:
    statement, reason = HANGS[hang]
    program = f"""
from oodray.job.attempts import Guard, Memory

class Loud(Memory):
    def explain(self, key, reason):
        print(reason, flush=True)

def work(rows):
    {statement}

Guard(Loud(), 0.5).run("segment", [{{"image_id": "a"}}, {{"image_id": "b"}}], work)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=50, env=environment
    )
    assert ended.returncode == 1
    assert ended.stdout.strip() == (reason or "")


def test_work_in_time_is_left_alone(environment: dict[str, str]) -> None:
    program = """
import time
from oodray.job.attempts import Guard, Memory
assert Guard(Memory(), 0.3).run("segment", [{"image_id": "a"}], lambda rows: rows) == [{"image_id": "a"}]
time.sleep(0.6)
print("alive")
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=50, env=environment
    )
    assert ended.stdout == "alive\n"
