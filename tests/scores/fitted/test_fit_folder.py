"""A fit that is written is the fit that is read; what is none, or another network's, is refused."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fitted_images import fitted, images, queries

from oodray.errors import ConfigError, ResultsError
from oodray.scores.fitted.fit_in_use import FitInUse
from oodray.scores.fitted.fitting import fit_scores
from oodray.scores.fitted.folder import Fit, FitFolder, network_identity
from oodray.scores.fitted.scores import FITTED_SCORES, scores_needing
from oodray.scores.fitted.settings import FitSettings
from oodray.scores.maskomaly import Maskomaly, QueryUse

IDENTITY = {
    "model": "internimage-l",
    "model_sha256": "ab12",
    "code_sha256": None,
    "features_sha256": None,
    "feature_stage": 2,
    "dataset": "cityscapes",
    "seed": 0,
}
LACKING = {*scores_needing("head"), *scores_needing("queries")}
"""Scores that the images here cannot have."""


def written(path: Path, settings: FitSettings | None = None, names: tuple[str, ...] = FITTED_SCORES) -> FitFolder:
    sums, bank = fitted(images(), size=300)
    settings = settings or FitSettings(bank=300)
    of_scores = fit_scores(names, sums, bank, settings)
    folder = FitFolder(path)
    folder.write(
        IDENTITY,
        settings,
        sums,
        bank,
        of_scores.parameters,
        fitted=of_scores.names,
        refused=of_scores.refused,
        remarks=of_scores.remarks,
    )
    return folder


def test_every_number_is_read_as_it_was(tmp_path: Path) -> None:
    settings = FitSettings(bank=300)
    folder = written(tmp_path / "FIT", settings)
    sums, bank = fitted(images(), size=300)
    expected = fit_scores(FITTED_SCORES, sums, bank, settings)
    fit = Fit(folder.path)
    assert fit.settings == settings
    assert fit.names == tuple(name for name in FITTED_SCORES if name not in LACKING)
    assert set(expected.refused) == LACKING
    for name, parameters in expected.parameters.items():
        again = fit.parameters(name)
        assert type(again) is type(parameters)
        for field in fields(parameters):
            assert_equal(getattr(again, field.name), getattr(parameters, field.name))
    for name, values in bank.to_arrays().items():
        np.testing.assert_array_equal(fit.bank.to_arrays()[name], values)
    assert fit.bank.image_ids == bank.image_ids
    np.testing.assert_array_equal(fit.sums.feature_products, sums.feature_products)


def test_what_is_counted_of_queries_is_read_as_it_was(tmp_path: Path) -> None:
    sums, bank = fitted(images(), size=300)
    use = QueryUse(np.array([3, 0, 0, 1]), np.array([9.0, 0.5, 7.0, 0.1]), 12)
    of_scores = fit_scores(["maskomaly"], sums, bank, FitSettings(bank=300), use)
    folder = FitFolder(tmp_path / "FIT")
    folder.write(
        IDENTITY,
        FitSettings(bank=300),
        sums,
        bank,
        of_scores.parameters,
        queries=use,
        fitted=of_scores.names,
        refused={},
        remarks={},
    )
    fit = Fit(folder.path)
    assert fit.queries is not None
    assert_equal(fit.queries.accepted, use.accepted)
    assert_equal(fit.queries.response, use.response)
    assert fit.queries.pixels == 12
    assert Maskomaly.of_fit(FitInUse(fit)).rejected == (1,)
    np.testing.assert_array_equal(fit.sums.feature_products, sums.feature_products)
    assert Fit(written(tmp_path / "without").path).queries is None


def assert_equal(found: Any, expected: Any) -> None:
    if isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
    else:
        assert found == expected


def test_two_fits_are_the_same_files(tmp_path: Path) -> None:
    first, second = written(tmp_path / "a"), written(tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["bank.safetensors", "fit.json", "scores.safetensors", "statistics.safetensors"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert first.read() == second.read()


def test_the_search_is_that_of_the_settings(tmp_path: Path) -> None:
    fit = Fit(written(tmp_path, FitSettings(bank=300, bank_dims=5, bank_coreset=50), ("cdnp",)).path)
    assert fit.names == ("knn", "cdnp")
    neighbours = fit.neighbours()
    assert neighbours.index.vectors.shape == (50, 5)
    assert fit.neighbours(metric="cosine").index.vectors.shape == (50, 5)
    assert neighbours.distance(queries().flatten(1).T).shape == (15,)
    assert fit.parameters("cdnp").d_max == pytest.approx(neighbours.greatest())


def test_another_network_is_refused(tmp_path: Path) -> None:
    fit = Fit(written(tmp_path).path)
    fit.require_network(network_identity(IDENTITY))
    fit.require_network(network_identity(IDENTITY | {"model": "another name for it"}))
    with pytest.raises(ConfigError, match="of another network: the sha256 of the weights was 'ab12', is 'cd34'"):
        fit.require_network(network_identity(IDENTITY | {"model_sha256": "cd34"}))
    with pytest.raises(ConfigError, match="the feature stage was 2, is 3"):
        fit.require_network(network_identity(IDENTITY | {"feature_stage": 3}))


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        ({"flip": True}, "--flip was False, is True"),
        ({"scales": [0.75, 1.0]}, r"--scales was \[\], is \[0.75, 1.0\]"),
        ({"mc_dropout": 8}, "--mc-dropout was 0, is 8"),
        ({"members_sha256": [["cd34", None]]}, "the sha256 of the further networks was"),
    ],
    ids=["flip", "scales", "dropout", "members"],
)
def test_a_network_that_is_asked_in_another_way_is_refused(
    passes: dict[str, object], message: str, tmp_path: Path
) -> None:
    """Its logits are logarithms of mean probabilities."""
    fit = Fit(written(tmp_path).path)
    with pytest.raises(ConfigError, match=message):
        fit.require_network(network_identity(IDENTITY | passes))


def test_a_network_without_files_has_its_name() -> None:
    nameless = IDENTITY | {"model_sha256": None}
    assert network_identity(nameless)["model"] == "internimage-l"
    assert "model" not in network_identity(IDENTITY)


def test_what_a_fit_lacks_is_refused_by_name(tmp_path: Path) -> None:
    fit = Fit(written(tmp_path, names=("sml", "react")).path)
    with pytest.raises(ConfigError, match=r"has no react: .*offers no head\(features\)"):
        fit.parameters("react")
    with pytest.raises(ConfigError, match="has no vim, it holds sml: the same `oodray fit` with --scores vim adds it"):
        fit.parameters("vim")


def test_what_is_no_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"is not a fit: it has no fit.json. `oodray fit"):
        Fit(tmp_path)
    (tmp_path / "parts").mkdir()
    with pytest.raises(ResultsError, match="is not finished: run its `oodray fit` command again"):
        Fit(tmp_path)
    (tmp_path / "fit.json").write_text("{")
    with pytest.raises(ResultsError, match="is damaged"):
        Fit(tmp_path)
    (tmp_path / "fit.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(ResultsError, match="not a fit that this version"):
        Fit(tmp_path)


def test_damaged_arrays_are_named(tmp_path: Path) -> None:
    folder = written(tmp_path)
    (tmp_path / "bank.safetensors").write_bytes(b"nothing")
    with pytest.raises(ResultsError, match=r"bank.safetensors is damaged"):
        _ = Fit(folder.path).bank
    (tmp_path / "statistics.safetensors").unlink()
    with pytest.raises(ResultsError, match="cannot read"):
        _ = Fit(folder.path).sums


def test_remarks_say_what_was_changed() -> None:
    found = images()
    for one in found:
        one.features[3] = 1.0
        one.logits[4] = -50.0
    found_scores = fit_scores(("sml", "mahalanobis"), *fitted(found), FitSettings())
    assert "statistics of all pixels: 4" in found_scores.remarks["sml"]
    assert "singular: it was shrunk, 1e-08 of it" in found_scores.remarks["mahalanobis"]


def test_unknown_scores_are_refused() -> None:
    with pytest.raises(ConfigError, match="no score to fit is named knnn; known: sml, "):
        fit_scores(["knnn"], *fitted(images(2)), FitSettings())
