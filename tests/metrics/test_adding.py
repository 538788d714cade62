"""Tallies added up in place, against a count of them one by one; the compiled loop gives the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oodray.metrics.adding import LABELS, DenseCounts, Runs
from oodray.metrics.tally import KEY_COUNT

Cell = tuple[int, int, int]
"""Label, key and pixels."""

GROUPS = 2
CELLS = st.lists(
    st.tuples(st.sampled_from(LABELS), st.integers(0, KEY_COUNT - 1), st.integers(1, 2**52)), max_size=6
)  # in any order, and repeated: what a foreign tool has written may be
TABLES = st.lists(st.lists(st.tuples(st.integers(-1, GROUPS - 1), CELLS), max_size=5), max_size=4)
"""Tables of tallies, each with its group."""


def runs_of(tallies: list[list[Cell]]) -> tuple[Runs, list[np.ndarray]]:
    labels, keys, counts = np.array([cell for cells in tallies for cell in cells], np.int64).reshape(-1, 3).T
    lengths = np.array([len(cells) for cells in tallies], np.int64)
    return Runs.of(lengths, labels.astype(np.uint8)), [keys.astype(np.uint32), np.ascontiguousarray(counts)]


@pytest.mark.parametrize("compiled", [False, True])
@settings(max_examples=20)
@given(tables=TABLES)
def test_pixels_of_each_group(compiled: bool, tables: list[list[tuple[int, list[Cell]]]]) -> None:
    counts, expected = DenseCounts(compiled=compiled), Counter[tuple[int, int, int]]()
    for table in tables:
        group = np.array([number for number, _ in table], np.intp)
        runs, [keys, pixels] = runs_of([cells for _, cells in table])
        counts.add(runs, group[runs.owner], keys, pixels)
        for number, cells in table:
            for label, key, count in cells:
                expected[number, label, key] += count
    for number in range(GROUPS):
        found = counts.pixels(number)
        places = {(number, LABELS[row], key): int(found[row, key]) for row, key in np.argwhere(found).tolist()}
        assert places == {cell: count for cell, count in expected.items() if cell[0] == number}


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
@given(tallies=st.lists(CELLS, max_size=5), key=st.integers(0, KEY_COUNT))
def test_runs_are_neighbours_with_one_label_of_one_tally(
    dtype: type[np.unsignedinteger], tallies: list[list[Cell]], key: int
) -> None:
    runs, [keys, pixels] = runs_of(tallies)
    keys = keys.astype(dtype)
    for array in (keys, pixels):
        array.flags.writeable = False  # as those of Arrow
    cells = [(owner, label) for owner, tally in enumerate(tallies) for label, _, _ in tally]
    of_cells = np.repeat(np.arange(len(runs.starts)), runs.lengths)
    assert [(runs.owner[run], runs.labels[run]) for run in of_cells] == cells
    assert runs.starts.tolist() == [at for at in range(len(cells)) if not at or cells[at] != cells[at - 1]]
    for compiled in (False, True):
        whole, below = runs.pixels(keys, pixels, key, compiled=compiled)
        for run in range(len(runs.starts)):
            chosen = of_cells == run
            assert whole[run] == pixels[chosen].sum()
            assert below[run] == pixels[chosen & (keys < key)].sum()


@given(tallies=st.lists(CELLS, max_size=5))
def test_runs_of_tallies_in_order_follow_from_how_many_cells_have_each_label(tallies: list[list[Cell]]) -> None:
    tallies = [sorted(cells) for cells in tallies]
    expected, _ = runs_of(tallies)
    cells = [[sum(label == of for of, _, _ in tally) for label in LABELS] for tally in tallies]
    found = Runs.of_labels(np.array(cells, np.int32).reshape(-1, 3))
    for name in ("starts", "lengths", "owner", "labels"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()


def test_an_unknown_label_is_refused() -> None:
    runs = Runs.of(np.array([1]), np.array([7], np.uint8))
    with pytest.raises(ValueError, match="unknown labels 7"):
        DenseCounts().add(runs, np.zeros(1, np.intp), np.zeros(1, np.uint16), np.ones(1, np.int64))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_key_of_more_than_16_bits_is_refused_where_it_counts(compiled: bool) -> None:
    runs = Runs.of(np.array([2]), np.zeros(2, np.uint8))
    counts, [keys, pixels] = DenseCounts(compiled=compiled), [np.array([3, KEY_COUNT], np.uint32), np.ones(2, np.int64)]
    with pytest.raises(ValueError, match="a key is not below 65536"):
        counts.add(runs, np.zeros(1, np.intp), keys, pixels)
    counts.add(runs, np.full(1, -1), keys, pixels)


def test_a_group_that_nothing_counts_for_has_no_pixels() -> None:
    assert DenseCounts().pixels(2).shape == (3, KEY_COUNT)
    assert not DenseCounts().pixels(2).any()
