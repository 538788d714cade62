from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oodray.metrics.cells import Cells
from oodray.metrics.tally import KEY_COUNT, Tally

Row = tuple[int, int, int, int]
"""Owner, key, label and count of a cell."""

OWNERS = 4
ROWS = st.lists(
    st.tuples(
        st.integers(0, OWNERS - 1), st.integers(0, KEY_COUNT - 1), st.sampled_from([0, 1, 255]), st.integers(1, 2**26)
    ),
    max_size=12,
)


def cells_of(rows: list[Row], owners: int = OWNERS) -> Cells:
    owner, keys, labels, counts = np.array(rows, np.int64).reshape(-1, 4).T
    return Cells(owners, owner.astype(np.intp), keys.astype(np.uint16), labels.astype(np.uint8), counts)


def rows_of(cells: Cells) -> list[Row]:
    columns = (cells.owner, cells.keys, cells.labels, cells.counts)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@given(ROWS, st.lists(st.integers(0, KEY_COUNT), min_size=1, max_size=5))
def test_below_counts_the_smaller_keys_of_each_tally(rows: list[Row], keys: list[int]) -> None:
    keys.sort()
    expected = [
        [sum(count for of, at, _, count in rows if of == owner and at < key) for owner in range(OWNERS)] for key in keys
    ]
    found = cells_of(rows).below(keys)
    assert found.dtype == np.int32
    assert found.tolist() == expected


@given(ROWS)
def test_pixels_by_owner(rows: list[Row]) -> None:
    cells = cells_of(rows)
    expected = Counter(dict.fromkeys(range(OWNERS), 0))
    for owner, _, label, count in rows:
        expected[owner] += count * (label == 1)
    assert cells.pixels_by_owner(cells.labels == 1).tolist() == [expected[owner] for owner in range(OWNERS)]


@given(ROWS)
def test_the_tally_of_chosen_cells(rows: list[Row]) -> None:
    cells = cells_of(rows)
    chosen = [row[1:] for row in rows if row[0] == 2]
    expected = Tally.sum(Tally.from_arrays([key], [label], [count]) for key, label, count in chosen)
    assert cells.tally(cells.owner == 2) == expected


@given(ROWS, st.lists(st.booleans(), min_size=OWNERS, max_size=OWNERS))
def test_the_cells_of_some_tallies(rows: list[Row], chosen: list[bool]) -> None:
    number = {owner: index for index, owner in enumerate(np.flatnonzero(chosen).tolist())}
    found = cells_of(rows).of_owners(np.array(chosen))
    assert found.owners == len(number)
    assert rows_of(found) == [(number[owner], *rest) for owner, *rest in rows if owner in number]


@given(st.lists(ROWS, min_size=1, max_size=4))
def test_joined_tallies_follow_each_other(parts: list[list[Row]]) -> None:
    found = Cells.join([cells_of(rows, OWNERS + index) for index, rows in enumerate(parts)])
    expected, start = [], 0
    for index, rows in enumerate(parts):
        expected += [(owner + start, *rest) for owner, *rest in rows]
        start += OWNERS + index
    assert found.owners == start
    assert rows_of(found) == expected
    assert [found.owner.dtype.name, found.keys.dtype.name, found.labels.dtype.name] == ["int64", "uint16", "uint8"]


def test_nothing_is_joined_to_something() -> None:
    found = Cells.join([cells_of([], owners=0), cells_of([(0, 7, 1, 3)], owners=1), cells_of([], owners=2)])
    assert (found.owners, rows_of(found)) == (3, [(0, 7, 1, 3)])


@pytest.mark.parametrize("owners", [0, 3])
def test_no_cells(owners: int) -> None:
    cells = cells_of([], owners)
    assert cells.below([5, 9]).tolist() == [[0] * owners] * 2
    assert cells.pixels_by_owner(cells.labels == 1).tolist() == [0] * owners
    assert cells.tally(cells.labels == 1).pixels() == 0
