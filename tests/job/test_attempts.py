from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oodray.job.attempts import ATTEMPTS, DIED, AttemptLog, Guard, unguarded


class Death(BaseException):
    """The end of a process, in this one."""


@dataclass(frozen=True)
class Tried:
    """An image, and what became of it."""

    image_id: str
    error: str | None = None
    done: bool = False


Work = Callable[[list[Tried]], list[Tried]]
Batches = Callable[[list[Tried]], Iterable[list[Tried]]]


def images_of(ids: str) -> list[Tried]:
    return [Tried(image_id) for image_id in ids]


def ids_of(images: list[Tried]) -> str:
    return "".join(image.image_id for image in images)


def give_up(image: Tried, error: str) -> Tried:
    return replace(image, error=error)


def until_it_lives(
    guard: Guard, images: list[Tried], work: Work, batches: Batches | None = None
) -> tuple[list[Tried], int]:
    """What Ray does: start again with the same images. Gives the images, and how often it died."""
    deaths = 0
    while True:
        try:
            return guard.run("segment", images, work, give_up, *([batches] if batches else [])), deaths
        except Death:
            deaths += 1
            assert deaths < 1000


def killed_by(killers: str, seen: list[str]) -> Work:
    def work(images: list[Tried]) -> list[Tried]:
        seen.append(ids_of(images))
        if set(seen[-1]) & set(killers):
            raise Death
        return [replace(image, done=True) for image in images]

    return work


def batches_of(size: int) -> Callable[[list[Tried]], Iterator[list[Tried]]]:
    return lambda images: (images[start : start + size] for start in range(0, len(images), size))


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)), st.integers(1, n))))
def test_just_the_images_that_end_the_process_become_errors(case: tuple[int, set[int], int]) -> None:
    count, killers, batch = case
    ids = "abcdefghijkl"[:count]
    deadly = "".join(ids[index] for index in killers)
    guard = Guard(AttemptLog(), 0)
    found, deaths = until_it_lives(guard, images_of(ids), killed_by(deadly, []), batches_of(batch))
    assert ids_of(found) == ids
    assert {image.image_id for image in found if image.error} == set(deadly)
    assert all(image.done for image in found if image.error is None)
    # What is tried together is split in two, so there are at most so many groups; those of several batches die once.
    assert deaths <= (ATTEMPTS * len(killers) + count - 1 if batch == 1 else ATTEMPTS * (2 * count - 1))


def test_batches_are_told_apart_then_the_one_at_fault_is_halved() -> None:
    seen: list[str] = []
    found, deaths = until_it_lives(Guard(AttemptLog(), 0), images_of("abcdef"), killed_by("d", seen), batches_of(2))
    # All three batches, two of them, the one alone; its image.
    assert deaths == 1 + 1 + ATTEMPTS + ATTEMPTS
    assert found[3].error == f"given up after {ATTEMPTS} attempts (segment): {DIED}"
    # After each death Ray starts anew, so that those before are computed again. No other batch gets other members.
    assert [ids for ids in seen if ids != "ab"] == ["cd"] * (2 + ATTEMPTS) + ["c", "d"] * ATTEMPTS + ["c", "ef"]


def test_a_death_from_outside_changes_no_batch() -> None:
    seen: list[str] = []
    fate = iter([False, True] + [False] * 10)

    def work(images: list[Tried]) -> list[Tried]:
        seen.append(ids_of(images))
        if next(fate):
            raise Death
        return images

    found, deaths = until_it_lives(Guard(AttemptLog(), 0), images_of("abcdefgh"), work, batches_of(3))
    assert deaths == 1
    assert ids_of(found) == "abcdefgh"
    assert set(seen) == {"abc", "def", "gh"}


def test_one_death_is_forgotten_once_it_went_well() -> None:
    journal = AttemptLog()
    guard, fate = Guard(journal, 0), [True, True, False] * ATTEMPTS

    def work(images: list[Tried]) -> list[Tried]:
        if fate.pop(0):
            raise Death
        return images

    for _ in range(ATTEMPTS):
        found, deaths = until_it_lives(guard, images_of("a"), work)
        assert deaths == 2
        assert found[0].error is None
    assert journal.begin(("segment", "a")) == []


def test_the_reason_is_the_last_one_given() -> None:
    journal = AttemptLog()
    guard = Guard(journal, 0)

    def work(images: list[Tried]) -> list[Tried]:
        journal.explain(("segment", "a"), "too slow")
        raise Death

    found, _ = until_it_lives(guard, images_of("a"), work)
    assert found[0].error == f"given up after {ATTEMPTS} attempts (segment): too slow"


def test_stages_count_for_themselves() -> None:
    journal = AttemptLog()
    journal.begin(("decode", "a"))
    assert journal.begin(("segment", "a")) == []


def test_errors_of_the_program_pass_through() -> None:
    def work(images: list[Tried]) -> list[Tried]:
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        unguarded().run("segment", images_of("a"), work, give_up)


HANGS = {
    "asleep": ("import time; time.sleep(60)", "nothing came within --image-timeout, 0.5 s"),
    "in a call that never comes back": ("import re; re.match(r'(a+)+$', 'a' * 60 + 'b')", None),
}


@pytest.mark.parametrize("hang", HANGS)
def test_a_hanging_process_ends_itself(hang: str, environment: dict[str, str]) -> None:
    statement, reason = HANGS[hang]
    program = f"""
from types import SimpleNamespace
from oodray.job.attempts import AttemptLog, Guard

class Loud(AttemptLog):
    def explain(self, key, reason):
        print(reason, flush=True)

def work(images):
    {statement}

Guard(Loud(), 0.5).run("segment", [SimpleNamespace(image_id=name) for name in "ab"], work, give_up=None)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=50, env=environment
    )
    assert ended.returncode == 1
    assert ended.stdout.strip() == (reason or "")


def test_work_in_time_is_left_alone(environment: dict[str, str]) -> None:
    program = """
import time
from types import SimpleNamespace
from oodray.job.attempts import AttemptLog, Guard
images = [SimpleNamespace(image_id="a")]
assert Guard(AttemptLog(), 0.3).run("segment", images, lambda batch: batch, give_up=None) == images
time.sleep(0.6)
print("alive")
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=50, env=environment
    )
    assert ended.stdout == "alive\n"
