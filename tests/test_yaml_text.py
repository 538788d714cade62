"""YAML is read as version 1.2 says: the table of its core schema is the oracle."""

from __future__ import annotations

import math
from typing import Any

import pytest

from oodray.yaml_text import load_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # texts in 1.2, which PyYAML alone takes for numbers, dates and booleans
        *[(text, text) for text in ("2:16", "1:30:00", "1_000", "0b11", "yes", "No", "on", "OFF", "y", "2026-01-02")],
        *[(text, text) for text in ("1,5", "1e", "0x", "0o8", "+.inf.", "nan", "inf", "TrUe", "=", "12 %")],
        *[("1e-1", 0.1), ("1E3", 1000.0), ("+2.5e+1", 25.0), (".5", 0.5), ("5.", 5.0), ("-0.0", -0.0)],
        *[("0", 0), ("010", 10), ("-7", -7), ("+12", 12), ("0o17", 15), ("0xFf", 255)],
        *[("true", True), ("TRUE", True), ("False", False), ("", None), ("~", None), ("Null", None)],
        *[(".inf", math.inf), ("-.INF", -math.inf), ("'2'", "2"), ('"true"', "true")],
        *[("[1, 2:3]", [1, "2:3"]), ("\n- a\n- 1", ["a", 1])],
    ],
)
def test_values(text: str, value: Any) -> None:
    [(_, found)] = load_yaml(f"key: {text}").items()
    assert found == value
    assert type(found) is type(value)


def test_not_a_number() -> None:
    assert math.isnan(load_yaml(".nan"))


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "{a: 1, 'a': 1}", "b: {a: 1, a: 2}", "- a:\n  a:"])
def test_a_key_that_is_given_twice_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^a is given twice, in line \d and in line \d$"):
        load_yaml(text)


def test_what_a_merge_brings_may_be_given_again() -> None:
    text = "x: &x {a: 1, b: 1}\ny: &y\n  <<: *x\n  a: 2\nz:\n  <<: *y\n  b: 3"
    assert load_yaml(text)["y"] == {"a": 2, "b": 1}
    assert load_yaml(text)["z"] == {"a": 2, "b": 3}


def test_a_number_and_a_text_are_two_keys() -> None:
    assert load_yaml("1: a\n'1': b") == {1: "a", "1": "b"}


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "? [1]\n: 2",
        "a: 1\n---\nb: 2",
        "!!python/name:os.system",
        "- [<<]",
        "!!int x",
        "!!timestamp x",
        "!!bool x",
        "!!binary \u00fc",
        "!!omap x",
        "!!pairs [1]",
        "!!set [1]",
    ],
)
def test_what_is_no_yaml_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        load_yaml(text)
