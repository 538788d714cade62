"""A fit in runs and in `oodray.detect`: the same scores, refused where they do not belong."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from runs import TESTS, Run

import oodray
from oodray.errors import ConfigError, ResultsError
from oodray.metrics.scales import scale_named
from oodray.results.folder import ResultsFolder
from oodray.results.reading import read_rows
from oodray.scores.fitted.folder import Fit
from oodray.scores.registry import DEFAULT_SCORES

MODEL = "internimage-n-demo"


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """A fit on plain photographs, which have no labels."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("known")
    random = np.random.default_rng(0)
    (folder / "images").mkdir()
    for index in range(3):
        pixels = np.kron(random.integers(0, 256, (8, 12, 3)), np.ones((16, 16, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
    return oodray.fit(
        dataset="folder",
        root=str(folder / "images"),
        model=MODEL,
        out=folder / "FIT",
        bank=200,
        executor="local",
        progress=False,
    )


def test_a_run_has_the_scores_of_the_fit(fit: Fit, tiny_dataset: Path, tmp_path: Path) -> None:
    run = oodray.run(
        dataset="ade-ood",
        root=str(tiny_dataset),
        model=MODEL,
        fit=str(fit.folder.path),
        tau="auto",
        executor="local",
        out=tmp_path / "out",
        progress=False,
    )
    assert [metrics["score"] for metrics in run.metrics.to_dict("records")] == [*DEFAULT_SCORES, *fit.names]
    [row] = [row for row in read_rows(ResultsFolder(run.out).parts()).to_pylist() if row["image_id"].endswith("03")]
    net = oodray.load(MODEL)
    found = oodray.detect(row["image_uri"], net, image_id=row["image_id"], fit=str(fit.folder.path), tau="auto")
    assert found.tau == fit.tau
    assert list(found.scores) == [*DEFAULT_SCORES, *fit.names]
    for tally in row["tallies"]:
        keys = scale_named(tally["scale"]).keys(found.scores[tally["score"]].astype(np.float32))
        expected = np.repeat(tally["keys"], tally["counts"])
        assert np.array_equal(np.sort(keys.ravel().astype(np.int64)), np.sort(expected)), tally["score"]


def test_neighbours_may_be_those_by_direction(fit: Fit) -> None:
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    net = oodray.load(MODEL)
    plain = oodray.detect(image, net, fit=str(fit.folder.path), scores=["knn", "cdnp"])
    cosine = oodray.detect(image, net, fit=str(fit.folder.path), scores=["knn", "cdnp"], knn_metric="cosine")
    assert np.array_equal(plain.scores["cdnp"], cosine.scores["cdnp"])
    assert not np.allclose(plain.scores["knn"], cosine.scores["knn"])
    features = net.segment([image])[0].features.double().flatten(1).T.numpy()
    bank = fit.bank.features.astype(np.float64)
    ours = features / np.linalg.norm(features, axis=1, keepdims=True)
    theirs = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    expected = np.sort(1 - ours @ theirs.T, axis=1)[:, :3].mean(1)
    assert cosine.scores["knn"].min() >= expected.min() - 1e-5
    assert cosine.scores["knn"].max() <= expected.max() + 1e-5


def test_superpixels_are_fitted_where_they_are_asked_for(fit: Fit, tmp_path: Path) -> None:
    """A finished fit gets them from its statistics."""
    pytest.importorskip("skimage", reason="scikit-image is an extra: pip install 'oodray[slic]'")
    assert "suplid" not in fit.names
    folder = Path(shutil.copytree(str(fit.folder.path), tmp_path / "FIT"))
    more = oodray.fit(
        dataset="folder",
        root=str(fit.folder.path.parent / "images"),
        model=MODEL,
        out=folder,
        bank=200,
        scores="suplid",
        executor="local",
        progress=False,
    )
    assert {*more.names} == {*fit.names, "suplid"}
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    found = oodray.detect(image, oodray.load(MODEL), fit=folder, scores="suplid").scores["suplid"]
    assert np.isfinite(found).all()
    assert len(np.unique(found)) > 100


def test_a_score_that_needs_a_fit_says_so() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(ConfigError, match="the score knn needs statistics of in-distribution images: `oodray fit"):
        oodray.detect(image, oodray.load(MODEL), scores="knn")
    with pytest.raises(ConfigError, match=r'tau="auto" takes the tau of a fit'):
        oodray.detect(image, oodray.load(MODEL), tau="auto")


def test_a_fit_of_another_network_is_refused(
    fit: Fit, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TESTS)
    with pytest.raises(ConfigError, match="is of another network"):
        Run(tiny_dataset, tmp_path / "out", fit=str(fit.folder.path))


def test_a_fit_of_another_network_is_refused_before_scenes_are_drawn(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TESTS)
    with pytest.raises(ConfigError, match="is of another network"):
        oodray.run(
            dataset="demo",
            model="fakes:colours",
            tau=1.0,
            fit=str(fit.folder.path),
            out=tmp_path / "out",
            executor="local",
            progress=False,
        )
    assert not (tmp_path / "out").exists()


def test_what_is_no_fit(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"is not a fit: it has no fit\.json\. `oodray fit"):
        oodray.detect(np.zeros((32, 32, 3), np.uint8), oodray.load(MODEL), fit=tmp_path)
