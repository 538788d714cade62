"""Runs whose own images are what each of them is compared with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from runs import TESTS, rows
from sklearn.neighbors import NearestNeighbors

import oodray
from oodray import Segmentation
from oodray.errors import ConfigError
from oodray.job import passes
from oodray.job.executors.local import LocalExecutor
from oodray.metrics.scales import scale_named
from oodray.results.folder import ResultsFolder
from oodray.results.reading import read_rows
from oodray.scores.fitted import parts
from oodray.scores.fitted.folder import Fit
from oodray.scores.registry import DEFAULT_SCORES

pytestmark = pytest.mark.timeout(240)

Start = Callable[..., oodray.Run]


@pytest.fixture
def start(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Runs with a reference of their own; nothing is kept between the passes unless it is asked for."""
    monkeypatch.chdir(TESTS)
    monkeypatch.setattr(parts, "UNITS_PER_FILE", 2)
    monkeypatch.setattr(passes, "READ_RATE", 1e12)

    def run(out: str = "out", **given: Any) -> oodray.Run:
        options: dict[str, Any] = {"dataset": "ade-ood", "root": tiny_root, "model": "fakes:colours", "tau": fakes.TAU}
        options |= {"threads": 1, "executor": "local", "progress": False, "fit": "self", "keep_features_gb": 0.0}
        return oodray.run(out=tmp_path / out, **(options | given))

    return run


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A text for every image that passes the network."""
    found: list[str] = []
    segment = fakes.Colours.segment_one

    def watched(self: fakes.Colours, image: NDArray[np.uint8]) -> Segmentation:
        found.append("an image")
        return segment(self, image)

    monkeypatch.setattr(fakes.Colours, "segment_one", watched)
    return found


def of_network(root: Path) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Of every image, its features as rows, in float16, and the largest logit of every pixel."""
    found = {}
    for path in sorted((root / "images").iterdir()):
        image = np.array(Image.open(path))
        segmentation = fakes.Colours().segment_one(image)
        logits = torch.nn.functional.interpolate(segmentation.logits[None], image.shape[:2], mode="bilinear")[0]
        features = segmentation.features.half().double().flatten(1).T.numpy()
        found[path.stem] = features, logits.amax(0).half().double().numpy()
    return found


def test_novelty_is_its_definition(start: Start, tiny_root: Path) -> None:
    """Against all features of the other images, measured in float64; the run finds what `oodray.detect` does."""
    run = start()
    assert run.metrics["score"].tolist() == [*DEFAULT_SCORES, "novelty", "novelty-half"]
    reference = Fit(Path(str(run.out)) / "reference")
    parameters = reference.parameters("novelty")
    of_images = of_network(tiny_root)
    assert len(reference.bank) == sum(len(features) for features, _ in of_images.values())
    own, m = of_images["04"]
    others = np.concatenate([features for name, (features, _) in of_images.items() if name != "04"])
    near = NearestNeighbors(n_neighbors=3).fit(others).kneighbors(own)[0].mean(1)
    height, width = m.shape
    grid = torch.from_numpy(near).view(1, 1, -(-height // 16), -(-width // 16))
    d = torch.nn.functional.interpolate(grid, (height, width), mode="bilinear")[0, 0].numpy()
    expected = (-m - parameters.unsure_median) / parameters.unsure_range
    expected += (d - parameters.distance_median) / parameters.distance_range
    [row] = [row for row in read_rows(ResultsFolder(run.out).parts()).to_pylist() if row["image_id"].endswith("04")]
    photo = tiny_root / "images/04.png"
    found = oodray.detect(
        photo,
        fakes.colours(),
        image_id=row["image_id"],
        fit=str(reference.folder.path),
        tau=fakes.TAU,
        scores="novelty",
    )
    # The confidence is that of float32 logits: at a few pixels it rounds to the neighbouring float16.
    np.testing.assert_allclose(found.scores["novelty"], expected, atol=6e-3)
    [tally] = [tally for tally in row["tallies"] or () if tally["score"] == "novelty"]
    keys = scale_named(tally["scale"]).keys(found.scores["novelty"].astype(np.float32)).astype(np.int64)
    of_keys, counts = np.unique(keys, return_counts=True)
    stored = dict.fromkeys(of_keys.tolist(), 0)
    for key, count in zip(tally["keys"], tally["counts"], strict=True):
        stored[key] += count
    assert stored == dict(zip(of_keys.tolist(), counts.tolist(), strict=True))


def test_the_scores_of_the_paper_stay_as_they_are(start: Start, tmp_path: Path) -> None:
    start("plain", fit=None)
    start("self")
    plain, own = rows(tmp_path / "plain"), rows(tmp_path / "self")
    for name in plain.column_names:
        if name != "tallies":
            assert plain[name].equals(own[name]), name
    for before, after in zip(plain["tallies"].to_pylist(), own["tallies"].to_pylist(), strict=True):
        assert before == [tally for tally in after or () if not tally["score"].startswith("novelty")]


OPTIONS: dict[str, Any] = {
    "scores": "ratio,max-logit,knn,novelty,novelty-half,mean(novelty),top-share(energy)",
    "refine": "guided:4",
    "keep_maps": "novelty",
    "sweep_k": (3,),
    "batch_size": 2,
}


def test_what_is_kept_between_the_passes_does_not_show(start: Start, tmp_path: Path, seen: list[str]) -> None:
    start("again", **OPTIONS)
    assert len(seen) == 20
    seen.clear()
    start("kept", **OPTIONS, keep_features_gb=1.0)
    assert len(seen) == 10
    assert rows(tmp_path / "again").equals(rows(tmp_path / "kept"))
    assert sorted(path.name for path in (tmp_path / "kept/reference").iterdir()) == [
        "bank.safetensors",
        "fit.json",
        "scores.safetensors",
    ]
    seen.clear()
    # Less of it: the smallest images are kept.
    start("some", **OPTIONS, keep_features_gb=10 * 60e3 / 1e9)
    assert 10 < len(seen) < 20
    assert rows(tmp_path / "again").equals(rows(tmp_path / "some"))


@pytest.mark.soak  # Ray takes its time to start workers
@pytest.mark.parametrize("gb", [0.0, 1.0])
def test_no_executor_and_no_number_of_workers_shows(gb: float, start: Start, tmp_path: Path, ray_session: None) -> None:
    start("local", reference_gap=1)
    start("ray", reference_gap=1, executor="ray", workers=2, keep_features_gb=gb)
    assert rows(tmp_path / "local").equals(rows(tmp_path / "ray"))


@pytest.mark.parametrize("after", [4, 13])
@pytest.mark.parametrize("gb", [0.0, 1.0])
def test_a_run_that_was_stopped_in_either_pass_is_continued(
    after: int, gb: float, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[str]
) -> None:
    start("undisturbed")
    stream, units = LocalExecutor.stream, 0

    def some(self: LocalExecutor, job: Any, on_start: Any) -> Any:
        nonlocal units
        for done in stream(self, job, on_start):
            yield done
            units += 1
            if units == after:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LocalExecutor, "stream", some)
        with pytest.raises(KeyboardInterrupt):
            start("stopped", keep_features_gb=gb)
    assert (tmp_path / "stopped/reference/fit.json").exists() == (after > 10)
    seen.clear()
    start("stopped", keep_features_gb=gb)
    assert len(seen) < (20 if after < 10 else 10)
    assert rows(tmp_path / "undisturbed").equals(rows(tmp_path / "stopped"))
    seen.clear()
    start("stopped", keep_features_gb=gb)
    assert not seen


def test_labels_do_not_show(start: Start, tiny_root: Path, tmp_path: Path) -> None:
    start("labelled")
    for path in (tiny_root / "annotations").iterdir():
        Image.fromarray(np.full_like(np.array(Image.open(path)), 255)).save(path)
    start("ignored")
    first, second = (Fit(tmp_path / out / "reference") for out in ("labelled", "ignored"))
    assert np.array_equal(first.bank.features, second.bank.features)
    assert first.parameters("novelty") == second.parameters("novelty")


def test_a_sample_of_the_images(start: Start, tmp_path: Path) -> None:
    start(reference_images=4, keep_features_gb=1.0)
    reference = Fit(tmp_path / "out/reference")
    assert reference.content["reference"] == {"images": 4, "gap": 0}
    assert len(reference.bank.image_ids) == 4


def test_an_image_without_others_is_an_error_row(start: Start, tmp_path: Path) -> None:
    """Eight of ten have one that is far enough from them in the sequence."""
    run = start(reference_gap=8)
    failed = run.images[run.images["status"] == "error"]
    assert failed["image_id"].str[-2:].tolist() == ["01", "02", "03", "04", "05", "06", "07", "08"]
    assert failed["error"].str.contains("0 feature vectors of other images, and it takes 3: give the run more").all()
    again = start("kept", reference_gap=8, keep_features_gb=1.0)
    assert rows(tmp_path / "out").equals(rows(tmp_path / "kept"))
    assert again.images["status"].tolist() == run.images["status"].tolist()


def test_an_image_that_fails_is_no_part_of_it(start: Start, tiny_root: Path, tmp_path: Path) -> None:
    image = np.array(Image.open(tiny_root / "images/03.png"))
    image[0, 0] = fakes.MARK
    Image.fromarray(image).save(tiny_root / "images/03.png")
    run = start(model="fakes:nan_on_mark")
    assert [name[-2:] for name in run.images[run.images["status"] == "error"]["image_id"]] == ["03"]
    assert not any(name.endswith("03") for name in Fit(tmp_path / "out/reference").bank.image_ids)


def test_other_settings_after_a_first_pass_start_it_anew(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = LocalExecutor.stream

    def none(self: LocalExecutor, job: Any, on_start: Any) -> Any:
        if not isinstance(job.gathering, passes.FirstPass):
            raise KeyboardInterrupt
        yield from stream(self, job, on_start)

    with monkeypatch.context() as patch:
        patch.setattr(LocalExecutor, "stream", none)
        with pytest.raises(KeyboardInterrupt):
            start(reference_gap=1)
    start(reference_gap=2)
    assert json.loads((tmp_path / "out/reference/fit.json").read_text())["reference"]["gap"] == 2
    start(reference_gap=1, overwrite=True)
    assert json.loads((tmp_path / "out/reference/fit.json").read_text())["reference"]["gap"] == 1


def test_what_is_said(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    start(progress=True, keep_features_gb=1.0)
    said = " ".join(capsys.readouterr().err.split())
    assert "first pass: features of 10 images of the run; of each up to 100.0 MB are kept (1 GB in all)" in said
    assert "warning: novelty compares each image with 9 others: below some 20 images" in said
    assert "second pass: scores of 10 images" in said
    start(progress=True)
    assert "first pass" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fit": None, "reference_gap": 2}, "--reference-gap 2 goes with --fit self"),
        ({"fit": None, "reference_images": 2}, "--reference-images 2 goes with --fit self"),
        (
            {"scores": "vim"},
            "--fit self gives knn, novelty, novelty-half; vim needs statistics of in-distribution images",
        ),
        ({"tau": "auto"}, "--tau auto needs images that hold nothing unknown"),
        ({"refine": "guide"}, "refine must be guided or bilateral, with a radius"),
        ({"keep_features_gb": -1.0}, "keep_features_gb must be a number of GB"),
        ({"fit": None, "scores": "novelty"}, "the score novelty needs statistics"),
    ],
)
def test_what_does_not_go_together(given: dict[str, Any], message: str, start: Start, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        start(**given)
    assert not (tmp_path / "out").exists()


def test_another_image_is_compared_with_those_of_the_run(start: Start, tmp_path: Path) -> None:
    start()
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    found = oodray.detect(image, fakes.colours(), fit=tmp_path / "out/reference", tau=fakes.TAU)
    assert found.scores["novelty"].max() > 10
    with pytest.raises(ConfigError, match="is the reference of a run, which has no tau"):
        oodray.detect(image, fakes.colours(), fit=tmp_path / "out/reference", tau="auto")


def test_images_that_are_appended_are_compared_with_the_first_bank(
    start: Start, tiny_root: Path, tmp_path: Path, seen: list[str]
) -> None:
    later = tmp_path / "later"
    for name in ("08", "09"):
        for path in (f"images/{name}.png", f"annotations/{name}_mask.png"):
            (later / path).parent.mkdir(parents=True, exist_ok=True)
            (tiny_root / path).rename(later / path)
    start()
    before = (tmp_path / "out/reference/bank.safetensors").read_bytes()
    for moved in later.rglob("*.png"):
        moved.rename(tiny_root / moved.relative_to(later))
    seen.clear()
    run = start(append=True)
    assert len(seen) == 2
    assert (tmp_path / "out/reference/bank.safetensors").read_bytes() == before
    assert run.images["status"].tolist() == ["ok"] * 10
    names = {tally["score"] for tally in read_rows(ResultsFolder(run.out).parts()).to_pylist()[-1]["tallies"]}
    assert "novelty" in names
