"""Long lists in blocks and ranges against the same done at once, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oodray.metrics import long_lists
from oodray.metrics.curve import ApRule, Curve, FprRule
from oodray.metrics.long_lists import blocks, range_edges, sorted_together

FPR_RULES: list[FprRule] = [">=", ">", "nearest", "nearest-last", "linear"]
AP_RULES: list[ApRule] = ["step", "trapezoid"]


@contextmanager
def short(block: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_lists, "_BLOCK", block)
        patch.setattr(long_lists, "_IN_CACHE", block)
        yield


@given(st.lists(st.lists(st.integers(0, 20), max_size=20), min_size=1, max_size=5), st.integers(1, 8))
def test_lists_are_sorted_together(lists: list[list[int]], size: int) -> None:
    with short(size):
        found = sorted_together([np.array(sorted(values), np.uint32) for values in lists])
    assert found.dtype == np.uint32
    assert found.tolist() == sorted(value for values in lists for value in values)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 10])
def test_blocks_are_all_entries_once(count: int) -> None:
    with short(4):
        assert [place for block in blocks(count) for place in range(count)[block]] == [*range(count)]


def test_few_entries_are_one_range() -> None:
    assert range_edges([np.arange(7)], at_once=4) == []
    assert range_edges([np.arange(8)], at_once=4) == [4]


def read(curve: Curve) -> list[object]:
    """Whatever is read from a curve."""
    return [
        *(curve.average_precision(rule) for rule in AP_RULES),
        *(
            curve.fpr_at_tpr(tpr, rule, thinned=thinned)
            for rule in FPR_RULES
            for tpr in (0.05, 0.5, 0.95, 1.0)
            for thinned in (False, True)
        ),
        curve.auroc(),
        curve.best_f1(),
        curve.detection_error(),
    ]


@pytest.mark.parametrize("weight", [None, 0.3])
def test_what_is_read_from_a_curve_in_blocks_is_the_same(weight: float | None) -> None:
    random = np.random.default_rng(5)
    for length in (1, 2, 3, 9, 50, 400):
        ood, ind = random.integers(0, 3, (2, length))
        ood[0], ind[-1] = 1, 1
        weighed = (ood, ind) if weight is None else (ood * weight, ind * weight)
        at_once = read(Curve.of(*weighed))
        with short(7):
            assert read(Curve.of(*weighed)) == at_once, (length, ood, ind)


@pytest.mark.parametrize("thinned", [False, True])
def test_the_nearest_tpr_is_that_of_all_points(thinned: bool) -> None:
    random = np.random.default_rng(6)
    for length in random.integers(1, 60, 200).tolist():
        ood, ind = random.integers(0, 4, (2, length))
        ood[0], ind[-1] = 1, 1
        curve, tpr = Curve.of(ood, ind), float(random.random())
        points = np.flatnonzero(curve.kept) if thinned else np.arange(len(curve.found))
        shares = np.concatenate([[0.0], curve.found[points] / curve.found[-1]])
        called = np.concatenate([[0], curve.alarms[points]])
        wanted = called[np.argmin(np.abs(shares - tpr))] / curve.ind
        assert curve.fpr_at_tpr(tpr, "nearest", thinned=thinned) == wanted
