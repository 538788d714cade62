from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pytest

from oodray.settings import About, Setting, declared_settings, one_of, seconds, whole


@dataclass(frozen=True)
class Example:
    """Settings of all types."""

    name: Annotated[str, About("A name")]
    count: Annotated[int, About("How many", whole(2, 4))] = 3
    share: Annotated[float | None, About("How much", unset="all")] = None
    names: Annotated[tuple[str, ...], About("Names", option="--list")] = ()
    numbers: Annotated[tuple[int, ...], About("Numbers")] = (1,)
    on_off: Annotated[bool, About("Whether")] = False


SETTINGS = declared_settings(Example)


def test_name_type_and_default_are_those_of_the_declaration() -> None:
    found = [(each.name, each.type, each.may_be_none, each.default) for each in SETTINGS.values()]
    assert found == [
        ("name", str, False, None),
        ("count", int, False, 3),
        ("share", float, True, None),
        ("names", tuple[str, ...], False, ()),
        ("numbers", tuple[int, ...], False, (1,)),
        ("on_off", bool, False, False),
    ]
    assert list(SETTINGS) == [name for name, *_ in found]


def test_an_option_is_called_as_its_setting_unless_it_says_otherwise() -> None:
    assert SETTINGS["on_off"].option == "--on-off"
    assert SETTINGS["names"].option == "--list"


def test_the_help_says_what_is_taken_where_nothing_is_given() -> None:
    assert SETTINGS["share"].help == "How much; by default all."
    assert SETTINGS["count"].help == "How many."


@pytest.mark.parametrize(
    ("name", "value", "converted"),
    [
        ("name", "a", "a"),
        ("count", 7, 7),
        ("share", 1, 1.0),
        ("share", None, None),
        ("names", ["a", "b"], ("a", "b")),
        ("names", (), ()),
        ("numbers", [1, 2], (1, 2)),
        ("numbers", range(1, 3), (1, 2)),
        ("on_off", True, True),
        ("count", np.int64(3), 3),
        ("share", np.float64(0.5), 0.5),
        ("share", np.float32(0.5), 0.5),
        ("share", np.uint8(1), 1.0),
        ("numbers", [np.int64(1), 2], (1, 2)),
        ("numbers", np.arange(1, 3), (1, 2)),
        ("names", np.array(["a", "b"]), ("a", "b")),
    ],
)
def test_values_become_of_the_type(name: str, value: Any, converted: Any) -> None:
    found = SETTINGS[name].converted(value)
    assert found == converted
    assert type(found) is type(converted)
    if isinstance(found, tuple):
        assert [*map(type, found)] == [*map(type, converted)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", None),
        ("name", 1),
        ("count", 1.0),
        ("count", True),
        ("share", True),
        ("share", "1"),
        ("names", "ab"),
        ("names", ["a", None]),
        ("names", range(2)),
        ("names", {"a"}),
        ("numbers", [1, True]),
        ("numbers", [1.0]),
        ("on_off", 1),
        ("on_off", np.int64(1)),
        ("count", np.True_),
        ("count", np.float64(3)),
        ("count", np.array(3)),
        ("share", np.True_),
        ("numbers", np.array([True])),
        ("numbers", [np.True_]),
        ("numbers", np.array([1.0])),
        ("numbers", np.array([[1]])),
        ("numbers", np.int64(1)),
    ],
)
def test_others_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"^$"):
        SETTINGS[name].converted(value)


def test_a_number_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(OverflowError):
        SETTINGS["share"].converted(10**400)


def test_checks_take_their_ends() -> None:
    count: Setting = SETTINGS["count"]
    assert [count.accepts(value) for value in (1, 2, 4, 5)] == [False, True, True, False]
    assert SETTINGS["share"].accepts(None)
    assert [seconds("").accepts(value) for value in (0, 1e9, -1, float("inf"), float("nan"))] == [
        True,
        True,
        *[False] * 3,
    ]
    assert one_of(["a", "b"]).expected == "one of a, b"
    assert not one_of(["a", "b"]).accepts("ab")
