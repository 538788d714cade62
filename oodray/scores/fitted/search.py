"""The nearest of many vectors, exactly: block by block, one matrix product and a running best few.

On a CPU `oodray.scores.fitted.scan` does that, elsewhere torch.

Distances are compared as |b - c|^2 - 2 (q - c) . b, with c the mean of all vectors: for one query this is the squared
distance but for a constant, and rounds less than without c. The few that are found are measured again by differences.
So only vectors whose distances agree within the rounding of float32 products can take each other's place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from oodray.scores.fitted.scan import scanned

BLOCKS = (16384, 8192)
"""Vectors and queries of a product of torch."""

SCREENED = 64
"""Candidates of each query that products of bfloat16 find."""

BFLOAT16_ERROR = 2.0**-5
"""Of 2 x . y, as a share of |x| |y|: both factors and the product are rounded by a share of 2^-8 each, and sums in
float32 add less than what is left of that bound."""

INDEXED = 1024
"""Vectors that are summed at a time."""

GROUP = 32
"""Rows of which the least is found first. The k nearest lie in the k groups with the least ones, so that no more than
these are looked through one by one."""


@dataclass(frozen=True, eq=False)
class Index:
    """Vectors to search.

    Attributes:
        vectors: `(N, D)` float32.
        centre: their mean, `(D,)` float32.
        norms: squared distances to it, `(N,)` float32.
    """

    vectors: Tensor
    centre: Tensor
    norms: Tensor

    @classmethod
    def of(cls, vectors: Tensor) -> Index:
        """The index of vectors, which it does not copy.

        Raises:
            ValueError: there is none, or they are not float32 `(N, D)`.
        """
        if vectors.ndim != 2 or not vectors.numel() or vectors.dtype != torch.float32:
            raise ValueError(f"vectors must be float32 (N, D), not {vectors.dtype} {tuple(vectors.shape)}")
        # Into memory that is there: a list of small results between large ones, which are freed, would spread over it.
        total = vectors.new_zeros(vectors.shape[1], dtype=torch.float64)
        norms = vectors.new_empty(len(vectors))
        blocks = torch.split(vectors, INDEXED)
        for block in blocks:
            total += block.sum(0, dtype=torch.float64)
        centre = (total / len(vectors)).float()
        for block, of_block in zip(blocks, torch.split(norms, INDEXED), strict=True):
            torch.sum((block - centre).square_(), 1, out=of_block)
        return cls(vectors, centre, norms)


@torch.no_grad()
def nearest(queries: Tensor, index: Index, k: int, *, excluded: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Euclidean distances to the k nearest vectors, ascending, and which these are.

    Args:
        queries: `(Q, D)` float32, on the device of the index.
        index: of the vectors.
        k: how many; where fewer vectors are left, all of them.
        excluded: vectors that are left out, `(N,)` bool.

    Returns:
        `(Q, k)` float32, and `(Q, k)` int64 rows of `index.vectors`.

    Raises:
        ValueError: no vector is left.

    >>> bank = Index.of(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]))
    >>> [found.tolist() for found in nearest(torch.zeros(1, 2), bank, 2)]
    [[[0.0, 1.0]], [[0, 2]]]
    """
    left = len(index.vectors) - (0 if excluded is None else int(excluded.sum()))
    if not left:
        raise ValueError("no vector is left to be near to")
    norms = index.norms if excluded is None else index.norms.masked_fill(excluded, math.inf)
    places = _places(queries, index, norms, min(k, left))
    distances, order = _measured(queries, index.vectors, places).sort(dim=1, stable=True)
    return distances, places.gather(1, order)


def _places(queries: Tensor, index: Index, norms: Tensor, k: int) -> Tensor:
    """Rows of the k nearest vectors, `(Q, k)`, ascending but for rounding."""
    if queries.device.type == "cpu":
        q, centre, vectors, squares = (map_.detach().numpy() for map_ in (queries, index.centre, index.vectors, norms))
        return torch.from_numpy(scanned(q, centre, vectors, squares, k, torch.get_num_threads()))
    return tabled(queries, index, norms, k)


def tabled(queries: Tensor, index: Index, norms: Tensor, k: int) -> Tensor:
    """See `nearest`; by torch alone, on any device."""
    rows, columns = BLOCKS
    search = _screened if multiplies_bfloat16(queries.device) else _nearest_of
    places = torch.cat([search(block, index, norms, k, rows) for block in torch.split(queries, columns)])
    return places.clamp_(max=len(norms) - 1)  # of a query that is NaN, rows behind the last vector are as good


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 several times as fast as float32: a GPU from Ampere on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def _screened(queries: Tensor, index: Index, norms: Tensor, k: int, rows: int) -> Tensor:
    """As `_nearest_of`, by products of bfloat16, which find `SCREENED` candidates that are measured in float32.

    A vector that is no candidate is at least as far as the last candidate by those products, less their error. Where
    that may be nearer than the k-th candidate as measured, the query is searched in float32. So the result is exact.
    """
    centred = queries - index.centre
    best, places = _candidates(centred, index, norms, max(SCREENED, k), rows)
    places = places.clamp(max=len(norms) - 1)
    measured = _measured(queries, index.vectors, places).masked_fill(best.isinf(), math.inf)
    distances, order = measured.sort(dim=1, stable=True)
    # In the units of the table: |q - b|^2 - |q - c|^2.
    last = distances[:, k - 1].square() - centred.square().sum(1)
    longest = norms.masked_fill(norms.isinf(), 0).max().sqrt()
    certain = best[:, -1] - BFLOAT16_ERROR * centred.norm(dim=1) * longest > last
    found = places.gather(1, order)[:, :k]
    if not certain.all():
        found[~certain] = _nearest_of(queries[~certain], index, norms, k, rows)
    return found


def _candidates(centred: Tensor, index: Index, norms: Tensor, count: int, rows: int) -> tuple[Tensor, Tensor]:
    """Of each query the least `count` values by products of bfloat16, ascending, and their rows."""
    half = centred.bfloat16().T
    best = centred.new_full((count, len(centred)), math.inf)
    places = torch.zeros((count, len(centred)), dtype=torch.int64, device=centred.device)
    table = centred.new_empty((min(rows, -(-len(norms) // GROUP) * GROUP), len(centred)))
    for first in range(0, len(norms), rows):
        block = index.vectors[first : first + rows]
        table[: len(block)] = norms[first : first + rows, None] - 2 * ((block - index.centre).bfloat16() @ half).float()
        table[len(block) :] = math.inf
        values, at = _least(table, count)
        best, chosen = torch.cat([best, values]).topk(count, dim=0, largest=False)
        places = torch.cat([places, at + first]).gather(0, chosen)
    return best.T, places.T


def _nearest_of(queries: Tensor, index: Index, norms: Tensor, k: int, rows: int) -> Tensor:
    """See `tabled`; of as many queries as fit a product with `rows` vectors."""
    centred = (queries - index.centre).T
    best = queries.new_full((k, len(queries)), math.inf)
    places = torch.zeros((k, len(queries)), dtype=torch.int64, device=queries.device)
    table = queries.new_empty((min(rows, -(-len(norms) // GROUP) * GROUP), len(queries)))
    for first in range(0, len(norms), rows):
        block = slice(first, first + rows)
        _compare(index.vectors[block], norms[block], centred, table)
        values, at = _least(table, k)
        best, chosen = torch.cat([best, values]).topk(k, dim=0, largest=False)
        places = torch.cat([places, at + first]).gather(0, chosen)
    return places.T


def _compare(vectors: Tensor, norms: Tensor, centred: Tensor, table: Tensor) -> None:
    """Write |b - c|^2 - 2 (q - c) . b of some vectors into the first rows of a table, and infinity into the rest."""
    torch.addmm(norms[:, None], vectors, centred, alpha=-2, out=table[: len(vectors)])
    table[len(vectors) :] = math.inf


def _least(table: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The least k values, or a few more, of every column, and their rows."""
    groups = table.view(-1, GROUP, table.shape[1]).amin(1)
    _, chosen = groups.topk(min(k, len(groups)), dim=0, largest=False)
    rows = (chosen[:, None] * GROUP + torch.arange(GROUP, device=table.device)[:, None]).flatten(0, 1)
    values = table.gather(0, rows)
    least, order = values.topk(k if len(values) > k else len(values), dim=0, largest=False)
    return least, rows.gather(0, order)


def _measured(queries: Tensor, vectors: Tensor, places: Tensor) -> Tensor:
    """Euclidean distances of each query to some vectors, by differences."""
    return torch.stack([(queries - vectors[places[:, nth]]).norm(dim=1) for nth in range(places.shape[1])], 1)
