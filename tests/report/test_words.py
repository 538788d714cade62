"""What reports say in words, of every value that they meet."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from oodray.metrics.conventions import Convention, make_convention
from oodray.metrics.evaluators import LIKE
from oodray.report.words import (
    conventions_text,
    duration_text,
    one_line,
    percent,
    rate_text,
    threshold_text,
    without_maps_text,
)


@pytest.mark.parametrize(
    ("rate", "text"), [(0.001, "0.001"), (0.999, "1"), (1, "1.0"), (9.94, "9.9"), (1234.5, "1234")]
)
def test_rates_have_two_digits(rate: float, text: str) -> None:
    assert rate_text(rate) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.5, "1:00"), (3599.4, "59:59"), (3599.5, "1:00:00")])
def test_durations_round_before_they_are_split(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_shares_and_thresholds_that_are_not_there_are_a_dash() -> None:
    assert [percent(share) for share in (0.0, 1.0, math.nan)] == ["0.00", "100.00", "-"]
    assert [threshold_text(threshold) for threshold in (0.0, -123456.0, None)] == ["0", "-1.235e+05", "-"]


def test_scores_without_maps_are_named_with_the_option() -> None:
    assert without_maps_text(["msp", "energy"]).startswith(" Without msp, energy: the run keeps no maps of them; ")
    assert "--keep-maps msp,energy" in without_maps_text(["msp", "energy"])


def test_control_characters_do_not_reach_a_terminal() -> None:
    assert one_line("a\x1b[31m\tb\r\n\u2028c") == "a [31m b c"


@pytest.mark.parametrize("name", LIKE)
def test_every_evaluator_is_told_apart(name: str) -> None:
    text = conventions_text(LIKE[name])
    assert text.startswith(f"As {name} measures. ")
    others = {conventions_text(replace(convention, like=name)) for other, convention in LIKE.items() if other != name}
    alike = {"smiyc", "issu"}  # the same rules: ISSU took them over
    assert (text in others) == (name in alike)


def test_what_an_evaluator_does_beyond_is_said_where_it_is_not_done() -> None:
    pebal = LIKE["pebal"]
    assert "--blur" in conventions_text(pebal)
    assert "--blur" not in conventions_text(pebal, blurred=True)
    assert conventions_text(pebal, blurred=True, exact=True).endswith("Not reproduced: nothing.")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"pooling": "image"}, "Means over the images' own metrics"),
        ({"lacking": "drop"}, "Images without OoD or without in-distribution pixels are left out."),
        ({"ap_rule": "trapezoid"}, "AP is the trapezoid"),
        ({"fpr_rule": "linear"}, "where a straight line between two thresholds"),
    ],
)
def test_every_choice_is_said(asked: dict[str, str], told: str) -> None:
    assert told in conventions_text(make_convention(asked))
    assert told not in conventions_text(Convention())
