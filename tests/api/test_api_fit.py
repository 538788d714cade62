"""Whole fits of a folder of images, compared with numpy on all of them at once, and with each other byte by byte."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from runs import TESTS

import oodray
from oodray import Fit, Segmentation
from oodray.errors import ConfigError, DatasetError, OodrayError, ResultsError, RunError
from oodray.job import finisher
from oodray.job.executors.local import LocalExecutor
from oodray.results.folder import ResultsFolder
from oodray.results.reading import finished_units, read_rows
from oodray.scores.fitted import parts
from oodray.scores.fitted.bank import priorities_of
from oodray.scores.fitted.folder import FitFolder
from oodray.scores.maskomaly import Maskomaly

pytestmark = pytest.mark.timeout(240)

FILES = ["bank.safetensors", "fit.json", "scores.safetensors", "statistics.safetensors"]

Start = Callable[..., Fit]


@pytest.fixture
def known_root(tiny_root: Path) -> Path:
    """The images of the tiny dataset with labels of a folder: no pixel is OoD, a strip of each is ignored."""
    for path in sorted((tiny_root / "annotations").iterdir()):
        codes = np.array(Image.open(path))
        target = tiny_root / "labels" / path.name.replace("_mask", "")
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(np.where(codes == 255, 255, 0).astype(np.uint8)).save(target)
    shutil.rmtree(tiny_root / "annotations")
    return tiny_root


@pytest.fixture
def start(known_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Fits; the network is found in the working directory, and the statistics of two units at a time are written."""
    monkeypatch.chdir(TESTS)
    monkeypatch.setattr(parts, "UNITS_PER_FILE", 2)

    def fit(out: str = "FIT", **given: Any) -> Fit:
        options: dict[str, Any] = {"dataset": "folder", "root": known_root, "model": "fakes:colours"}
        options |= {"threads": 1, "executor": "local", "progress": False, "bank": 100, "scores": "sml"}
        return oodray.fit(out=tmp_path / out, **(options | given))

    return fit


def network_on(root: Path) -> list[tuple[str, Segmentation, NDArray[np.bool_]]]:
    """Of every image its id, what the network says of it, and which pixels count."""
    network = fakes.Colours()
    paths = sorted((root / "images").iterdir())
    return [
        (
            f"images/{path.stem}",
            network.segment_one(np.array(Image.open(path))),
            np.array(Image.open(root / "labels" / path.name)) == 0,
        )
        for path in paths
    ]


def at_size(segmentation: Segmentation, size: tuple[int, int]) -> NDArray[np.float64]:
    logits = segmentation.logits[None].double()
    return torch.nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)[0].numpy()


def at_centres(counts: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Of pixels those at the centres of a grid: half a step from its edge, and whole steps from there."""
    rows = np.floor((np.arange(height) + 0.5) * counts.shape[0] / height).astype(int)
    columns = np.floor((np.arange(width) + 0.5) * counts.shape[1] / width).astype(int)
    return np.asarray(counts[rows][:, columns])


def same_bytes(first: Path, second: Path) -> bool:
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in FILES)


def test_statistics_are_those_of_all_images(start: Start, known_root: Path) -> None:
    fit = start(bank=10_000)
    found = network_on(known_root)
    m, predicted, f = [], [], []
    for _, segmentation, counts in found:
        logits = at_size(segmentation, counts.shape)
        m.append(logits.max(0)[counts])
        predicted.append(logits.argmax(0)[counts])
        features = segmentation.features
        there = at_centres(counts, *features.shape[1:])
        f.append(features.permute(1, 2, 0).double().numpy()[there])
    all_m, all_f = np.concatenate(m), np.concatenate(f)
    assert fit.sums.images == 10
    assert fit.sums.m.count == all_m.size
    assert fit.sums.m.mean == pytest.approx(all_m.mean(), rel=1e-6)
    np.testing.assert_array_equal(fit.sums.pixels, np.bincount(np.concatenate(predicted), minlength=4))
    np.testing.assert_allclose(fit.sums.feature_products, all_f.T @ all_f, rtol=1e-6)
    assert fit.content["vectors"] == len(fit.bank) == len(all_f) < 10_000
    np.testing.assert_allclose(fit.bank.features.sum(0), all_f.sum(0), rtol=1e-5)
    # Tau is what `oodray calibrate` finds.
    rounded = all_m.astype(np.float16)
    assert np.mean(rounded < fit.tau) <= 0.05 < np.mean(rounded <= fit.tau)
    assert fit.content["confidence_quantiles"]["0.5"] == pytest.approx(np.median(all_m), abs=2e-3)


def test_the_bank_holds_the_least_priorities(start: Start, known_root: Path) -> None:
    bank = start(bank=60).bank
    least = []
    for image_id, segmentation, counts in network_on(known_root):
        places = np.flatnonzero(at_centres(counts, *segmentation.features.shape[1:]))
        least += priorities_of(0, image_id, places).tolist()
    assert bank.priorities.tolist() == sorted(least)[:60]


def test_a_fit_holds_every_score_and_nothing_else(start: Start, tmp_path: Path) -> None:
    fit = start(scores=())
    assert sorted(path.name for path in (tmp_path / "FIT").iterdir()) == FILES
    assert fit.names == (
        "sml",
        "sml-smoothed",
        "mahalanobis",
        "mahalanobis++",
        "knn",
        "cdnp",
        "novelty",
        "novelty-half",
        "vim",
        "neco",
        "gmm",
    )
    identity = fit.content["identity"]
    assert identity["dataset"] == "folder"
    assert identity["labels"] == "predicted"
    assert identity["code_sha256"] is not None


@pytest.mark.soak  # Ray takes its time to start workers
def test_no_executor_and_no_number_of_workers_shows(start: Start, tmp_path: Path, ray_session: None) -> None:
    start("local", scores=())
    start("ray", scores=(), executor="ray", workers=2)
    assert same_bytes(tmp_path / "local", tmp_path / "ray")


def stopping(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """From now on a pass is stopped after some units."""
    stream = LocalExecutor.stream

    def some(self: LocalExecutor, job: Any, on_start: Any) -> Any:
        for number, done in enumerate(stream(self, job, on_start)):
            yield done
            if number + 1 == after:
                raise KeyboardInterrupt

    monkeypatch.setattr(LocalExecutor, "stream", some)


@pytest.mark.parametrize("after", [1, pytest.param(4, marks=pytest.mark.soak), 10])
def test_a_fit_that_was_stopped_is_continued(
    after: int, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start("undisturbed")
    with monkeypatch.context() as patch:
        stopping(patch, after)
        with pytest.raises(KeyboardInterrupt):
            start("stopped")
    assert not (tmp_path / "stopped/fit.json").exists()
    done = finished_units(ResultsFolder(tmp_path / "stopped/parts"))
    assert len(done) >= after
    with pytest.raises(ResultsError, match="is not finished: run its `oodray fit` command again"):
        Fit(tmp_path / "stopped")
    seen: list[str] = []
    segment = fakes.Colours.segment_one

    def watched(self: fakes.Colours, image: NDArray[np.uint8]) -> Segmentation:
        seen.append("an image")
        return segment(self, image)

    monkeypatch.setattr(fakes.Colours, "segment_one", watched)
    start("stopped")
    assert len(seen) == 10 - len(done)
    assert same_bytes(tmp_path / "undisturbed", tmp_path / "stopped")


def test_a_unit_that_was_gathered_but_not_finished_counts_once(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the process had been killed between its two files."""
    start("undisturbed")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finisher, "write_part", killed)
        with pytest.raises(KeyboardInterrupt):
            start("killed")
    assert list((tmp_path / "killed/parts/statistics").glob("unit-*"))
    start("killed")
    assert same_bytes(tmp_path / "undisturbed", tmp_path / "killed")


def test_a_finished_fit_is_left_as_it_is(start: Start) -> None:
    first = start(scores=["sml"])
    stamp = first.folder.bank.stat().st_mtime
    again = start(scores="sml")
    assert again.names == ("sml",)
    assert again.folder.bank.stat().st_mtime == stamp


def test_scores_that_a_fit_lacks_are_fitted_from_its_statistics(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start("all", scores=())
    start("some", scores=["sml", "cdnp"])

    def fails(*_: object) -> Segmentation:
        raise AssertionError("no image is segmented")

    monkeypatch.setattr(fakes.Colours, "segment_one", fails)
    names = Fit(tmp_path / "all").names
    assert start("some", scores=list(names)).names == names
    for name in FILES:
        assert (tmp_path / "all" / name).read_bytes() == (tmp_path / "some" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bank": 50}, "holds a fit with other settings: bank was 100, is 50"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"images": 3}, "the dataset lists other images or labels"),
        ({"model": "fakes:flat"}, "model was 'fakes:colours', is 'fakes:flat'"),
        ({"quantile": 0.3}, "tau is of the quantile 0.05, not of 0.3: pass --quantile 0.05"),
    ],
)
def test_another_fit_is_refused(changed: dict[str, Any], message: str, start: Start, tmp_path: Path) -> None:
    start()
    with pytest.raises(ResultsError, match=message):
        start(**changed)
    start(overwrite=True, **({"bank": 50} if "model" in changed else changed))
    with pytest.raises(ResultsError, match=r"with other settings|tau is of the quantile 0\.3"):
        start()


def test_a_stopped_fit_of_another_network_is_refused(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stopping(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            start()
    with pytest.raises(ResultsError, match="with other settings: bank was 100, is 50"):
        start(bank=50)


def test_images_are_drawn_at_random(start: Start, known_root: Path) -> None:
    fit = start(images=4)
    assert fit.sums.images == 4
    everything = {f"images/{path.stem}" for path in (known_root / "images").iterdir()}
    assert set(fit.content["images"]) < everything
    assert start("other", images=4, seed=5).content["images"] != fit.content["images"]
    assert start("more", images=99).sums.images == 10


def test_an_image_with_a_bad_number_is_left_out(start: Start, known_root: Path, tmp_path: Path) -> None:
    """The fit is that of the other images."""
    image = np.array(Image.open(known_root / "images/03.png"))
    image[0, 0] = fakes.MARK
    Image.fromarray(image).save(known_root / "images/03.png")
    fit = start(model="fakes:nan_on_mark", bank=10_000)
    assert fit.sums.images == 9
    assert fit.content["calibration"]["failed"] == 1
    assert "images/03" not in fit.content["images"]


def test_where_every_image_fails_there_is_no_fit(start: Start, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"all 10 images failed; `oodray status .*parts` shows"):
        start(model="fakes:one_too_many")
    assert not (tmp_path / "FIT/fit.json").exists()


def test_images_with_something_unknown_are_refused(start: Start, known_root: Path) -> None:
    label = np.array(Image.open(known_root / "labels/05.png"))
    label[:4, :4] = 1
    Image.fromarray(label).save(known_root / "labels/05.png")
    with pytest.raises(DatasetError, match="of the pixels are labelled OoD"):
        start()


class NeverSure(fakes.Colours):
    """Says the same of every pixel."""

    def segment_one(self, image: NDArray[np.uint8]) -> Segmentation:
        found = super().segment_one(image)
        return Segmentation(torch.ones_like(found.logits), found.features)


def test_a_score_that_cannot_be_fitted_is_said(
    start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a network whose logits are the same everywhere; exit 0."""
    monkeypatch.setattr(fakes, "colours", NeverSure)
    fit = start(progress=True)
    assert "sml" not in fit.names
    assert "no deviation" in fit.content["refused"]["sml"]
    said = capsys.readouterr().err
    assert "warning: sml: the maximum logit has no deviation" in said
    assert "fewer than --bank: all are kept" not in said
    with pytest.raises(ConfigError, match="has no sml: the maximum logit has no deviation"):
        fit.parameters("sml")


def test_fewer_vectors_than_asked_for_are_said(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    fit = start(progress=True, bank=10_000)
    assert (
        f"the images have {len(fit.bank)} feature vectors, fewer than --bank: all are kept" in capsys.readouterr().err
    )


class WithHead(fakes.Colours):
    """A network that offers its last layer: it sees the coarse colours at a quarter of the size."""

    def segment_one(self, image: NDArray[np.uint8]) -> Segmentation:
        found = super().segment_one(image)
        rgb = torch.from_numpy(image).permute(2, 0, 1) / 255
        seen = torch.nn.functional.adaptive_avg_pool2d(rgb, (found.logits.shape[1], found.logits.shape[2]))
        return Segmentation(found.logits, found.features, head_input=seen)

    def head(self, features: torch.Tensor) -> torch.Tensor:
        return torch.einsum("kc,chw->khw", fakes.WEIGHTS, features) + fakes.BIAS[:, None, None]


def test_a_network_that_offers_its_last_layer_has_all_scores(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes, "colours", WithHead)
    fit = start(scores=())
    assert fit.names[-3:] == ("react", "ash", "scale")
    assert "maskomaly" not in {*fit.names, *fit.content["refused"]}
    assert fit.bank.head_inputs is not None
    assert fit.bank.head_inputs.shape == (100, 3)
    assert fit.parameters("react").limit == pytest.approx(np.quantile(fit.bank.head_inputs, 0.9))


def test_other_networks_have_no_such_score(start: Start, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"react, scale cannot be fitted: the network offers no head\(features\)"):
        start(scores="scale, react")
    assert not (tmp_path / "FIT/fit.json").exists()


class WithQueries(fakes.Colours):
    """A mask classifier: a query for each class, one for nothing, and one that no image uses."""

    def segment_one(self, image: NDArray[np.uint8]) -> Segmentation:
        found = super().segment_one(image)
        classes = 9 * torch.eye(5)[[0, 1, 2, 3, 4, 4]]
        everywhere, nowhere = torch.full((2, 1, *found.logits.shape[1:]), 9.0) * torch.tensor([1, -1]).view(2, 1, 1, 1)
        return Segmentation.of_queries(classes, torch.cat([found.logits, everywhere, nowhere]), found.features)


def test_rejected_queries_are_found_by_a_fit(start: Start, known_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes, "colours", WithQueries)
    fit = start(scores=())
    assert fit.names[-1] == "maskomaly"
    # The query of nothing lies on everything, which no rejected one may.
    assert fit.parameters("maskomaly").rejected.tolist() == [5]
    image = np.full((32, 48, 3), 90, np.uint8)
    found = oodray.detect(image, WithQueries(), tau=fakes.TAU, fit=str(fit.folder.path))
    by_hand = oodray.detect(image, WithQueries(), tau=fakes.TAU, scores=[Maskomaly([5])])
    assert np.array_equal(found.scores["maskomaly"], by_hand.scores["maskomaly"])
    run = oodray.run(
        dataset="folder",
        root=known_root,
        model="fakes:colours",
        tau=fakes.TAU,
        fit=str(fit.folder.path),
        scores="energy,maskomaly",
        out=fit.folder.path.parent / "out",
        executor="local",
        progress=False,
    )
    assert (run.images["status"] == "ok").all()
    tallies = read_rows(ResultsFolder(run.out).parts()).to_pylist()[0]["tallies"]
    assert [tally["score"] for tally in tallies] == ["energy", "maskomaly"]


def test_networks_without_queries_have_no_rejected_ones(start: Start, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="maskomaly cannot be fitted: it needs a mask classifier"):
        start(scores="maskomaly")
    assert not (tmp_path / "FIT/fit.json").exists()


class ElevenClasses(fakes.Colours):
    """As many classes as CamVid labels."""

    def segment_one(self, image: NDArray[np.uint8]) -> Segmentation:
        found = super().segment_one(image)
        return Segmentation(torch.cat([found.logits, torch.zeros(7, *found.logits.shape[1:])]), found.features)


@pytest.fixture
def camvid(known_root: Path, tmp_path: Path) -> Path:
    """The tiny images as CamVid: columns of classes, the ninth of which no pixel has; 11 is ignored."""
    root = tmp_path / "camvid"
    for path in sorted((known_root / "images").iterdir()):
        image = np.array(Image.open(path))
        codes = np.tile(np.arange(image.shape[1]) * 12 // image.shape[1], (image.shape[0], 1)).astype(np.uint8)
        codes[codes == 9] = 2
        for folder, array in (("val", image), ("valannot", codes)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / folder / path.name)
    return root


def test_statistics_by_true_classes(start: Start, camvid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes, "colours", ElevenClasses)
    fit = start(dataset="camvid", root=camvid, labels="true")
    codes = [np.array(Image.open(path)) for path in sorted((camvid / "valannot").iterdir())]
    expected = np.bincount(np.concatenate([of.ravel() for of in codes]), minlength=12)[:11]
    np.testing.assert_array_equal(fit.sums.pixels, expected)
    assert fit.sums.pixels[9] == fit.sums.positions[9] == 0
    assert fit.content["remarks"]["sml"] == "classes without enough pixels have the statistics of all pixels: 9"
    assert set(np.unique(fit.bank.classes)) <= set(range(11)) - {9}
    assert fit.content["settings"]["labels"] == "true"


def test_true_classes_are_those_of_the_network(start: Start, camvid: Path, known_root: Path) -> None:
    with pytest.raises(ConfigError, match="--labels true needs labels of classes, which Folder of images does not"):
        start(labels="true")
    with pytest.raises(RunError, match="all 10 images failed"):
        start("camvid", dataset="camvid", root=camvid, labels="true")


def test_an_error_of_an_image_says_what_does_not_fit(
    start: Start, camvid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RunError):
        start(dataset="camvid", root=camvid, labels="true", progress=True)
    assert "the dataset labels 11 classes, the network knows 4: --labels true needs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scores": "knnn"}, "no score to fit is named 'knnn'; did you mean 'knn'?"),
        ({"labels": "truth"}, "labels must be predicted or true, got 'truth'"),
        ({"bank": 0}, "bank must be a whole number of at least 1, got 0"),
        ({"images": 2.5}, "images must be a whole number of at least 1, got 2.5"),
        ({"bank_dims": True}, "bank_dims must be a whole number of at least 1, got True"),
        ({"tau": 1.0}, "a fit does not take tau: it works without it, or finds it"),
        ({"quantile": 2}, "quantile must be a share from 0 to 0.999, got 2"),
        ({"dataset": "road-anomaly"}, "RoadAnomaly holds OoD pixels"),
    ],
)
def test_what_is_wrong_starts_nothing(given: dict[str, Any], message: str, start: Start, tmp_path: Path) -> None:
    with pytest.raises(OodrayError, match=message.replace("?", r"\?")):
        start(**given)
    assert not (tmp_path / "FIT").exists()


def test_what_is_no_fit_is_not_removed(start: Start, tmp_path: Path) -> None:
    (tmp_path / "FIT").mkdir()
    (tmp_path / "FIT/fit.json").write_text(json.dumps({"format": "another program's"}))
    with pytest.raises(ResultsError, match="is not a fit that this version of oodray can read"):
        start(overwrite=True)
    assert FitFolder(tmp_path / "FIT").fit.exists()
