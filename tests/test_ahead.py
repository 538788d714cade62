from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from oodray.ahead import map_ahead


@pytest.mark.parametrize("ahead", [0, 2])
def test_no_more_items_are_taken_than_it_may_be_ahead(ahead: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(6):
            taken.append(item)
            yield item

    with ThreadPoolExecutor(2) as threads:
        for given, result in enumerate(map_ahead(threads, lambda item: 10 * item, items(), ahead)):
            assert result == 10 * given
            assert len(taken) == min(given + 1 + ahead, 6)


def test_an_error_is_raised_where_its_result_would_be() -> None:
    with ThreadPoolExecutor(1) as threads:
        results = map_ahead(threads, lambda item: 1 // item, [1, 0, 1], 1)
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)
