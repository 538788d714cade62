"""knn and cdnp against scikit-learn on the same bank, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fitted_images import all_rows, fitted, images, queries, rows
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from oodray.scores.fitted.bank import Bank
from oodray.scores.fitted.neighbours import (
    CdnpParameters,
    Neighbours,
    SearchParameters,
    cdnp,
    coreset,
    fit_cdnp,
    fit_search,
)


def knn(features: Tensor, neighbours: Neighbours, excluded: Tensor | None = None) -> Tensor:
    """The mean distance to the three nearest, on the grid."""
    return neighbours.distance(features.flatten(1).T.contiguous(), excluded=excluded).view(features.shape[1:])


def searched(bank: Bank, metric: str = "euclidean") -> Neighbours:
    sums, _ = fitted(images(2))
    return Neighbours.of(bank, fit_search(sums, bank), metric=metric)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_mean_distance_to_three(metric: str) -> None:
    _, bank = fitted(images())
    known = NearestNeighbors(n_neighbors=3, algorithm="brute", metric=metric).fit(bank.features.astype(np.float64))
    expected = known.kneighbors(rows(queries()))[0].mean(1).reshape(3, 5)
    np.testing.assert_allclose(knn(queries(), searched(bank, metric)).numpy(), expected, rtol=2e-5)


def test_an_image_is_scored_without_its_own_vectors() -> None:
    found = images()
    _, bank = fitted(found, size=10_000)
    one = found[4]
    neighbours = searched(bank)
    with_its_own = knn(one.features, neighbours)
    without = knn(one.features, neighbours, excluded=neighbours.of_images([one.image_id]))
    others = bank.features[~bank.of_image(one.image_id)].astype(np.float64)
    expected = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(others).kneighbors(rows(one.features))[0].mean(1)
    np.testing.assert_allclose(without.numpy().ravel(), expected, rtol=2e-5)
    assert (with_its_own < without).all()
    torch.testing.assert_close(knn(one.features, neighbours, excluded=neighbours.of_images(["another"])), with_its_own)


def test_d_max_is_over_other_vectors() -> None:
    _, bank = fitted(images())
    f = bank.features.astype(np.float64)
    distances = np.sort(np.linalg.norm(f[:, None] - f, axis=2), axis=1)[:, 1:4].mean(1)
    assert searched(bank).greatest() == pytest.approx(distances.max(), rel=1e-5)


def test_d_max_where_vectors_repeat() -> None:
    """A vector that is there five times does not find itself among its four nearest for sure."""
    _, bank = fitted(images(1), size=8)
    features = bank.features.copy()
    features[1:6] = features[0]
    repeated = Bank.from_arrays(bank.to_arrays() | {"features": features}, size=8, image_ids=bank.image_ids)
    f = features.astype(np.float64)
    distances = np.sort(np.linalg.norm(f[:, None] - f, axis=2), axis=1)[:, 1:4].mean(1)
    assert searched(repeated).greatest() == pytest.approx(distances.max(), rel=1e-5)


def test_cdnp_adds_both_parts() -> None:
    found = images()
    sums, bank = fitted(found)
    neighbours = searched(bank)
    parameters = fit_cdnp(sums, neighbours)
    lse = np.stack([one.maps().lse for one in found]).astype(np.float64)
    assert parameters == CdnpParameters(lse.min(), lse.max(), neighbours.greatest())
    distance, of_image = np.array([[0.5, 30.0]]), np.array([[3.0, 9.0]])
    inverted, known = 1 - of_image, 1 - lse
    expected = (inverted - known.min()) / (known.max() - known.min()) + distance / parameters.d_max
    found_score = cdnp(torch.from_numpy(distance), torch.from_numpy(of_image), parameters)
    np.testing.assert_allclose(found_score.numpy(), expected, rtol=1e-9)


def test_principal_components_alone() -> None:
    found = images()
    sums, bank = fitted(found)
    neighbours = Neighbours.of(bank, fit_search(sums, bank, dims=8))
    pca = PCA(8, svd_solver="full").fit(all_rows(found))
    known = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(pca.transform(bank.features.astype(np.float64)))
    expected = known.kneighbors(pca.transform(rows(queries())))[0].mean(1).reshape(3, 5)
    np.testing.assert_allclose(knn(queries(), neighbours).numpy(), expected, rtol=1e-4)
    assert neighbours.index.vectors.shape == (len(bank), 8)
    cosine = Neighbours.of(bank, fit_search(sums, bank, dims=24), metric="cosine")
    torch.testing.assert_close(knn(queries(), cosine), knn(queries(), searched(bank, "cosine")), rtol=1e-3, atol=1e-6)


def test_a_coreset_covers_the_bank() -> None:
    """Greedy k-centre is at most twice as far from any vector as the best choice; random choice is not."""
    _, bank = fitted(images(), size=400)
    chosen = coreset(bank, 40, seed=0)
    assert len(set(chosen.tolist())) == 40
    f = bank.features.astype(np.float64)
    distances = np.linalg.norm(f[:, None] - f, axis=2)
    expected = [0]
    while len(expected) < 40:
        expected.append(int(distances[:, expected].min(1).argmax()))
    assert chosen.tolist() == sorted(expected)
    assert coreset(bank, 500, seed=0).tolist() == list(range(400))
    neighbours = Neighbours.of(bank, SearchParameters(chosen, np.zeros((0, 24)), np.zeros((0, 24))))
    assert len(neighbours.index.vectors) == len(neighbours.images) == 40


def test_a_bank_is_not_copied() -> None:
    _, bank = fitted(images())
    assert searched(bank).index.vectors.data_ptr() == bank.features.ctypes.data


def test_what_cannot_be_searched_is_refused() -> None:
    sums, bank = fitted(images(2))
    empty = Bank.merged([one.bank(0) for one in images(2)])
    with pytest.raises(ValueError, match="holds no feature vector"):
        fit_search(sums, empty)
    with pytest.raises(ValueError, match="24 dimensions: a projection keeps 1 to 24, not 25"):
        fit_search(sums, bank, dims=25)
    with pytest.raises(ValueError, match="unknown metric 'l1'; known: euclidean, cosine"):
        searched(bank, "l1")
    single = Bank.merged([images(1)[0].bank(1)])
    with pytest.raises(ValueError, match="one vector"):
        searched(single).greatest()
    with pytest.raises(ValueError, match="no vector is left"):
        knn(queries(), searched(single), excluded=searched(single).of_images([images(1)[0].image_id]))
