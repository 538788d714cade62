from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
import torch

import oodray
from oodray.models.segmenter import Segmentation
from oodray.scores.maskomaly import Maskomaly, QueryUse, fit_maskomaly
from oodray.scores.queries import Queries


def made() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return 4 * torch.randn(9, 5, generator=generator), 4 * torch.randn(9, 6, 8, generator=generator)


@pytest.mark.parametrize("rejected", [(), (0, 5), (3,)])
def test_the_formula_pixel_by_pixel(rejected: tuple[int, ...]) -> None:
    class_logits, mask_logits = made()
    weights = np.exp(class_logits.double().numpy())
    p = weights / weights.sum(1, keepdims=True)
    s = 1 / (1 + np.exp(-mask_logits.double().numpy()))
    expected = np.empty((6, 8))
    accepted = [q for q in range(9) if p[q].argmax() != 4 and p[q].max() > 0.7]
    assert 0 < len(accepted) < 9
    for y, x in np.ndindex(6, 8):
        held = min([1 - s[q, y, x] * p[q].max() for q in accepted])
        unknown = max([s[q, y, x] * p[q].max() for q in rejected], default=0.0)
        expected[y, x] = 0.6 * held + 0.4 * unknown
    found = oodray.detect(
        np.zeros((6, 8, 3), np.uint8),
        Segmentation.of_queries(class_logits, mask_logits, torch.zeros(2, 3, 4)),
        k=1,
        tau=0.5,
        scores=[Maskomaly(rejected)],
    )
    np.testing.assert_allclose(found.scores["maskomaly"], expected, rtol=1e-5, atol=1e-6)


def test_rejected_are_queries_that_no_image_accepts_and_that_respond_to_little() -> None:
    nothing, road = [0.0, 0.0, 9.0], [9.0, 0.0, 0.0]
    class_logits = torch.tensor([[road, nothing, nothing, road], [road, nothing, nothing, nothing]])
    off, on = torch.full((4, 4), -9.0), torch.full((4, 4), 9.0)
    mask_logits = torch.stack([torch.stack([off, off, on, off])] * 2)
    images = [Queries(class_logits[[index]], mask_logits[[index]]) for index in range(2)]
    use = QueryUse.of(images[0]) + QueryUse.of(images[1])
    assert use.accepted.tolist() == [2, 0, 0, 1]
    assert use.pixels == 32
    # The third is never accepted either, but lies on everything.
    assert use.rejected() == [1]


def test_use_is_that_of_each_image_however_it_is_added() -> None:
    generator = torch.Generator().manual_seed(2)
    images = [
        Queries(4 * torch.randn(2, 7, 5, generator=generator), 4 * torch.randn(2, 7, 6, 8, generator=generator))
        for _ in range(3)
    ]
    found = reduce(QueryUse.__add__, map(QueryUse.of, images))
    accepted, response = np.zeros(7, np.int64), np.zeros(7)
    for image, window, q in np.ndindex(3, 2, 7):
        weights = np.exp(images[image].class_logits[window, q].double().numpy())
        p = weights / weights.sum()
        accepted[q] += p[:4].max() == p.max() > 0.7
        response[q] += p.max() * (1 / (1 + np.exp(-images[image].mask_logits[window, q].double().numpy()))).sum()
    assert found.accepted.tolist() == accepted.tolist()
    np.testing.assert_allclose(found.response, response, rtol=1e-12)
    assert found.pixels == 3 * 2 * 48


def test_no_rejected_query_is_said() -> None:
    use = QueryUse(np.array([1, 0]), np.array([0.0, 9.0]), 10)
    assert fit_maskomaly(use).rejected.tolist() == []
    with pytest.raises(ValueError, match="needs a mask classifier"):
        fit_maskomaly(None)


def test_where_nothing_is_accepted_all_is_unknown() -> None:
    _, mask_logits = made()
    found = Maskomaly([]).of_queries(torch.full((9, 5), 0.2), mask_logits.sigmoid())
    np.testing.assert_allclose(found, 0.6, rtol=1e-6)
