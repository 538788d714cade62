"""Novelty beside scikit-learn's neighbours and numpy's quantiles, each vector measured by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from fitted_images import fitted, images
from sklearn.neighbors import NearestNeighbors

from oodray.scores.fitted.bank import Bank
from oodray.scores.fitted.distance_scores import NoveltyHalf
from oodray.scores.fitted.fitting import fit_of_self, fit_scores
from oodray.scores.fitted.neighbours import Neighbours, fit_search
from oodray.scores.fitted.novelty import NoveltyParameters, distances_to_others, fit_novelty, novelty
from oodray.scores.fitted.settings import FitSettings


def alone(image_id: str) -> tuple[str, ...]:
    return (image_id,)


def searched(bank: Bank) -> Neighbours:
    return Neighbours.of(bank, fit_of_self(bank, alone).parameters["knn"])


@pytest.mark.parametrize("gap", [0, 1])
def test_each_vector_is_measured_against_other_images(gap: int) -> None:
    _, bank = fitted(images(), size=10_000)
    names = bank.image_ids

    def around(image_id: str) -> tuple[str, ...]:
        place = names.index(image_id)
        return names[max(0, place - gap) : place + gap + 1]

    expected = []
    for vector, image in zip(bank.features, bank.images, strict=True):
        others = bank.features[np.abs(bank.images - image) > gap].astype(np.float64)
        expected.append(
            NearestNeighbors(n_neighbors=3).fit(others).kneighbors(vector[None].astype(np.float64))[0].mean()
        )
    found = distances_to_others(bank, searched(bank), around)
    np.testing.assert_allclose(found, expected[: len(found)], rtol=2e-5)
    assert len(found) == min(len(bank), 4096)
    parameters = fit_novelty(bank, found)
    low, middle, high = np.percentile(expected[: len(found)], [16, 50, 84])
    assert parameters.distance_median == pytest.approx(middle, rel=2e-5)
    assert parameters.distance_range == pytest.approx((high - low) / 2, rel=1e-4)
    low, middle, high = np.percentile(-bank.m.astype(np.float64), [16, 50, 84])
    assert parameters.unsure_median == pytest.approx(middle, abs=5e-3)
    assert parameters.unsure_range == pytest.approx((high - low) / 2, abs=5e-3)


def test_the_sum_of_both_parts() -> None:
    random = np.random.default_rng(0)
    m, d = random.normal(5, 2, (7, 9)).astype(np.float32), random.random((7, 9)).astype(np.float32)
    parameters = NoveltyParameters(-4.0, 1.7, 0.4, 0.3)
    expected = (-m.astype(np.float16).astype(np.float64) + 4.0) / 1.7 + (d - 0.4) / 0.3
    found = novelty(torch.from_numpy(d), torch.from_numpy(m), parameters)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)
    half = (-m.astype(np.float16).astype(np.float64) + 4.0) / 1.7 + (d - 0.4) / 0.6
    found = novelty(torch.from_numpy(d), torch.from_numpy(m), parameters, NoveltyHalf.weight)
    np.testing.assert_allclose(found.numpy(), half, rtol=1e-5, atol=1e-5)


def test_a_part_that_does_not_vary_is_zero_and_said() -> None:
    _, bank = fitted(images(), size=500)
    still = replace(bank, m=np.full(len(bank), 3.0, np.float32))
    fitted_ = fit_of_self(still, alone)
    assert fitted_.remarks["novelty"].startswith("the max-logit does not vary")
    parameters = fitted_.parameters["novelty"]
    assert parameters.unsure_range == 0
    found = novelty(torch.tensor([1.0, 1.0]), torch.tensor([-100.0, 100.0]), parameters)
    assert found[0] == found[1] == (1.0 - parameters.distance_median) / parameters.distance_range
    assert not fit_of_self(bank, alone).remarks


def test_without_three_vectors_of_others_there_is_no_distance() -> None:
    first, second = images(2)
    pair = Bank.merged([first.bank(50), replace(second.bank(2), size=50)])
    found = distances_to_others(pair, searched(pair))
    assert len(found) == 2  # those of the second image, which the first gives enough neighbours
    single = Bank.merged([first.bank(50)])
    assert fit_novelty(single, distances_to_others(single, searched(single))).distance_range == 0
    empty = replace(single, features=single.features[:0], priorities=single.priorities[:0], m=single.m[:0])
    with pytest.raises(ValueError, match="no feature vector"):
        fit_novelty(empty, np.zeros(0, np.float32))


def test_a_fit_of_other_images_has_both() -> None:
    sums, bank = fitted(images(), size=300)
    found = fit_scores(["novelty", "novelty-half"], sums, bank, FitSettings())
    assert found.names == ["knn", "novelty", "novelty-half"]
    distances = distances_to_others(bank, Neighbours.of(bank, fit_search(sums, bank)))
    assert found.parameters["novelty"] == found.parameters["novelty-half"] == fit_novelty(bank, distances)
