"""Keys of pixels as bytes, and tallies that are stored as such."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oodray.errors import ResultsError
from oodray.metrics.pixel_counts import PixelCounts, PixelKeys
from oodray.metrics.scales import Float32
from oodray.metrics.score_counts import ScoreCounts
from oodray.records import to_arrow
from oodray.results.packed_keys import pack, unpack
from oodray.results.rows import ScoreTally
from oodray.results.sums import score_counts, score_counts_by_row

LISTS = st.lists(st.one_of(st.integers(0, 300), st.integers(0, 2**32 - 1)), max_size=40)


def keys_of(*lists: list[int]) -> PixelKeys:
    return PixelKeys(*(np.sort(np.array(values, np.uint32)) for values in lists))


@given(LISTS, LISTS, LISTS)
def test_what_is_packed_comes_back(ood: list[int], ind: list[int], ignored: list[int]) -> None:
    keys = keys_of(ood, ind, ignored)
    found = unpack(pack(keys))
    for name in ("ood", "ind", "ignored"):
        assert getattr(found, name).tolist() == getattr(keys, name).tolist()
        assert getattr(found, name).dtype == np.uint32


@pytest.mark.parametrize("cut", [0, 5, 9, 12, -1])
def test_damaged_bytes_are_an_error(cut: int) -> None:
    data = pack(keys_of([1, 2, 70000], [5], []))
    with pytest.raises(ResultsError, match="are damaged"):
        unpack(data[:cut])
    with pytest.raises(ResultsError, match="are damaged"):
        unpack(data[:9] + b"\0" * 20 + data[20:])


def column(*tallies: ScoreTally) -> pa.ChunkedArray[Any]:
    entries = to_arrow(ScoreTally, tallies)
    return pa.chunked_array([pa.ListArray.from_arrays(pa.array(range(len(tallies) + 1), pa.int32()), entries)])


def tally(scores: np.ndarray, labels: np.ndarray) -> ScoreTally:
    return ScoreTally.of("s", "float32", Float32().keys(scores.astype(np.float32)), labels)


def test_scores_that_differ_are_stored_as_a_list_and_others_as_cells() -> None:
    random = np.random.default_rng(0)
    labels = random.choice(np.array([0, 1, 255], np.uint8), (8, 50))
    different, same = random.random((8, 50)), random.integers(0, 9, (8, 50))
    packed, cells = tally(different, labels), tally(same, labels)
    assert packed.packed is not None
    assert len(packed.keys) == len(packed.labels) == len(packed.counts) == 0
    assert cells.packed is None
    assert cells.counts.sum() == 400
    by_row = score_counts_by_row(column(packed, cells))
    assert isinstance(by_row[0]["s"], PixelCounts)
    assert not isinstance(by_row[1]["s"], PixelCounts)
    for scores, found in ((different, by_row[0]["s"]), (same, by_row[1]["s"])):
        ordered = Float32().keys(scores.astype(np.float32)).astype(np.uint32).ravel()
        expected = ScoreCounts.of(Float32(), ordered, labels.ravel(), np.ones(400, np.int64))
        assert found == expected
    together = score_counts(column(packed, cells))["s"]
    assert together.labelled_pixels() == tuple(2 * int((labels == label).sum()) for label in (1, 0))
    distinct = {key for row in by_row for key in row["s"].labelled().keys.tolist()}
    assert together.labelled().keys.tolist() == sorted(distinct)
