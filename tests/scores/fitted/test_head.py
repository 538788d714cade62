"""ReAct, ASH and SCALE against numpy, position by position."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from fitted_images import fitted, image, images
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor

from oodray.scores.fitted.bank import Bank
from oodray.scores.fitted.grid import positions_of
from oodray.scores.fitted.head import ReactParameters, ash, fit_react, react, scale

WEIGHTS = torch.randn(4, 20, generator=torch.Generator().manual_seed(0)) / 5


def head(activations: Tensor) -> Tensor:
    return torch.nn.functional.conv2d(activations[None], WEIGHTS[:, :, None, None])[0]


def activations(seed: int = 1) -> Tensor:
    return torch.randn(20, 3, 4, generator=torch.Generator().manual_seed(seed)).relu()


def energy(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = -logsumexp(rows @ WEIGHTS.double().numpy().T, axis=1)
    return found


def as_rows(values: Tensor) -> NDArray[np.float64]:
    return values.flatten(1).T.double().numpy()


def test_react_clips_at_a_quantile_of_the_bank() -> None:
    found = images(4)
    bank = Bank.merged(
        [
            Bank.of(one.image_id, positions_of(one.features, one.logits, head_inputs=activations(n)), size=99, seed=0)
            for n, one in enumerate(found)
        ]
    )
    assert bank.head_inputs is not None
    limit = fit_react(bank).limit
    assert limit == pytest.approx(np.quantile(bank.head_inputs.astype(np.float64), 0.9), rel=1e-6)
    expected = energy(as_rows(activations()).clip(max=0.5))
    np.testing.assert_allclose(react(activations(), head, ReactParameters(0.5)).numpy().ravel(), expected, rtol=1e-5)


def test_ash_prunes_and_scales() -> None:
    rows = as_rows(activations())
    totals = rows.sum(1)
    for row in rows:
        row[np.argsort(row)[:18]] = 0
    rows *= np.exp(totals / rows.sum(1))[:, None]
    np.testing.assert_allclose(ash(activations(), head).numpy().ravel(), energy(rows), rtol=1e-4)


def test_scale_prunes_nothing() -> None:
    rows = as_rows(activations())
    rows *= np.exp(rows.sum(1) / np.sort(rows, axis=1)[:, 17:].sum(1))[:, None]
    np.testing.assert_allclose(scale(activations(), head).numpy().ravel(), energy(rows), rtol=1e-4)


def test_a_position_without_activation_has_a_score() -> None:
    for score in (ash, scale):
        np.testing.assert_allclose(score(torch.zeros(20, 1, 2), head).numpy(), -np.log(4), rtol=1e-6)


def test_a_network_without_a_last_layer_has_no_react() -> None:
    _, bank = fitted(images(2))
    assert replace(image(1).positions(), head_inputs=None).head_inputs is None
    with pytest.raises(ValueError, match=r"offers no head\(features\)"):
        fit_react(bank)
