"""What is claimed of the embedded network: small, accurate on its own scenes, unsure of what it was never taught."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score

from oodray.analysis.files import CountedFiles
from oodray.analysis.totals import total_here
from oodray.config import config_root, read_settings
from oodray.datasets.demo.scenes import CLASSES, render_scene, write_demo
from oodray.datasets.layouts import get_layout
from oodray.datasets.manifest import build_manifest, images_by_unit
from oodray.job.decoder import Decoder
from oodray.job.finisher import Finisher
from oodray.job.worker import Worker
from oodray.method.rule import Rule
from oodray.method.settings import MethodSettings
from oodray.metrics.evaluation import ScoreMetrics, evaluate
from oodray.models.internimage.architecture import ARCHITECTURES
from oodray.models.internimage.upernet import InternImageUPerNet
from oodray.models.loading import load_segmenter
from oodray.models.source import resolve_model
from oodray.models.weights.checkpoints import read_state_dict
from oodray.models.weights.zoo import EMBEDDED, get_model
from oodray.results.folder import ResultsFolder
from oodray.scores.maps import pixel_maps
from oodray.scores.registry import DEFAULT_SCORES as SCORES
from oodray.scores.registry import are_pixel_scores

MODEL = get_model(EMBEDDED)
assert MODEL.tau is not None
TAU: float = MODEL.tau
CARD = json.loads(MODEL.checkpoint.with_suffix(".json").read_text(encoding="utf-8"))
VALIDATION_SCENES = 6
DEMO_SCENES = 6


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Two processes with a thread per core each are slower than with one; the worker sets it too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Predictions:
    """Of the pixels of some validation scenes, one after the other: class, predicted class and confidence."""

    def __init__(self, scenes: int) -> None:
        segmenter = load_segmenter(resolve_model(EMBEDDED))
        self.semantic = np.empty((scenes, 320, 640), np.uint8)
        self.predicted = np.empty_like(self.semantic)
        self.confidence = np.empty(self.semantic.shape, np.float16)
        for index in range(scenes):
            scene = render_scene(index, split="val")
            [found] = segmenter.segment([scene.image])
            logits = torch.nn.functional.interpolate(found.logits[None], (320, 640), mode="bilinear")[0]
            self.semantic[index] = scene.semantic
            self.predicted[index] = logits.argmax(0).numpy()
            self.confidence[index] = pixel_maps(found.logits, 320, 640, []).confidence


@pytest.fixture(scope="module")
def predictions() -> Predictions:
    return Predictions(VALIDATION_SCENES)


class TestWeights:
    def test_are_small(self) -> None:
        size = MODEL.checkpoint.stat().st_size
        assert size < 8e6
        assert MODEL.megabytes == round(size / 1e6)

    def test_are_float16(self) -> None:
        state = read_state_dict(MODEL.checkpoint)
        floating = {key: value for key, value in state.items() if value.is_floating_point()}
        assert {value.dtype for value in floating.values()} == {torch.float16}
        assert all(key.endswith("num_batches_tracked") for key in state.keys() - floating.keys())
        assert all(bool(value.isfinite().all()) for value in floating.values())

    def test_are_those_of_the_architecture_and_of_nothing_else(self) -> None:
        network = InternImageUPerNet(ARCHITECTURES[MODEL.architecture])
        network.load_state_dict(read_state_dict(MODEL.checkpoint), strict=True)
        assert 1e6 < sum(parameter.numel() for parameter in network.parameters()) < 4e6


class TestCard:
    def test_states_what_the_model_states(self) -> None:
        assert (MODEL.miou, MODEL.classes) == (CARD["miou"], len(CLASSES))
        assert list(CARD["iou"]) == list(CLASSES)
        assert CARD["miou"] == pytest.approx(np.mean(list(CARD["iou"].values())), abs=0.01)
        assert CARD["miou"] >= 80

    def test_miou_is_found_again(self, predictions: Predictions) -> None:
        semantic, predicted = predictions.semantic[:4].ravel(), predictions.predicted[:4].ravel()
        miou = 100 * jaccard_score(semantic, predicted, average="macro")
        assert miou >= 80
        # Four scenes of the card's 64.
        assert miou == pytest.approx(CARD["miou"], abs=5)

    def test_tau_calls_about_one_pixel_in_twenty_unsure(self, predictions: Predictions) -> None:
        assert 0.03 < np.mean(predictions.confidence < TAU) < 0.08

    def test_unsure_pixels_are_wrong_more_often(self, predictions: Predictions) -> None:
        wrong = predictions.semantic != predictions.predicted
        unsure = predictions.confidence < TAU
        assert wrong[unsure].mean() > 3 * wrong[~unsure].mean()


@pytest.fixture(scope="module")
def demo_metrics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ScoreMetrics]:
    """The metrics of a few demo scenes, by the stages of a run with the settings of the demo, without Ray."""
    folder = tmp_path_factory.mktemp("demo")
    settings = read_settings(config_root() / "runs" / "demo.yaml")
    method = MethodSettings(
        k=settings["k"],
        ks=(settings["k"],),
        tau=TAU,
        ood_ratio=settings["ood_ratio"],
        seed=0,
        normalize_features=False,
        kmeans_backend="torch",
        n_init=4,
        scores=are_pixel_scores(SCORES),
        batch_size=1,
    )
    write_demo(folder / "scenes", DEMO_SCENES)
    layout = get_layout("demo")
    decoder, finisher = Decoder(layout.label_codes), Finisher(method, str(folder / "out"))
    worker = Worker(load_segmenter(resolve_model(EMBEDDED)), method)
    for images in images_by_unit(build_manifest(layout, folder / "scenes")).values():
        finisher(worker(decoder(images)))
    files = CountedFiles(ResultsFolder(folder / "out").parts())
    totals = total_here(files, Rule(method.k, method.tau, method.ood_ratio))
    assert (totals.images, totals.failed) == (DEMO_SCENES, 0)
    return {metrics.score: metrics for metrics in evaluate(totals, SCORES)}


class TestDemo:
    def test_objects_that_it_was_never_taught_stand_out(self, demo_metrics: dict[str, ScoreMetrics]) -> None:
        assert demo_metrics.keys() == set(SCORES)
        best = max(demo_metrics.values(), key=lambda metrics: metrics.ap)
        share = best.pixels_ood / (best.pixels_ood + best.pixels_id)
        assert 0.005 < share < 0.2
        assert best.ap >= 3 * share
        assert best.auroc > 0.8


def test_in_bfloat16_the_network_says_nearly_the_same() -> None:
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    [exact], [found] = (
        load_segmenter(resolve_model(EMBEDDED), dtype=dtype).segment([image]) for dtype in ("float32", "bfloat16")
    )
    for ours, theirs in ((found.logits, exact.logits), (found.features, exact.features)):
        assert ours.dtype == torch.float32
        assert 0 < (ours - theirs).norm() < 0.05 * theirs.norm()
