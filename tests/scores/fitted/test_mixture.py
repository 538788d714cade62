"""Mixtures against scikit-learn's own likelihoods."""

from __future__ import annotations

import numpy as np
import pytest
from fitted_images import fitted, images, queries, rows
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from oodray.scores.fitted.bank import Bank
from oodray.scores.fitted.mixture import COMPONENTS, FLOOR, fit_mixture, mixture


def test_the_likelihood_under_the_likeliest_class() -> None:
    _, bank = fitted(images(30), size=1200)
    parameters = fit_mixture(bank, seed=3)
    f = bank.features.astype(np.float64)
    centre, scales = f.mean(0), f.std(0)
    likelihoods = []
    for of_class in range(5):
        x = ((f - centre) / scales)[bank.classes == of_class]
        assert len(x) > 100
        known = GaussianMixture(COMPONENTS, covariance_type="diag", reg_covar=FLOOR, random_state=3).fit(x)
        # The likelihood of f is that of the standardized feature over the product of the scales.
        likelihoods.append(known.score_samples((rows(queries()) - centre) / scales) - np.log(scales).sum())
    expected = -np.max(likelihoods, 0)
    np.testing.assert_allclose(mixture(queries(), parameters).numpy().ravel(), expected, rtol=1e-6)


def test_the_parameters_are_densities() -> None:
    """With scipy's Gaussians, one by one."""
    _, bank = fitted(images(30), size=1200)
    of = fit_mixture(bank, seed=3)
    new = rows(queries())
    logs = np.stack(
        [
            weight + multivariate_normal(mean * of.scales + of.centre, np.diag(variance * of.scales**2)).logpdf(new)
            for weight, mean, variance in zip(of.log_weights, of.means, of.variances, strict=True)
        ]
    )
    by_class = [logsumexp(logs[of.classes == number], axis=0) for number in range(5)]
    np.testing.assert_allclose(mixture(queries(), of).numpy().ravel(), -np.max(by_class, 0), rtol=1e-7)


def test_few_vectors_have_few_components() -> None:
    """A class of one vector is one Gaussian, as wide as the floor; a class without any is left out."""
    _, bank = fitted(images(1, classes=3), size=48)
    classes = bank.classes.copy()
    classes[:] = 0
    classes[7] = 2
    few = Bank.from_arrays(bank.to_arrays() | {"classes": classes}, size=48, image_ids=bank.image_ids)
    parameters = fit_mixture(few, seed=0)
    assert parameters.classes.tolist() == [0, 0, 2]
    np.testing.assert_allclose(parameters.variances[2], FLOOR)
    assert mixture(queries(), parameters).isfinite().all()


def test_a_feature_that_never_changes_is_no_trouble() -> None:
    found = images()
    for one in found:
        one.features[5] = 2.0
    parameters = fit_mixture(fitted(found)[1], seed=0)
    assert parameters.scales[5] == 1
    assert mixture(queries(), parameters).isfinite().all()


def test_an_empty_bank_is_refused() -> None:
    with pytest.raises(ValueError, match="holds no feature vector"):
        fit_mixture(Bank.merged([one.bank(0) for one in images(2)]), seed=0)
