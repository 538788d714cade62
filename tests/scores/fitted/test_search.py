"""The search against all float64 distances, sorted; blocks of every size, ties, and vectors that are left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from oodray.scores.fitted import scan, search
from oodray.scores.fitted.search import Index, nearest, tabled


@pytest.fixture(params=["scan", "torch", "bfloat16"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a CPU, and those of other devices, which work on a CPU as well."""
    if request.param != "scan":
        monkeypatch.setattr(search, "_places", tabled)
        monkeypatch.setattr(search, "multiplies_bfloat16", lambda _: request.param == "bfloat16")


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


def test_products_of_bfloat16_err_less_than_is_said() -> None:
    random = torch.Generator().manual_seed(5)
    for dims in (1, 3, 64, 2048):
        a, b = torch.randn(200, dims, generator=random), torch.randn(300, dims, generator=random)
        b[:200] = a * torch.rand(200, 1, generator=random)  # all products of one sign
        error = (2 * (a.bfloat16() @ b.bfloat16().T).double() - 2 * a.double() @ b.double().T).abs()
        share = error / (a.double().norm(dim=1)[:, None] * b.double().norm(dim=1))
        assert share.max() < search.BFLOAT16_ERROR
    assert search.BFLOAT16_ERROR > 2 * ((1 + 2**-8) ** 3 - 1)


def test_candidates_of_bfloat16_are_taken_only_where_they_are_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups far from each other, of ten vectors each; one of them with a hundred more."""
    generator = torch.Generator().manual_seed(3)
    groups = 20 * torch.randn(40, 12, generator=generator)
    bank = groups.repeat_interleave(10, 0) + torch.randn(400, 12, generator=generator)
    queries = groups + torch.randn(40, 12, generator=generator)
    crowded = torch.cat([bank, groups[:1] + torch.randn(100, 12, generator=generator)])
    monkeypatch.setattr(search, "multiplies_bfloat16", lambda _: True)
    searched: list[int] = []
    exact = search._nearest_of

    def noted(given: Tensor, *others: Any) -> Any:
        searched.append(len(given))
        return exact(given, *others)

    monkeypatch.setattr(search, "_nearest_of", noted)
    for given in (bank, crowded):
        expected = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(given.double()).kneighbors(queries.double())
        places = tabled(queries, index := Index.of(given), index.norms, 3)
        np.testing.assert_array_equal(places.numpy(), expected[1])
    # Only the query in the crowd has more neighbours than candidates.
    assert searched == [1]


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
