"""What reports say in words, of every value that they meet."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from oodray.analysis.evaluation import Evaluation
from oodray.metrics.conventions import Convention, make_convention, mean_measures
from oodray.metrics.curves import OperatingPoint
from oodray.metrics.evaluation import score_metrics
from oodray.metrics.evaluators import LIKE
from oodray.report.words import (
    conventions_text,
    duration_text,
    one_line,
    percent,
    rate_text,
    threshold_text,
    why_empty,
    without_maps_text,
    without_threshold_text,
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


def evaluated(
    convention: Convention, *, ood: int, ind: int, ap: float = math.nan, lacking: int | None = None
) -> Evaluation:
    every, own = (
        score_metrics("s", replace(NO_MEASURES, ap=ap), rules, pixels=(ood, ind))
        for rules in (Convention(), convention)
    )
    mask = OperatingPoint(0, 0, 0, 0, 0)
    return Evaluation(None, 7, 1, [every, own], mask, conventions=(Convention(), convention), lacking=lacking)


NO_MEASURES = mean_measures([])
BY_IMAGE = make_convention({"pooling": "image"})
DROPPING = make_convention({"pooling": "image", "lacking": "drop"})


@pytest.mark.parametrize(
    ("convention", "ood", "ind", "reason"),
    [
        (LIKE["rba"], 0, 0, "no image has a label."),
        (LIKE["rba"], 0, 9, "no labelled pixel is OoD."),
        (LIKE["rba"], 9, 0, "no labelled pixel is in-distribution."),
        (BY_IMAGE, 9, 9, "5 of 7 images lack an OoD or an in-distribution pixel, and so have no metric of their own; "),
        (BY_IMAGE, 9, 0, "no labelled pixel is in-distribution."),
        (DROPPING, 9, 9, "no image that is left has both"),
    ],
)
def test_an_empty_cell_says_why(convention: Convention, ood: int, ind: int, reason: str) -> None:
    told = why_empty(evaluated(convention, ood=ood, ind=ind, lacking=5), convention)
    assert told.startswith(f"No value (-): {reason}")
    assert ("--lacking drop" in told) == ("5 of 7" in told)
    assert why_empty(evaluated(convention, ood=9, ind=9, ap=0.5), convention) == ""


def test_scores_without_a_threshold_are_named_with_the_option() -> None:
    assert without_threshold_text([]) == ""
    assert without_threshold_text(["knn", "msp"]).startswith(" Without knn, msp: the threshold of the best F1 needs")
