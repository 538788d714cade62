from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from oodray.metrics.tally import (
    IGNORE,
    IN_DISTRIBUTION,
    KEY_COUNT,
    OOD,
    Tally,
    cluster_tallies,
    first_key_at_least,
    key_scores,
    score_keys,
)

LABELS = (IN_DISTRIBUTION, OOD, IGNORE)
LARGEST = 65504.0
SMALLEST = 2.0**-24  # the smallest positive float16, a subnormal


def finite_scores() -> NDArray[np.float16]:
    patterns = np.arange(KEY_COUNT, dtype=np.uint16).view(np.float16)
    return patterns[np.isfinite(patterns)]


Cells = dict[tuple[int, int], int]

# Few keys, so that tallies share cells.
cells = st.dictionaries(
    st.tuples(st.sampled_from(LABELS), st.sampled_from([0, 1, 2, 0x7FFF, 0x8000, 0xFFFF])),
    st.integers(1, 10**15),
)


def tally_of(cells: Cells) -> Tally:
    rows = [(key, label, count) for (label, key), count in cells.items()]
    return Tally.from_arrays(*zip(*rows, strict=True)) if rows else Tally.sum([])


def cells_of(tally: Tally) -> Cells:
    rows = zip(tally.labels.tolist(), tally.keys.tolist(), tally.counts.tolist(), strict=True)
    return {(label, key): count for label, key, count in rows}


tallies = cells.map(tally_of)


@st.composite
def pixel_maps(draw: st.DrawFn) -> tuple[NDArray[np.uint8], NDArray[np.uint16], NDArray[np.uint8]]:
    """Clusters, keys and labels of one image, which may have no pixel."""
    shape = draw(st.tuples(st.integers(0, 6), st.integers(0, 6)))
    return (
        draw(npst.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 7, 254, 255]))),
        draw(npst.arrays(np.uint16, shape)),
        draw(npst.arrays(np.uint8, shape, elements=st.sampled_from(LABELS))),
    )


class TestKeys:
    def test_every_finite_score_is_ordered_by_its_key(self) -> None:
        scores = finite_scores()
        assert scores.size == 63488
        scores = scores[np.argsort(scores.astype(np.float64), kind="stable")]
        steps = np.diff(scores.astype(np.float64))
        key_steps = np.diff(score_keys(scores).astype(np.int64))
        assert np.array_equal(np.sign(steps), np.sign(key_steps))
        assert np.count_nonzero(key_steps == 0) == 1  # -0 and +0

    def test_every_finite_score_comes_back_from_its_key(self) -> None:
        scores = finite_scores()
        returned = key_scores(score_keys(scores))
        assert np.array_equal(returned, scores)
        unchanged = scores.view(np.uint16) != 0x8000  # all but -0
        assert np.array_equal(returned.view(np.uint16)[unchanged], scores.view(np.uint16)[unchanged])

    def test_minus_zero_is_plus_zero(self) -> None:
        zeros = np.array([-0.0, 0.0], np.float16)
        assert np.signbit(zeros).tolist() == [True, False]
        assert len(set(score_keys(zeros).tolist())) == 1
        assert np.signbit(key_scores(score_keys(zeros))).tolist() == [False, False]

    @pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3)])
    def test_shape_is_kept(self, shape: tuple[int, ...]) -> None:
        keys = score_keys(np.ones(shape, np.float16))
        assert keys.shape == key_scores(keys).shape == shape
        assert keys.dtype == np.uint16
        assert key_scores(keys).dtype == np.float16

    def test_strided_and_read_only_scores(self) -> None:
        scores = np.arange(-6, 6, dtype=np.float16).reshape(3, 4)
        scores.flags.writeable = False
        assert np.array_equal(score_keys(scores.T[::2]), score_keys(scores).T[::2])

    @pytest.mark.parametrize("hostile", [np.nan, np.inf, -np.inf])
    def test_scores_without_a_key(self, hostile: float) -> None:
        with pytest.raises(ValueError, match="NaN or infinity"):
            score_keys(np.array([[1.0, hostile]], np.float16))

    @pytest.mark.parametrize("dtype", ["f4", "u2", ">f2"])
    def test_scores_of_another_type(self, dtype: str) -> None:
        with pytest.raises(TypeError, match="float16"):
            score_keys(np.ones(2, dtype))

    @pytest.mark.parametrize("key", [0, 0x8000 - 0x7C00, 0x8000 + 0x7C00, 0xFFFF])
    def test_keys_without_a_score(self, key: int) -> None:
        with pytest.raises(ValueError, match=r"1025\.\.64511"):
            key_scores(np.array([key], np.uint16))

    def test_keys_of_another_type(self) -> None:
        with pytest.raises(TypeError, match="uint16"):
            key_scores(np.array([40000]))


class TestFirstKeyAtLeast:
    scores = finite_scores()
    keys = score_keys(scores)

    def assert_cuts_like_the_threshold(self, threshold: float) -> None:
        below = self.scores.astype(np.float64) < threshold
        assert np.array_equal(self.keys < first_key_at_least(threshold), below)

    @pytest.mark.parametrize(
        "threshold",
        [
            *(0.0, -0.0, 1.0, 1.1, 1.5, -1.1, 0.1, 1 / 3, 1000.3),
            *(
                SMALLEST,
                -SMALLEST,
                SMALLEST / 2,
                -SMALLEST / 2,
                SMALLEST * 1.5,
                1e-300,
                -1e-300,
                5e-324,
                -5e-324,
            ),
            *(2.0**-14, np.nextafter(2.0**-14, 0), np.nextafter(2.0**-14, 1)),  # the smallest normal float16
            *(LARGEST, -LARGEST, 65519.99, -65519.99, 65520.0, -65520.0, 1e308, -1e308, np.inf, -np.inf),
            *(np.nextafter(LARGEST, np.inf), np.nextafter(-LARGEST, -np.inf), np.nextafter(-LARGEST, 0)),
            *(
                np.nextafter(1.0, 2),
                np.nextafter(1.0, 0),
                1 + 2.0**-11,
                1 + 3 * 2.0**-11,
            ),  # also float16 ties
        ],
    )
    def test_chosen_thresholds(self, threshold: float) -> None:
        self.assert_cuts_like_the_threshold(threshold)

    @given(st.floats(allow_nan=False) | st.floats(-20, 20) | st.floats(-1e-7, 1e-7))
    def test_any_threshold(self, threshold: float) -> None:
        self.assert_cuts_like_the_threshold(threshold)

    @given(st.integers(0, 63487), st.sampled_from([-np.inf, np.inf]))
    def test_next_to_a_score(self, index: int, side: float) -> None:
        self.assert_cuts_like_the_threshold(float(np.nextafter(np.float64(self.scores[index]), side)))

    def test_a_score_is_at_least_itself(self) -> None:
        thresholds = self.scores.tolist()
        assert [first_key_at_least(threshold) for threshold in thresholds] == self.keys.tolist()

    def test_the_threshold_is_not_rounded_to_float16(self) -> None:
        threshold = 1.1
        rounded = np.float16(threshold)
        assert float(rounded) < threshold
        assert int(score_keys(np.array(rounded))) < first_key_at_least(threshold)

    def test_result_stays_below_key_count(self) -> None:
        assert int(self.keys.max()) < first_key_at_least(np.inf) < KEY_COUNT

    def test_nan(self) -> None:
        with pytest.raises(ValueError, match="NaN"):
            first_key_at_least(float("nan"))


class TestTally:
    @given(pixel_maps())
    def test_counts_pixels(self, maps: tuple[NDArray[np.uint8], NDArray[np.uint16], NDArray[np.uint8]]) -> None:
        _, keys, labels = maps
        expected: Cells = {}
        for cell in zip(labels.ravel().tolist(), keys.ravel().tolist(), strict=True):
            expected[cell] = expected.get(cell, 0) + 1
        assert cells_of(Tally.of(keys, labels)) == expected

    @given(cells)
    def test_rows_are_typed_sorted_and_unique(self, cells: Cells) -> None:
        tally = tally_of(cells)
        assert [column.dtype for column in (tally.keys, tally.labels, tally.counts)] == ["u2", "u1", "i8"]
        assert list(cells_of(tally).items()) == sorted(cells.items())

    @given(cells, st.none() | st.sampled_from(LABELS), st.integers(0, KEY_COUNT))
    def test_queries(self, cells: Cells, label: int | None, key: int) -> None:
        tally = tally_of(cells)
        assert tally.pixels(label) == sum(n for (of, _), n in cells.items() if label in (None, of))
        assert tally.below(key) == sum(n for (_, at), n in cells.items() if at < key)

    @given(cells, st.sampled_from(LABELS))
    def test_dense(self, cells: Cells, label: int) -> None:
        dense = tally_of(cells).dense(label)
        assert dense.shape == (KEY_COUNT,)
        assert dense.dtype == np.int64
        held = np.flatnonzero(dense)
        expected = {key: count for (of, key), count in cells.items() if of == label}
        assert dict(zip(held.tolist(), dense[held].tolist(), strict=True)) == expected

    def test_counts_of_a_quadrillion_pixels_stay_exact(self) -> None:
        huge = Tally.from_arrays([5], [OOD], [10**15 + 1])
        total = Tally.sum([huge] * 1000 + [Tally.from_arrays([5], [OOD], [1])])
        assert total.counts.tolist() == [1000 * (10**15 + 1) + 1]
        assert (total.pixels(), total.below(6)) == (10**18 + 1001, 10**18 + 1001)

    def test_from_arrays_merges_and_drops(self) -> None:
        merged = Tally.from_arrays([9, 3, 9, 4], [OOD, IGNORE, OOD, OOD], [2**62, 1, 3, 0])
        assert cells_of(merged) == {(OOD, 9): 2**62 + 3, (IGNORE, 3): 1}

    @given(tallies)
    def test_constructor_takes_the_rows_of_a_tally(self, tally: Tally) -> None:
        stored = [np.array(column.tolist(), np.int64) for column in (tally.keys, tally.labels, tally.counts)]
        assert Tally(*stored) == tally  # type: ignore[arg-type]
        assert Tally.from_arrays(*stored) == tally

    def test_empty(self) -> None:
        empty = Tally.sum([])
        assert (
            empty == Tally.from_arrays([], [], []) == Tally.of(np.zeros((0, 4), np.uint16), np.zeros((0, 4), np.uint8))
        )
        assert (empty.pixels(), empty.pixels(OOD), empty.below(KEY_COUNT), empty.dense(OOD).sum()) == (
            0,
            0,
            0,
            0,
        )


class TestMerging:
    @given(cells, cells)
    def test_adds_cell_by_cell(self, left: Cells, right: Cells) -> None:
        expected = {cell: left.get(cell, 0) + right.get(cell, 0) for cell in left.keys() | right.keys()}
        assert cells_of(tally_of(left) + tally_of(right)) == expected

    @given(tallies, tallies)
    def test_commutative(self, left: Tally, right: Tally) -> None:
        assert left + right == right + left

    @given(tallies, tallies, tallies)
    def test_associative(self, first: Tally, second: Tally, third: Tally) -> None:
        assert (first + second) + third == first + (second + third) == Tally.sum(iter([first, second, third]))

    @given(tallies)
    def test_neutral_element(self, tally: Tally) -> None:
        assert tally + Tally.sum([]) == tally == Tally.sum([]) + tally == Tally.sum([tally])

    @given(pixel_maps(), st.integers(0, 6))
    def test_parts_of_an_image_add_up_to_it(
        self, maps: tuple[NDArray[np.uint8], NDArray[np.uint16], NDArray[np.uint8]], cut: int
    ) -> None:
        _, keys, labels = maps
        parts = Tally.of(keys[:cut], labels[:cut]), Tally.of(keys[cut:], labels[cut:])
        assert Tally.sum(parts) == Tally.of(keys, labels)

    def test_only_tallies_add(self) -> None:
        with pytest.raises(TypeError):
            Tally.sum([]) + 0


class TestImmutability:
    tally = Tally.from_arrays([1, 2], [OOD, IGNORE], [3, 4])

    @pytest.mark.parametrize("name", ["keys", "labels", "counts"])
    def test_arrays_are_read_only_and_own(self, name: str) -> None:
        for tally in (self.tally, pickle.loads(pickle.dumps(self.tally)), copy.deepcopy(self.tally)):
            with pytest.raises(ValueError, match="read-only"):
                getattr(tally, name)[0] = 0
            with pytest.raises(AttributeError):
                setattr(tally, name, np.zeros(2))

    def test_callers_arrays_are_left_alone(self) -> None:
        counts = np.array([3, 4])
        tally = Tally.from_arrays([1, 2], [OOD, IGNORE], counts)
        direct = Tally(tally.keys, tally.labels, counts)
        counts[:] = 0
        assert tally == direct == self.tally

    def test_pickle_keeps_the_value(self) -> None:
        assert pickle.loads(pickle.dumps(self.tally)) == self.tally

    def test_differs(self) -> None:
        others = [
            ([1, 3], [OOD, IGNORE], [3, 4]),
            ([1, 2], [OOD, OOD], [3, 4]),
            ([1, 2], [OOD, IGNORE], [3, 5]),
        ]
        assert all(self.tally != Tally.from_arrays(*other) for other in [*others, ([1], [OOD], [3])])
        assert self.tally != "tally"

    def test_not_hashable(self) -> None:
        with pytest.raises(TypeError, match="unhashable"):
            hash(self.tally)


class TestClusterTallies:
    @given(pixel_maps())
    def test_each_is_the_tally_of_its_pixels(
        self, maps: tuple[NDArray[np.uint8], NDArray[np.uint16], NDArray[np.uint8]]
    ) -> None:
        clusters, keys, labels = maps
        expected = {
            int(cluster): Tally.of(keys[clusters == cluster], labels[clusters == cluster])
            for cluster in np.unique(clusters)
        }
        found = cluster_tallies(clusters, keys, labels)
        assert found == expected
        assert list(found) == list(expected)
        assert Tally.sum(found.values()) == Tally.of(keys, labels)

    def test_shares_below_a_threshold(self) -> None:
        rng = np.random.default_rng(3)
        confidence = rng.normal(1, 2, (40, 30)).astype(np.float16)
        clusters = rng.integers(0, 5, (40, 30), dtype=np.uint8)
        labels = rng.choice(np.array(LABELS, np.uint8), (40, 30))
        for cluster, tally in cluster_tallies(clusters, score_keys(confidence), labels).items():
            unsure = (clusters == cluster) & (confidence.astype(np.float64) < 1.1)
            assert tally.below(first_key_at_least(1.1)) == np.count_nonzero(unsure)
            pixels = np.count_nonzero(clusters == cluster)
            assert tally.share_below(first_key_at_least(1.1)) == np.count_nonzero(unsure) / pixels


class TestHostileInput:
    keys = np.zeros((2, 3), np.uint16)
    labels = np.zeros((2, 3), np.uint8)

    def test_shapes_that_differ(self) -> None:
        with pytest.raises(ValueError, match=r"labels of shape \(3,\)"):
            Tally.of(self.keys, self.labels[0])
        with pytest.raises(ValueError, match=r"clusters of shape \(3,\)"):
            cluster_tallies(self.labels[0], self.keys, self.labels)

    def test_types_that_would_be_cast(self) -> None:
        with pytest.raises(TypeError, match="keys must be uint16, not float16"):
            Tally.of(np.zeros((2, 3), np.float16), self.labels)
        with pytest.raises(TypeError, match="labels must be uint8, not int64"):
            Tally.of(self.keys, self.labels.astype(np.int64))
        with pytest.raises(TypeError, match="clusters must be uint8, not int32"):
            cluster_tallies(self.labels.astype(np.int32), self.keys, self.labels)

    def test_unknown_labels_are_named(self) -> None:
        labels = np.array([[0, 1, 2], [254, 255, 2]], np.uint8)
        for count in (
            lambda: Tally.of(self.keys, labels),
            lambda: cluster_tallies(self.labels, self.keys, labels),
        ):
            with pytest.raises(ValueError, match="unknown labels 2, 254;"):
                count()
        with pytest.raises(ValueError, match="unknown labels 7;"):
            Tally.from_arrays([1], [7], [1])

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (([1, 2], [OOD], [1, 1]), "differ in length"),
            (([[1]], [[OOD]], [[1]]), "must be a list"),
            (([KEY_COUNT], [OOD], [1]), "keys must fit uint16"),
            (([1], [OOD + 256], [1]), "labels must fit uint8"),
            (([-1], [OOD], [1]), "keys must fit uint16 and not be negative"),
            (([1], [OOD], [-1]), "counts must fit int64 and not be negative"),
            (([1], [OOD], [2**63]), "counts must fit int64"),
        ],
    )
    def test_impossible_rows(self, rows: tuple[list[int], list[int], list[int]], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Tally.from_arrays(*rows)
        with pytest.raises(ValueError, match=message):
            Tally(*(np.array(column) for column in rows))

    def test_counts_that_are_no_integers(self) -> None:
        with pytest.raises(TypeError, match="counts must be integers, not float64"):
            Tally.from_arrays([1], [OOD], [1.0])

    @pytest.mark.parametrize(
        ("keys", "labels", "counts", "message"),
        [
            ([2, 1], [OOD, OOD], [1, 1], "ascend"),
            ([1, 1], [OOD, OOD], [1, 1], "ascend"),
            ([1, 2], [OOD, IN_DISTRIBUTION], [1, 1], "ascend"),
            ([1, 2], [OOD, OOD], [1, 0], "at least 1"),
        ],
    )
    def test_constructor_refuses_rows_out_of_form(
        self, keys: list[int], labels: list[int], counts: list[int], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            Tally(np.array(keys, np.uint16), np.array(labels, np.uint8), np.array(counts))
