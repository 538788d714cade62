"""Counts of scores add up in any order, for keys of 16 and of 32 bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oodray.errors import ResultsError
from oodray.metrics.scales import Float32, Real, Scale
from oodray.metrics.score_counts import RunningCounts, ScoreCounts

CELLS = st.lists(
    st.tuples(st.sampled_from([0, 1, 2, 7, 65535]), st.sampled_from([0, 1, 255]), st.integers(1, 10**12)), max_size=12
)
SCALES: list[Scale] = [Real(), Float32()]


def counts_of(scale: Scale, cells: list[tuple[int, int, int]]) -> ScoreCounts:
    keys, labels, counts = zip(*cells, strict=True) if cells else ((), (), ())
    dtype = np.uint32 if scale == Float32() else np.uint16
    return ScoreCounts.of(scale, np.array(keys, dtype), np.array(labels, np.uint8), np.array(counts, np.int64))


def expected(cells: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    found: dict[int, list[int]] = {}
    for key, label, count in cells:
        if label != 255:
            found.setdefault(key, [0, 0])[1 - label] += count
    return [(key, found[key][0], found[key][1]) for key in sorted(found)]


def rows(counts: ScoreCounts) -> list[tuple[int, int, int]]:
    found = counts.labelled()
    return list(zip(found.keys.tolist(), found.ood.tolist(), found.ind.tolist(), strict=True))


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: scale.name)
@given(parts=st.lists(CELLS, min_size=1, max_size=6))
def test_sums(scale: Scale, parts: list[list[tuple[int, int, int]]]) -> None:
    running = RunningCounts()
    for part in parts:
        found = counts_of(scale, part)
        assert rows(found) == expected(part)
        running.add(found)
    assert rows(running.total()) == expected([cell for part in parts for cell in part])


def test_two_scales_do_not_add_up() -> None:
    running = RunningCounts()
    running.add(counts_of(Real(), [(1, 1, 1)]))
    with pytest.raises(ResultsError, match=r"two scales, real:0\.0:4\.0 and real:1\.0:4\.0"):
        running.add(counts_of(Real(1.0), [(1, 1, 1)]))


def test_the_largest_tie() -> None:
    assert counts_of(Float32(), [(1, 0, 3), (1, 1, 4), (9, 0, 3), (5, 255, 100)]).largest_tie() == 0.7
    assert counts_of(Float32(), [(5, 255, 100)]).largest_tie() == 0.0
