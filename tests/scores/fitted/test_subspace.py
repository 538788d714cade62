"""ViM and NECO against scikit-learn's PCA on all features at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from fitted_images import all_rows, fitted, images, queries, rows
from sklearn.decomposition import PCA

from oodray.scores.fitted.bank import Bank
from oodray.scores.fitted.subspace import fit_neco, fit_vim, neco, neco_share, vim, vim_components, vim_residual
from oodray.scores.fitted.sums import Moments


@pytest.mark.parametrize(
    ("features", "components"), [(2, 1), (320, 160), (767, 383), (768, 512), (2047, 512), (2048, 1000), (4096, 1000)]
)
def test_the_number_of_components(features: int, components: int) -> None:
    assert vim_components(features) == components


def test_vim_is_the_residual_beside_the_energy() -> None:
    found = images()
    sums, bank = fitted(found)
    parameters = fit_vim(sums, bank)
    pca = PCA(svd_solver="full").fit(all_rows(found))
    assert parameters.components == 12

    def residual(f: np.ndarray) -> np.ndarray:
        return np.asarray(np.linalg.norm(pca.transform(f)[:, 12:], axis=1))

    alpha = bank.m.astype(np.float64).mean() / residual(bank.features.astype(np.float64)).mean()
    assert parameters.alpha == pytest.approx(alpha, rel=1e-7)
    on_grid = vim_residual(queries(), parameters)
    np.testing.assert_allclose(on_grid.numpy().ravel(), alpha * residual(rows(queries())), rtol=1e-6)
    assert vim(torch.tensor(3.0), torch.tensor(5.0)) == -2


def test_neco_standardizes_both_parts() -> None:
    found = images()
    sums, bank = fitted(found)
    parameters = fit_neco(sums, bank)
    pca = PCA(svd_solver="full").fit(all_rows(found))

    def share(f: np.ndarray) -> np.ndarray:
        turned = pca.transform(f)
        return np.asarray(np.linalg.norm(turned[:, :12], axis=1) / np.linalg.norm(turned, axis=1))

    known = share(bank.features.astype(np.float64))
    lse = np.stack([one.maps().lse for one in found]).astype(np.float64)
    of_image = np.linspace(-3, 12, 15)
    shares = (share(rows(queries())) - known.mean()) / known.std()
    expected = -(0.6 * shares + 0.4 * (of_image - lse.mean()) / lse.std())
    score = neco(neco_share(queries(), parameters).flatten(), torch.from_numpy(of_image), parameters)
    np.testing.assert_allclose(score.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_the_mean_feature_has_no_share() -> None:
    sums, bank = fitted(images())
    parameters = fit_neco(sums, bank)
    mean = torch.from_numpy(parameters.centre).view(-1, 1, 1)
    assert neco_share(mean, parameters).isfinite().all()


def test_what_cannot_be_fitted_is_refused() -> None:
    sums, bank = fitted(images())
    empty = Bank.merged([one.bank(0) for one in images(2)])
    for fit in (fit_vim, fit_neco):
        with pytest.raises(ValueError, match="holds no feature vector"):
            fit(sums, empty)
    with pytest.raises(ValueError, match="LSE does not vary"):
        fit_neco(replace(sums, lse=Moments.of(np.ones(5))), bank)
    flat = images()
    for one in flat:  # all features lie in a plane
        one.features[2:] = 0
    with pytest.raises(ValueError, match="no residual beyond 12 principal components"):
        fit_vim(*fitted(flat))
    with pytest.raises(ValueError, match="the share of the principal subspace does not vary"):
        fit_neco(*fitted(flat))
