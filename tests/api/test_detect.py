"""`oodray.detect` finds in an image what a run finds, bit for bit."""

from __future__ import annotations

import io
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import fakes
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from runs import TESTS, Run

import oodray
from oodray.datasets.images import decode_label, read_bytes
from oodray.datasets.layouts import get_layout
from oodray.errors import ConfigError, ImageError
from oodray.job import worker
from oodray.metrics.scales import scale_named
from oodray.metrics.tally import Tally, score_keys
from oodray.models.segmenter import check_segmentations
from oodray.results.reading import read_rows

Float16 = NDArray[np.float16]

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


class Colours(fakes.Colours):
    """A network that knows its tau, as those do that `oodray.load` gives."""

    name, tau, device = "colours", fakes.TAU, "cpu"


@pytest.fixture(scope="module")
def run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(TESTS)
        run = Run(tiny_dataset, tmp_path_factory.mktemp("run") / "out", k=4, seed=3, ood_ratio=0.2, threads=2)
        run.go()
    return run


def tally(row: dict[str, Any]) -> Tally:
    return Tally.from_arrays(row["keys"], row["labels"], row["counts"])


def test_a_run_finds_the_same_to_the_last_bit(run: Run) -> None:
    rows = read_rows(run.folder.parts()).to_pylist()
    assert len(rows) == 10
    for row in rows:
        found = oodray.detect(row["image_uri"], Colours(), k=4, seed=3, ood_ratio=0.2, image_id=row["image_id"])
        assert np.array_equal(found.mask, oodray.decode_mask(row["mask_png"]))
        assert np.array_equal(found.clusters, oodray.decode_mask(row["clusters_png"]))
        assert found.image_score == row["image_score"]
        assert found.ood_fraction == row["ood_fraction"]
        label = decode_label(read_bytes(row["label_uri"]), get_layout("ade-ood").label_codes)
        for counted in row["tallies"]:
            keys = scale_named(counted["scale"]).keys(found.scores[counted["score"]].astype(np.float32))
            assert Tally.of(keys.astype(np.uint16), label) == tally(counted)
        for cluster in row["clusters"]:
            inside = found.clusters == cluster["cluster"]
            assert set(found.ratio[inside]) == {cluster["ratio"]}
            assert Tally.of(score_keys(found.confidence[inside]), label[inside]) == tally(cluster)


def test_a_path_and_its_pixels_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(IMAGE).save(path)
    by_path = oodray.detect(path, Colours())
    by_text = oodray.detect(str(path), Colours())
    by_pixels = oodray.detect(IMAGE, Colours(), image_id="photo")
    for other in (by_text, by_pixels):
        assert np.array_equal(by_path.mask, other.mask)
        assert np.array_equal(by_path.clusters, other.clusters)


def test_a_path_may_begin_at_home_and_be_any_path_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Like:
        def __fspath__(self) -> str:
            return "~/photo.png"

    monkeypatch.setenv("HOME", str(tmp_path))
    Image.fromarray(IMAGE).save(tmp_path / "photo.png")
    expected = oodray.detect(IMAGE, Colours(), image_id="photo")
    for image in ("~/photo.png", Path("~/photo.png"), Like()):
        assert np.array_equal(oodray.detect(image, Colours()).clusters, expected.clusters)


def test_a_photo_is_turned_as_its_exif_orientation_says(tmp_path: Path) -> None:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(IMAGE))).save(buffer, "PNG", exif=exif)
    (tmp_path / "photo.png").write_bytes(buffer.getvalue())
    found = oodray.detect(tmp_path / "photo.png", Colours())
    assert np.array_equal(found.confidence, oodray.detect(IMAGE, Colours()).confidence)


def test_logits_and_features_of_ones_own(run: Run) -> None:
    segmentation = fakes.Colours().segment_one(IMAGE)
    found = oodray.detect(IMAGE, segmentation, k=3, tau=1.5)
    assert np.array_equal(found.mask, oodray.detect(IMAGE, Colours(), k=3, tau=1.5).mask)


def test_logits_and_features_may_be_arrays() -> None:
    tensors = fakes.Colours().segment_one(IMAGE)
    logits, features = tensors.logits.numpy().copy(), np.flip(np.flip(tensors.features.numpy()).copy())
    logits.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = oodray.detect(IMAGE, oodray.Segmentation(cast("Any", logits), cast("Any", features)), k=3, tau=1.5)
    expected = oodray.detect(IMAGE, tensors, k=3, tau=1.5)
    assert np.array_equal(found.clusters, expected.clusters)
    assert np.array_equal(found.mask, expected.mask)


def test_maps_are_those_of_the_definitions() -> None:
    """Restated in float64: eq. 1 to 3 of the paper, and the softmax scores."""
    segmentation = fakes.Colours().segment_one(IMAGE)
    found = oodray.detect(IMAGE, segmentation, k=3, tau=1.5, ood_ratio=0.3)
    z = F.interpolate(segmentation.logits.double()[None], IMAGE.shape[:2], mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(found.confidence, z.amax(0).numpy(), rtol=2**-10, atol=1e-6)
    np.testing.assert_allclose(found.scores["energy"], -z.logsumexp(0).numpy(), rtol=2**-10, atol=1e-6)
    assert np.mean(found.classes == z.argmax(0).numpy()) > 0.999  # ties of float32 alone
    unsure = found.confidence.astype(np.float64) < 1.5
    for cluster in np.unique(found.clusters):
        inside = found.clusters == cluster
        assert set(found.ratio[inside]) == {unsure[inside].sum() / inside.sum()}
    assert np.array_equal(found.mask > 0, found.ratio > 0.3)
    assert np.array_equal(found.scores["ratio"], found.ratio)


def test_the_mask_comes_first_in_mask_then_logit() -> None:
    middle = float(np.median(oodray.detect(IMAGE, Colours()).confidence))
    found = oodray.detect(IMAGE, Colours(), k=6, tau=middle, ood_ratio=0.5)
    inside, ranks = found.mask > 0, found.scores["mask-then-logit"]
    assert inside.any()
    assert not inside.all()
    assert ranks[inside].min() > ranks[~inside].max()
    for part in (inside, ~inside):
        order = np.argsort(ranks[part], kind="stable")
        assert np.all(np.diff(found.confidence[part][order].astype(np.float64)) <= 0)


def test_scores_are_those_asked_for_and_all_without_a_list() -> None:
    assert set(oodray.detect(IMAGE, Colours(), scores=("energy", "ratio")).scores) == {"ratio", "energy"}
    assert set(oodray.detect(IMAGE, Colours(), scores="energy").scores) == {"energy"}
    assert set(oodray.detect(IMAGE, Colours(), scores="ratio, energy").scores) == {"ratio", "energy"}
    assert oodray.detect(IMAGE, Colours(), scores=None).scores.keys() == oodray.detect(IMAGE, Colours()).scores.keys()
    assert set(oodray.detect(IMAGE, Colours()).scores) == {
        "ratio",
        "mask-then-logit",
        "max-logit",
        "msp",
        "entropy",
        "energy",
    }


def test_the_callers_threads_are_restored() -> None:
    before = torch.get_num_threads()
    seen = []

    class Watching(Colours):
        def segment(self, images: list[NDArray[np.uint8]]) -> list[oodray.Segmentation]:
            seen.append(torch.get_num_threads())
            return super().segment(images)

    oodray.detect(IMAGE, Watching(), threads=before + 1)
    assert (seen, torch.get_num_threads()) == ([before + 1], before)
    with pytest.raises(ImageError):
        oodray.detect(IMAGE, fakes.Flat(), tau=1.0, threads=before + 1)
    assert torch.get_num_threads() == before


def test_images_are_left_as_they_are() -> None:
    class Writing(Colours):
        def segment(self, images: list[NDArray[np.uint8]]) -> list[oodray.Segmentation]:
            images[0][:] = 0
            return super().segment(images)

    image = IMAGE.copy()
    oodray.detect(image, Writing())
    assert np.array_equal(image, IMAGE)
    image.setflags(write=False)
    oodray.detect(image, Colours())


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (IMAGE[..., 0], r"an image is uint8 \(H, W, 3\) RGB, or the path of a file, not uint8 \(48, 64\)"),
        (IMAGE.astype(np.float32), "not float32"),
        (Image.fromarray(IMAGE), r"not Image; np\.asarray\(image\.convert\(\"RGB\"\)\) makes one of any Pillow image"),
        (np.zeros((0, 4, 3), np.uint8), "must have a pixel"),
        ("no-such-file.png", r"cannot read no-such-file.png"),
        (None, "not NoneType"),
    ],
)
def test_what_is_no_image_is_refused(image: Any, problem: str) -> None:
    with pytest.raises(ImageError, match=problem):
        oodray.detect(image, Colours())


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"k": 0}, "k must be a whole number from 1 to 255"),
        ({"ood_ratio": 1.5}, "ood_ratio must be a share from 0 to 1"),
        ({"scores": ("enrgy",)}, "unknown score 'enrgy'; did you mean 'energy'"),
        ({"scores": "enrgy"}, "unknown score 'enrgy'; did you mean 'energy'"),
        ({"scores": 5}, "scores in the arguments must be a list of names, got 5"),
        ({"tau": float("nan")}, "tau must be a finite number"),
        ({"kmeans_backend": "cmul"}, "kmeans_backend must be one of"),
        ({"threads": 0}, "threads must be"),
    ],
)
def test_settings_are_checked_as_those_of_a_run(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        oodray.detect(IMAGE, Colours(), **settings)


def test_numbers_may_be_those_of_numpy() -> None:
    plain = oodray.detect(IMAGE, Colours(), k=3, tau=1.5, ood_ratio=0.25, seed=2, threads=1)
    found = oodray.detect(
        IMAGE,
        Colours(),
        k=cast("int", np.int64(3)),
        tau=np.float64(1.5),
        ood_ratio=cast("float", np.float32(0.25)),
        seed=cast("int", np.uint32(2)),
        threads=cast("int", np.int32(1)),
    )
    assert np.array_equal(found.mask, plain.mask)
    assert [*map(type, (found.k, found.tau, found.ood_ratio))] == [int, float, float]
    with pytest.raises(ConfigError, match="k in the arguments must be a whole number, got"):
        oodray.detect(IMAGE, Colours(), k=cast("int", np.True_))


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(2, 8),
        np.zeros((2, 8), np.float32),
        np.zeros((2, 8, 8), np.int64),
        np.zeros((2, 8, 8), np.longdouble),
        np.array([["a"]]),
        None,
    ],
)
@pytest.mark.parametrize("name", ["logits", "features"])
def test_maps_of_another_form_are_named(name: str, bad: Any) -> None:
    good = fakes.Colours().segment_one(IMAGE)
    with pytest.raises(ImageError, match=f"^the segmenter returned {name} of "):
        oodray.detect(IMAGE, replace(good, **{name: bad}), tau=1.5)


def test_maps_are_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []

    def check(found: list[oodray.Segmentation], images: int) -> list[oodray.Segmentation]:
        checked.append(images)
        return check_segmentations(found, images)

    for module in (worker, sys.modules["oodray.api.detect"]):
        monkeypatch.setattr(module, "check_segmentations", check)
    oodray.detect(IMAGE, Colours())
    assert checked == [1]
    oodray.detect(IMAGE, fakes.Colours().segment_one(IMAGE), tau=1.5)
    assert checked == [1, 1]


@pytest.mark.parametrize(
    ("net", "kind"),
    [
        ("internimage-n-demo", "the text 'internimage-n-demo'"),
        (None, "NoneType"),
        (IMAGE, "ndarray"),
        (torch.nn.Identity(), "Identity"),
    ],
)
def test_what_is_no_network_is_refused(net: Any, kind: str) -> None:
    problem = f"net must be a network, see oodray.load, or an oodray.Segmentation, not {kind}"
    with pytest.raises(ConfigError, match=f"^{problem}$"):
        oodray.detect(IMAGE, net, tau=1.5)


def test_without_a_known_tau_one_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"no tau is known for this network: pass tau=X.*oodray calibrate"):
        oodray.detect(IMAGE, fakes.Colours())


@pytest.mark.parametrize(
    ("network", "problem"),
    [
        (fakes.OneTooMany(), "the segmenter returned 2 results for 1 images"),
        (fakes.Flat(), "the segmenter returned features of"),
    ],
)
def test_a_network_that_fails_says_so(network: Any, problem: str) -> None:
    with pytest.raises(ImageError, match=problem):
        oodray.detect(IMAGE, network, tau=1.5)


def test_an_error_of_the_network_is_named() -> None:
    image = IMAGE.copy()
    image[0, 0] = fakes.MARK
    with pytest.raises(ImageError, match="the network failed: RuntimeError: cannot take magenta"):
        oodray.detect(image, fakes.FailsOnMark(), tau=1.5)
    with pytest.raises(ImageError, match="confidence is NaN"):
        oodray.detect(image, fakes.NanOnMark(), tau=1.5)


def test_a_loaded_network_has_its_own_tau() -> None:
    net = oodray.load("internimage-n-demo")
    found = oodray.detect(IMAGE, net, k=3)
    assert found.tau == net.tau
    assert found.classes.max() < 10
    assert "OoD at k=3" in repr(found)
