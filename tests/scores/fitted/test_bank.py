"""The bank against a plain sort of all priorities, in any order of images."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest
from fitted_images import images

from oodray.scores.fitted.bank import Bank, priorities_of
from oodray.scores.fitted.sums import NO_CLASS, Positions


def test_the_least_priorities_of_all_images_are_taken() -> None:
    found = images()
    bank = Bank.merged([one.bank(100) for one in found])
    everything = sorted(
        (int(priority), one.image_id, position)
        for one in found
        for position, priority in enumerate(priorities_of(0, one.image_id, np.arange(48)))
    )[:100]
    names = [bank.image_ids[place] for place in bank.images]
    assert list(zip(bank.priorities.tolist(), names, bank.positions.tolist(), strict=True)) == everything
    for row in range(100):
        one = next(one for one in found if one.image_id == names[row])
        np.testing.assert_array_equal(bank.features[row], one.features.flatten(1)[:, bank.positions[row]].numpy())
        assert bank.m[row] == one.positions().m[bank.positions[row]]
    assert bank.limit == bank.priorities[-1] == bank.priorities.max()


def test_no_order_of_images_shows() -> None:
    found = images()
    expected = Bank.merged([one.bank(100) for one in found])
    shuffled = found.copy()
    random.Random(0).shuffle(shuffled)
    total = shuffled[0].bank(100)
    for one in shuffled[1:]:
        total += Bank.of(one.image_id, one.positions(), size=100, seed=0, limit=total.limit)
    assert_same(total, expected)


def assert_same(bank: Bank, expected: Bank) -> None:
    assert bank.image_ids == expected.image_ids
    for name, values in expected.to_arrays().items():
        np.testing.assert_array_equal(bank.to_arrays()[name], values)
        assert bank.to_arrays()[name].dtype == values.dtype


def test_the_sample_is_uniform() -> None:
    """Each of 48 positions is among the first quarter with the probability 1/4: of 2000 images 500, deviation 19."""
    counts = np.zeros(48)
    for number in range(2000):
        counts[np.argsort(priorities_of(7, f"{number}", np.arange(48)))[:12]] += 1
    assert np.abs(counts - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


def test_seed_and_image_change_the_sample() -> None:
    found = [priorities_of(*of, np.arange(9)).tolist() for of in ((0, "a"), (1, "a"), (0, "b"))]
    assert len({priority for priorities in found for priority in priorities}) == 27


def test_fewer_vectors_than_asked_for_are_all_kept() -> None:
    bank = Bank.merged([one.bank(10_000) for one in images(3)])
    assert len(bank) == 3 * 48
    assert bank.limit is None


def test_positions_that_do_not_count_are_not_taken() -> None:
    one = images(1)[0]
    found = one.positions()
    classes = found.classes.copy()
    classes[10:] = NO_CLASS
    counting = Positions(found.features, found.m, found.lse, classes)
    bank = Bank.of("a", counting, size=20, seed=0)
    assert sorted(bank.positions.tolist()) == list(range(10))
    none = Bank.of("b", Positions(found.features, found.m, found.lse, np.full_like(classes, NO_CLASS)), size=20, seed=0)
    assert len(none) == 0
    assert_same(none + bank, bank)


def test_the_vectors_of_an_image_are_known() -> None:
    bank = Bank.merged([one.bank(100) for one in images()])
    of_image = bank.of_image("frames/003")
    assert of_image.sum() == sum(bank.image_ids[place] == "frames/003" for place in bank.images) > 0
    assert not bank.of_image("another").any()


def test_what_is_no_partition_is_refused() -> None:
    first, second = images(2)
    with pytest.raises(ValueError, match="of one size"):
        first.bank(10) + second.bank(20)
    with pytest.raises(ValueError, match="an image is in two"):
        first.bank(10) + first.bank(10)


def test_a_bank_of_arrays_is_the_same() -> None:
    bank = Bank.merged([one.bank(100) for one in images()])
    assert_same(Bank.from_arrays(bank.to_arrays(), size=100, image_ids=bank.image_ids), bank)


def test_priorities_are_those_of_splitmix64() -> None:
    """The sequence that starts with the hash, as the published algorithm gives it with plain integers."""
    state = int.from_bytes(hashlib.blake2b(b"5/x", digest_size=8).digest(), "little")
    expected = []
    for _ in range(4):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        mixed = state
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
        expected.append(mixed ^ (mixed >> 31))
    assert priorities_of(5, "x", np.arange(4)).tolist() == expected
