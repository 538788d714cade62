"""Mahalanobis distances against numpy on all features at once, with an explicit inverse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from fitted_images import CLASSES, all_classes, all_rows, fitted, images, queries, rows
from numpy.typing import NDArray
from sklearn.covariance import EmpiricalCovariance

from oodray.scores.fitted.mahalanobis import LEAST_SHARE, fit_mahalanobis, mahalanobis


def plain(
    f: NDArray[np.float64], classes: NDArray[np.int64], new: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The least squared distance of each new row, and the covariance that it was taken with."""
    means = {number: f[classes == number].mean(0) for number in np.unique(classes)}
    about = f - np.stack([means[number] for number in classes])
    known = EmpiricalCovariance(assume_centered=True).fit(about)
    inverse = np.linalg.inv(known.covariance_)
    distances = [np.einsum("ij,jk,ik->i", new - mean, inverse, new - mean) for mean in means.values()]
    return np.min(distances, 0), known.covariance_


def test_the_distance_to_the_nearest_class() -> None:
    found = images()
    parameters = fit_mahalanobis(fitted(found)[0])
    expected, _ = plain(all_rows(found), all_classes(found), rows(queries()))
    assert parameters.shrinkage == 0
    np.testing.assert_allclose(mahalanobis(queries(), parameters).numpy().ravel(), expected, rtol=1e-7)


def test_of_directions() -> None:
    found = images()
    parameters = fit_mahalanobis(fitted(found)[0], directions=True)
    f, new = all_rows(found), rows(queries())
    f, new = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in (f, new))
    expected, _ = plain(f, all_classes(found), new)
    np.testing.assert_allclose(mahalanobis(queries(), parameters).numpy().ravel(), expected, rtol=1e-5)
    longer = mahalanobis(queries() * 3, parameters).numpy().ravel()
    np.testing.assert_allclose(longer, expected, rtol=1e-5)


def test_a_class_without_a_position_is_near_to_nothing() -> None:
    found = images(classes=3)
    sums, _ = fitted(found)
    assert sums.positions.tolist()[3:] == [0, 0]
    parameters = fit_mahalanobis(sums)
    assert parameters.classes.tolist() == [0, 1, 2]
    expected, _ = plain(all_rows(found), all_classes(found), rows(queries()))
    np.testing.assert_allclose(mahalanobis(queries(), parameters).numpy().ravel(), expected, rtol=1e-7)


def test_a_singular_covariance_is_shrunk() -> None:
    """Fewer positions than features; and a feature that never changes."""
    found = images(1, features=100)
    sums, _ = fitted(found)
    parameters = fit_mahalanobis(sums)
    assert parameters.shrinkage == 1e-8
    _, covariance = plain_covariance(all_rows(found), all_classes(found))
    share = np.trace(covariance) / 100 * np.eye(100)
    shrunk = (1 - parameters.shrinkage) * covariance + parameters.shrinkage * share
    assert np.linalg.eigvalsh(shrunk)[0] > LEAST_SHARE * np.linalg.eigvalsh(shrunk)[-1]
    inverse = parameters.whitening.T @ parameters.whitening
    np.testing.assert_allclose(inverse @ shrunk, np.eye(100), atol=1e-5)
    scores = mahalanobis(queries(features=100), parameters)
    assert scores.isfinite().all()

    constant = images()
    for one in constant:
        one.features[3] = 1.0
    assert fit_mahalanobis(fitted(constant)[0]).shrinkage > 0


def plain_covariance(f: NDArray[np.float64], classes: NDArray[np.int64]) -> tuple[None, NDArray[np.float64]]:
    about = f - np.stack([f[classes == number].mean(0) for number in classes])
    return None, about.T @ about / len(about)


def test_nothing_to_measure_with_is_refused() -> None:
    sums, _ = fitted(images(2))
    with pytest.raises(ValueError, match="no class to be near to"):
        fit_mahalanobis(replace(sums, positions=np.zeros(CLASSES, np.int64)))
    same = images(2)
    for one in same:
        one.features[:] = torch.arange(24.0)[:, None, None]
    with pytest.raises(ValueError, match="do not vary"):
        fit_mahalanobis(fitted(same)[0])
