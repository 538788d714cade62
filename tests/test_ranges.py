from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oodray.errors import ConfigError
from oodray.ranges import decimal_range, names_of_list, whole_range, workers_range


def test_both_ends_and_every_decimal_are_in() -> None:
    assert decimal_range("0:1:0.01") == [float(Fraction(index, 100)) for index in range(101)]
    assert decimal_range("-2:12:0.05")[::280] == [-2.0, 12.0]
    assert decimal_range("1.5:1.5:0.1") == [1.5]


@given(st.integers(-500, 500), st.integers(0, 300), st.integers(1, 40))
def test_a_range_is_the_exact_multiples(start: int, steps: int, step: int) -> None:
    text = f"{start / 100}:{(start + steps * step) / 100}:{step / 100}"
    assert decimal_range(text) == [float(Fraction(start + index * step, 100)) for index in range(steps + 1)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no range"),
        ("a:b:c", "is no range"),
        ("1:2:3:4", "is no range"),
        ("2:1:0.5", "a must not be above b"),
        ("1:2:0", "the step must be above 0"),
        ("1:2:-1", "the step must be above 0"),
        ("0:1:0.3", "does not lead from 0 to 1"),
        ("0:inf:1", "not finite"),
        ("nan", "not finite"),
        ("0:1e9:0.001", "more than 1,000,000"),
    ],
)
def test_what_is_no_range_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decimal_range(text)


def test_whole_numbers() -> None:
    assert whole_range("3:10") == tuple(range(3, 11))
    assert whole_range("5") == (5,)
    with pytest.raises(ConfigError, match="whole numbers"):
        whole_range("3:5:0.5")


@pytest.mark.parametrize("text", ["", "four", "1.5", "2:", "2:x", "1:2:3"])
def test_what_is_no_number_of_workers_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--workers must be a number such as 4, or a range such as 2:16, not "):
        workers_range(text)


def test_a_list_keeps_its_order_and_its_empty_names() -> None:
    assert names_of_list("b,a , c") == ("b", "a", "c")
    assert names_of_list("") == ("",)


@pytest.mark.parametrize("text", ["3:1e999", "0:1e40", "0:1:1e-60"])
def test_more_steps_than_can_be_counted_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="numbers"):
        decimal_range(text)
