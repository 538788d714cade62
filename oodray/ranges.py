"""Ranges and lists as a user writes them in an option."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation
from typing import Any

from oodray.errors import ConfigError

MAX_NUMBERS = 1_000_000

SWEPT_OOD_RATIOS = "0:1:0.01"
"""The values of T that a sweep tries where it is not told otherwise."""

REFINEMENTS = {"guided": 8, "bilateral": 2}
"""Ways to refine a score, and the radius where none is given: of a window in pixels, of a neighbourhood in cells."""

MOST_RADIUS = 256


def decimal_range(text: str) -> list[float]:
    """The numbers of `a:b:step`, both ends included, of `a:b` with a step of 1, or of a list `a,b,c`.

    Built in decimal: 0:1:0.01 holds 0.07, not 0.07 and a bit.

    Raises:
        ConfigError: if the text is none of these, or the step does not lead from a to b.

    >>> decimal_range("0:0.3:0.1"), decimal_range("3:5"), decimal_range("1.5, 0.2")
    ([0.0, 0.1, 0.2, 0.3], [3.0, 4.0, 5.0], [0.2, 1.5])
    """
    try:
        numbers = [Decimal(part.strip()) for part in text.split(":" if ":" in text else ",")]
    except InvalidOperation:
        raise ConfigError(f"{text!r} is no range: write a:b:step, or numbers with commas between") from None
    if not all(number.is_finite() for number in numbers):
        raise ConfigError(f"{text!r} holds a number that is not finite")
    if ":" not in text:
        return sorted({float(number) for number in numbers})
    if len(numbers) not in (2, 3):
        raise ConfigError(f"{text!r} is no range: write a:b:step")
    start, end, step = (*numbers, Decimal(1))[:3]
    if step <= 0 or end < start:
        raise ConfigError(f"{text!r} is no range: a must not be above b, and the step must be above 0")
    try:
        steps, rest = divmod(end - start, step)
    except InvalidOperation:  # more steps than decimal arithmetic can count
        raise ConfigError(f"{text!r} has more than {MAX_NUMBERS:,} numbers; use a larger step") from None
    if rest:
        raise ConfigError(f"{text!r}: a step of {step} does not lead from {start} to {end}, which both belong to it")
    if steps >= MAX_NUMBERS:
        raise ConfigError(f"{text!r} has {steps + 1:,} numbers, more than {MAX_NUMBERS:,}; use a larger step")
    return [float(start + index * step) for index in range(int(steps) + 1)]


def round_range(low: float, high: float, most: int = 200) -> str:
    """A range that covers two numbers in round steps, a 1, 2 or 5 of some decimal place, so that `most` are enough.

    >>> round_range(-1.234, 16.3), round_range(0.501, 0.5049), round_range(3, 3)
    ('-1.3:16.3:0.1', '0.501:0.5049:0.00002', '3:3:1')
    """
    lowest, highest = Decimal(repr(float(low))), Decimal(repr(float(high)))
    if lowest >= highest:
        return f"{low:g}:{low:g}:1"
    wanted = (highest - lowest) / most
    place = Decimal(1).scaleb(wanted.adjusted())
    step = next(factor * place for factor in (1, 2, 5, 10) if factor * place >= wanted)
    start, end = (lowest / step).to_integral_value(ROUND_FLOOR), (highest / step).to_integral_value(ROUND_CEILING)
    return ":".join(f"{number.normalize():f}" for number in (start * step, end * step, step))


def numbers(values: str | float | Iterable[float]) -> list[float]:
    """The numbers of a range, see `decimal_range`, one number, or a sequence of them: ascending, each once.

    Raises:
        ConfigError: if there are none, or one is not finite.

    >>> numbers("0:0.2:0.1"), numbers(1.5), numbers([3, 1, 3])
    ([0.0, 0.1, 0.2], [1.5], [1.0, 3.0])
    """
    if isinstance(values, str):
        return decimal_range(values)
    try:
        found = sorted({float(value) for value in (values if isinstance(values, Iterable) else [values])})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"no numbers, and no range such as 0:1:0.01: {error}") from None
    if not found or not all(map(math.isfinite, found)):
        raise ConfigError("a range needs at least one number, and none that is not finite")
    return found


def whole_range(text: str) -> tuple[int, ...]:
    """The same for whole numbers.

    Raises:
        ConfigError: if one of them is not whole.

    >>> whole_range("3:6"), whole_range("8,4")
    ((3, 4, 5, 6), (4, 8))
    """
    numbers = decimal_range(text)
    if not all(number.is_integer() for number in numbers):
        raise ConfigError(f"{text!r} must hold whole numbers")
    return tuple(map(int, numbers))


def workers_range(text: str) -> dict[str, int]:
    """The settings that a number of workers gives, or a range from the fewest to the most.

    Raises:
        ConfigError: if it is neither.

    >>> workers_range("4"), workers_range("2:16")
    ({'workers': 4}, {'fewest_workers': 2, 'workers': 16})
    """
    fewest, colon, most = text.rpartition(":")
    try:
        return ({"fewest_workers": int(fewest)} if colon else {}) | {"workers": int(most)}
    except ValueError:
        raise ConfigError(f"--workers must be a number such as 4, or a range such as 2:16, not {text!r}") from None


def shard_of(text: str) -> tuple[int, int]:
    """Which share of how many: the two numbers of I/N, the first share being 1.

    Raises:
        ConfigError: it is no such text.

    >>> shard_of("2/4")
    (2, 4)
    """
    number, slash, of = text.partition("/")
    if slash and number.strip().isdecimal() and of.strip().isdecimal() and 1 <= int(number) <= int(of):
        return int(number), int(of)
    raise ConfigError(f"--shard must be I/N with I from 1 to N, such as 2/4 for the second of four, not {text!r}")


def shard(text: str) -> dict[str, str]:
    """The setting that `shard_of` accepts, written in one way.

    >>> shard(" 2/04")
    {'shard': '2/4'}
    """
    number, of = shard_of(text)
    return {"shard": f"{number}/{of}"}


def tau_or_auto(text: str) -> dict[str, Any]:
    """The settings of a threshold: a number, or auto, which is that of a fit.

    Raises:
        ConfigError: it is neither.

    >>> tau_or_auto("1.5"), tau_or_auto("auto")
    ({'tau': 1.5, 'tau_auto': False}, {'tau': None, 'tau_auto': True})
    """
    if text.strip() == "auto":
        return {"tau": None, "tau_auto": True}
    try:
        return {"tau": float(text), "tau_auto": False}
    except ValueError:
        raise ConfigError(f"{text!r} is neither a number nor auto") from None


def names_of_list(text: str) -> tuple[str, ...]:
    """The names of a list with commas.

    >>> names_of_list("msp, ratio")
    ('msp', 'ratio')
    """
    return tuple(name.strip() for name in text.split(","))


def refinement(text: str) -> tuple[str, int]:
    """A way to refine a score, and its radius.

    Raises:
        ConfigError: there is no such way, or the radius is none.

    >>> refinement("guided"), refinement("bilateral:3")
    (('guided', 8), ('bilateral', 3))
    """
    kind, colon, number = text.partition(":")
    radius = int(number) if number.isascii() and number.isdigit() else 0 if colon else REFINEMENTS.get(kind, 0)
    if kind not in REFINEMENTS or not 1 <= radius <= MOST_RADIUS:
        raise ConfigError(
            f"refine must be {' or '.join(REFINEMENTS)}, with a radius from 1 to {MOST_RADIUS} such as guided:8, not "
            f"{text!r}"
        )
    return kind, radius


LABEL_MEANINGS = ("id", "ood", "ignore")
"""What a code in a label file may mean."""


def label_codes(text: str) -> dict[str, frozenset[int]]:
    """The codes of each meaning, from a list such as `2=ood,1=id`; `a:b` stands for all codes from a to b.

    Raises:
        ConfigError: the text is no such list, a code lies outside 0..65535, or one has two meanings.

    >>> {meaning: sorted(codes) for meaning, codes in label_codes("0:2=id, 254=ood").items()}
    {'id': [0, 1, 2], 'ood': [254], 'ignore': []}
    """
    found: dict[str, set[int]] = {meaning: set() for meaning in LABEL_MEANINGS}
    for part in text.split(","):
        codes, equals, meaning = (piece.strip() for piece in part.partition("="))
        if not equals or meaning.lower() not in found:
            raise ConfigError(f"{part.strip()!r} says nothing of a label code: write CODE=id, CODE=ood or CODE=ignore")
        new = set(whole_range(codes))
        if not new <= set(range(65536)):
            raise ConfigError(f"{part.strip()!r}: codes in label files lie within 0..65535")
        twice = [code for code in sorted(new) if any(code in known for known in found.values())]
        if twice:
            raise ConfigError(f"the label code {twice[0]} is named twice in {text!r}")
        found[meaning.lower()] |= new
    return {meaning: frozenset(codes) for meaning, codes in found.items()}


def is_label_codes(text: str) -> bool:
    """Whether `label_codes` takes a text."""
    try:
        label_codes(text)
    except ConfigError:
        return False
    return True
