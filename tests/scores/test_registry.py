"""Scores by name, and scores of one's own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import oodray
from oodray.errors import ConfigError
from oodray.scores.registry import (
    DEFAULT_SCORES,
    KNOWN,
    check_names,
    cluster_scores,
    names_of,
    pixel_scores,
    score_class,
    source_files,
)
from oodray.scores.score import NEEDS, PixelScore

MARGIN = """
import oodray

class Margin(oodray.PixelScore):
    name = "margin"
    help = "minus the distance between the two largest logits"

    def pixels(self, strip):
        first, second = strip.logits.topk(2, dim=0).values
        return second - first

class Nameless(oodray.PixelScore):
    def pixels(self, strip):
        return strip.confidence

class Energy(Margin):
    name = "energy"

class Wide(Margin):
    def pixels(self, strip):
        return strip.logits

class Unfinished(oodray.PixelScore):
    name, help = "unfinished", "nothing"

class Again(Margin):
    pass

class Needy(Margin):
    def __init__(self, what):
        pass

def function():
    pass
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_scores.py").write_text(MARGIN)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_scores", raising=False)
    return str(tmp_path)


def test_every_known_score_says_what_it_is() -> None:
    for name, score in KNOWN.items():
        assert score.name == name
        assert score.help
        assert not score.help.endswith(".")
        assert score.needs <= set(NEEDS)


def test_the_default_scores() -> None:
    assert check_names(()) == DEFAULT_SCORES
    assert [score.name for score in cluster_scores(DEFAULT_SCORES)] == ["ratio", "mask-then-logit"]
    assert [score.name for score in pixel_scores(DEFAULT_SCORES)] == ["max-logit", "msp", "entropy", "energy"]


def test_an_unknown_score() -> None:
    with pytest.raises(ConfigError, match=r"unknown score 'enrgy'; did you mean 'energy'.*package\.module:MyScore"):
        check_names(["enrgy"])


def test_a_score_of_ones_own(own: str) -> None:
    [score] = pixel_scores(["own_scores:Margin"], own)
    assert isinstance(score, PixelScore)
    assert names_of(["ratio", "own_scores:Margin"], own) == ("ratio", "margin")
    assert source_files(["own_scores:Margin", "energy"], own) == [Path(own) / "own_scores.py"]
    logits = torch.randn(5, 6, 8, generator=torch.Generator().manual_seed(0))
    segmentation = oodray.Segmentation(logits, logits)
    found = oodray.detect(np.zeros((6, 8, 3), np.uint8), segmentation, tau=0.0, scores=["energy", score])
    ordered = np.sort(logits.numpy(), axis=0)
    assert list(found.scores) == ["energy", "margin"]
    np.testing.assert_allclose(found.scores["margin"], ordered[-2] - ordered[-1], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("no_such_module:Margin", "cannot import the score no_such_module:Margin: ModuleNotFoundError"),
        ("own_scores:Missing", "cannot import the score own_scores:Missing: AttributeError"),
        ("own_scores:function", "must be a class derived from oodray.PixelScore"),
        ("own_scores:Nameless", "needs two texts as class attributes, name and help"),
        ("own_scores:Energy", "named 'energy', which is a score of oodray"),
        ("own_scores:Unfinished", "lacks the method pixels"),
    ],
)
def test_what_is_no_score(name: str, problem: str, own: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        score_class(name, own)


def test_two_scores_of_one_name(own: str) -> None:
    with pytest.raises(ConfigError, match="two of the scores are named 'margin'"):
        names_of(["own_scores:Margin", "own_scores:Again"], own)


def test_a_score_that_wants_arguments(own: str) -> None:
    with pytest.raises(ConfigError, match="the score own_scores:Needy cannot be made: TypeError"):
        pixel_scores(["own_scores:Needy"], own)


def test_a_score_of_another_shape_is_an_error_of_the_image(own: str) -> None:
    logits = torch.zeros(3, 4, 4)
    with pytest.raises(oodray.OodrayError, match=r"the score margin must give a floating tensor of the shape \(4, 4\)"):
        oodray.detect(
            np.zeros((4, 4, 3), np.uint8),
            oodray.Segmentation(logits, logits),
            tau=0.0,
            scores=pixel_scores(["own_scores:Wide"], own),
        )
