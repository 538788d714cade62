"""Sums over images against numpy on all pixels at once."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from fitted_images import CLASSES, all_classes, all_rows, fitted, image, images

from oodray.errors import ImageError
from oodray.scores.fitted.grid import at_centres, positions_of
from oodray.scores.fitted.sums import NO_CLASS, LogitMaps, Moments, Sums


def test_moments_are_those_of_all_pixels() -> None:
    found = images()
    sums, _ = fitted(found)
    m = np.stack([one.maps().m for one in found]).astype(np.float64)
    classes = np.stack([one.maps().classes for one in found])
    assert sums.images == len(found)
    assert (sums.m.least, sums.m.greatest) == (m.min(), m.max())
    assert sums.m.mean == pytest.approx(m.mean(), rel=1e-12)
    assert sums.m.deviation == pytest.approx(m.std(), rel=1e-9)
    for of_class in range(CLASSES):
        there = m[classes == of_class]
        assert sums.pixels[of_class] == there.size
        assert sums.m_sum[of_class] == pytest.approx(there.sum(), rel=1e-12)
        assert sums.m_squares[of_class] == pytest.approx(np.square(there).sum(), rel=1e-12)


def test_sums_of_features_are_those_of_all_positions() -> None:
    found = images()
    sums, _ = fitted(found)
    f, classes = all_rows(found), all_classes(found)
    directions = f / np.linalg.norm(f, axis=1, keepdims=True)
    np.testing.assert_array_equal(sums.positions, np.bincount(classes, minlength=CLASSES))
    for rows, of_class, products in (
        (f, sums.feature_sum, sums.feature_products),
        (directions, sums.direction_sum, sums.direction_products),
    ):
        expected = np.stack([rows[classes == number].sum(0) for number in range(CLASSES)])
        np.testing.assert_allclose(of_class, expected, rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(products, rows.T @ rows, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(sums.covariance(), np.cov(f.T, bias=True), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(sums.direction_covariance(), np.cov(directions.T, bias=True), rtol=1e-9, atol=1e-12)


def test_arrays_hold_every_bit() -> None:
    sums, _ = fitted(images(3))
    again = Sums.from_arrays(sums.to_arrays())
    for field in fields(Sums):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(sums, field.name))
    assert again.lse == sums.lse


def test_what_does_not_count_is_in_no_sum() -> None:
    one = image(1)
    maps, positions = one.maps(), one.positions()
    classes = maps.classes.copy()
    classes[:12] = NO_CLASS
    grid = positions.classes.copy()
    grid[:24] = NO_CLASS
    sums = Sums.of(replace(maps, classes=classes), replace(positions, classes=grid), CLASSES)
    assert sums.m.count == sums.pixels.sum() == 12 * 32
    assert sums.positions.sum() == 24
    f = one.features.flatten(1).T[24:].double().numpy()
    np.testing.assert_allclose(sums.feature_products, f.T @ f, rtol=1e-12)


def test_an_image_of_which_nothing_counts_adds_nothing() -> None:
    maps, positions = image(1).maps(), image(1).positions()
    nothing = Sums.of(
        replace(maps, classes=np.full_like(maps.classes, NO_CLASS)),
        replace(positions, classes=np.full_like(positions.classes, NO_CLASS)),
        CLASSES,
    )
    both = nothing + image(2).sums()
    assert both.m == image(2).sums().m
    np.testing.assert_array_equal(both.feature_products, image(2).sums().feature_products)
    assert np.isnan(Moments().mean)
    assert Sums.total([]) is None


def test_the_centre_of_a_position_decides() -> None:
    labels = np.array([[0, 0, 1, 1, 2], [0, 3, 3, 3, 2], [4, 4, 4, 4, 4]], np.int16)
    assert at_centres(labels, 1, 1).tolist() == [[3]]
    assert at_centres(labels, 3, 5).tolist() == labels.tolist()
    assert at_centres(labels, 1, 2).tolist() == [[3, 3]]
    features, logits = torch.zeros(2, 1, 2), torch.zeros(5, 3, 5)
    found = positions_of(features, logits, counts=np.array([[True, False]]), true_classes=np.array([[4, 4]], np.int16))
    assert found.classes.tolist() == [4, NO_CLASS]


def test_a_feature_of_length_zero_has_no_direction() -> None:
    one = image(1)
    features = one.features.clone()
    features[:, 0, 0] = 0
    sums = Sums.of(one.maps(), positions_of(features, one.logits), CLASSES)
    assert np.isfinite(sums.direction_products).all()
    assert np.trace(sums.direction_products) == pytest.approx(47)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_bad_number_refuses_the_image(value: float) -> None:
    one = image(1)
    features = one.features.clone()
    features[3, 2, 1] = value
    with pytest.raises(ImageError, match="1 of 1152 feature values are NaN or infinite"):
        Sums.of(one.maps(), positions_of(features, one.logits), CLASSES)
    m = one.maps().m.copy()
    m[0, 0] = value
    with pytest.raises(ImageError, match="the maximum logit is NaN or infinite at 1 pixels"):
        Sums.of(LogitMaps(m, one.maps().lse, one.maps().classes), one.positions(), CLASSES)


def test_other_features_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="do not add up"):
        image(1).sums() + image(2, features=3).sums()
