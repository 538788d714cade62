"""The search against all float64 distances, sorted; blocks of every size, ties, and vectors that are left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from oodray.scores.fitted import scan, search
from oodray.scores.fitted.search import Index, nearest, tabled


@pytest.fixture(params=["scan", "torch"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a CPU, and that of other devices, which works on a CPU as well."""
    if request.param == "torch":
        monkeypatch.setattr(search, "_places", tabled)


def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "BLOCKS", (64, 10))
    monkeypatch.setattr(scan, "VECTORS", 64)
    monkeypatch.setattr(scan, "QUERIES", 10)


def vectors(count: int, dims: int, seed: int = 0) -> Tensor:
    return 7 + torch.randn(count, dims, generator=torch.Generator().manual_seed(seed))


def check(bank: Tensor, queries: Tensor, k: int) -> None:
    expected, places = (
        NearestNeighbors(n_neighbors=k, algorithm="brute").fit(bank.double()).kneighbors(queries.double())
    )
    distances, found = nearest(queries, Index.of(bank), k)
    np.testing.assert_allclose(distances.numpy(), expected, rtol=1e-5)
    np.testing.assert_array_equal(found.numpy(), places)


@pytest.mark.parametrize("count", [5, 31, 32, 33, 257, 1000])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_every_size_of_bank_and_block(count: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch)
    check(vectors(count, 6), vectors(23, 6, seed=1), k)


def test_the_blocks_as_they_are() -> None:
    check(vectors(9000, 16), vectors(1100, 16, seed=1), 3)


def test_a_large_mean_costs_no_digits() -> None:
    bank, queries = vectors(500, 8) + 10_000, vectors(20, 8, seed=1) + 10_000
    check(bank, queries, 3)


def test_equal_vectors_take_each_others_place() -> None:
    bank = torch.cat([torch.zeros(40, 3), torch.ones(40, 3)])
    distances, found = nearest(torch.zeros(2, 3), Index.of(bank), 3)
    assert distances.tolist() == [[0, 0, 0]] * 2
    assert all(len(set(row)) == 3 and max(row) < 40 for row in found.tolist())


def test_vectors_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch)
    bank, queries = vectors(300, 6), vectors(9, 6, seed=1)
    excluded = torch.arange(300) % 3 == 0
    distances, found = nearest(queries, Index.of(bank), 4, excluded=excluded)
    others, places = nearest(queries, Index.of(bank[~excluded]), 4)
    torch.testing.assert_close(distances, others, rtol=1e-6, atol=0)
    assert found.tolist() == (~excluded).nonzero()[:, 0][places].tolist()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads_finds_the_same(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check(vectors(500, 6), vectors(71, 6, seed=1), 3)
        check(vectors(500, 6), vectors(1, 6, seed=1), 3)
    finally:
        torch.set_num_threads(before)


def test_threads_of_numpy_are_as_before() -> None:
    from threadpoolctl import threadpool_info

    def counts() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = counts()
    check(vectors(100, 6), vectors(9, 6, seed=1), 3)
    assert counts() == before


def test_a_query_that_is_not_finite_has_no_distance() -> None:
    queries = vectors(3, 6, seed=1)
    queries[1, 2] = np.nan
    distances, _ = nearest(queries, Index.of(vectors(100, 6)), 3)
    assert distances.isnan().all(1).tolist() == [False, True, False]


def test_fewer_vectors_than_k_are_all_given() -> None:
    bank = vectors(5, 6)
    excluded = torch.tensor([True, False, True, True, False])
    distances, found = nearest(bank[:2], Index.of(bank), 3, excluded=excluded)
    assert distances.shape == (2, 2)
    assert sorted(found[0].tolist()) == [1, 4]
    with pytest.raises(ValueError, match="no vector is left"):
        nearest(bank, Index.of(bank), 3, excluded=torch.ones(5, dtype=torch.bool))


def test_what_is_no_bank_is_refused() -> None:
    for wrong in (torch.zeros(0, 3), torch.zeros(3), torch.zeros(3, 3, dtype=torch.float64)):
        with pytest.raises(ValueError, match="vectors must be float32"):
            Index.of(wrong)
