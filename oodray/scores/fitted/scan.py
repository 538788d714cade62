"""The nearest of many vectors on a CPU: blocks of products, and a look at each of their rows while it is in the cache.

numpy's product and a compiled scan, each in one thread, are as fast as the processor multiplies; the threads are
Python's own, each with queries of its own, so that none waits for another.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from oodray.compiled import compiled

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

VECTORS, QUERIES = 2048, 1024
"""Of a block: its 8 MiB stay in a CPU's last cache."""

GROUP = 32
"""Values that are compared at once with the greatest one kept."""

_ALONE = threading.Lock()
"""The number of threads of numpy's product is one of the process: two searches would restore each other's."""


def scanned(  # noqa: PLR0917
    queries: NDArray[np.float32],
    centre: NDArray[np.float32],
    vectors: NDArray[np.float32],
    norms: NDArray[np.float32],
    k: int,
    threads: int,
) -> NDArray[np.int64]:
    """Rows of the k nearest vectors of each query, the first of equally near ones.

    Args:
        queries: `(Q, D)`.
        centre: what products are about, `(D,)`.
        vectors: `(N, D)`.
        norms: squared distances of vectors to the centre, `(N,)`; infinite for those that are left out.
        k: how many.
        threads: how many to use.

    Returns:
        `(Q, k)`, ascending by distance.
    """
    least = np.full((len(queries), k), np.inf, np.float32)
    places = np.zeros((len(queries), k), np.int64)

    def search(rows: slice) -> None:
        centred = (queries[rows] - centre) * np.float32(-2)
        buffer = np.empty(len(centred) * min(VECTORS, len(vectors)), np.float32)
        for first in range(0, len(vectors), VECTORS):
            block = vectors[first : first + VECTORS]
            table = buffer[: len(centred) * len(block)].reshape(len(centred), len(block))
            np.matmul(centred, block.T, out=table)
            _scan()(table, norms[first : first + VECTORS], first, least[rows], places[rows])

    parts = _parts(len(queries), threads)
    with _ALONE, _thread_pools().limit(limits=1, user_api="blas"):
        if threads == 1:
            for rows in parts:
                search(rows)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(search, parts))
    return places


def _parts(count: int, threads: int) -> list[slice]:
    """Slices of at most `QUERIES`, of about one size, as many for each thread.

    >>> _parts(3000, 2)
    [slice(0, 750, None), slice(750, 1500, None), slice(1500, 2250, None), slice(2250, 3000, None)]
    """
    parts = max(1, min(count, threads * -(-count // (threads * QUERIES))))
    ends = [count * part // parts for part in range(parts + 1)]
    return [slice(first, end) for first, end in itertools.pairwise(ends)]


@cache
def _thread_pools() -> ThreadpoolController:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()  # it looks through all loaded libraries


@cache
def _scan() -> Callable[..., None]:
    return compiled(_insert_least)


def _insert_least(  # type: ignore[no-untyped-def]
    table, norms, first, least, places
):
    """Have the least `table + norms` of each row in `least`, ascending, and their columns from `first` on in `places`.

    A group is looked through one by one where a value in it is less than the greatest one kept, which is rare.
    """
    rows, count = table.shape
    last = least.shape[1] - 1
    for row in range(rows):
        values = table[row]
        worst = least[row, last]
        for start in range(0, count, GROUP):
            end = min(start + GROUP, count)
            less = 0
            for at in range(start, end):
                less += values[at] + norms[at] < worst
            if less == 0:
                continue
            for at in range(start, end):
                value = values[at] + norms[at]
                if not value < worst:
                    continue
                place = last
                while place > 0 and value < least[row, place - 1]:
                    least[row, place] = least[row, place - 1]
                    places[row, place] = places[row, place - 1]
                    place -= 1
                least[row, place] = value
                places[row, place] = first + at
                worst = least[row, last]
