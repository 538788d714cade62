"""Scores of Fishyscapes LostAndFound under the names that its own evaluator takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import average_precision_score

from oodray.analysis.evaluation import evaluate_run
from oodray.job.importing import import_scores, make_import
from oodray.metrics.evaluators import LIKE
from oodray.results.folder import ResultsFolder

SIZE = (32, 64)
FRAMES = {
    "0002": ("test", "15_Rechbergstr_Deckenpfronn", "000001_000010"),
    "0010": ("train", "04_Maurener_Weg_8", "000000_000030"),
    "0079": ("test", "01_Hanns_Klemm_Str_45", "000000_000200"),
}
"""By number, not in the order of their names; the last has no OoD pixel, as that of the benchmark."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels beside LostAndFound's images, of which most have no label."""
    root = tmp_path_factory.mktemp("fs") / "FS_LostFound"
    for number, (split, scene, times) in FRAMES.items():
        labels = np.zeros(SIZE, np.uint8)
        labels[:8] = 255
        if number != "0079":
            labels[12:20, 2 * int(number) : 2 * int(number) + 12] = 1
        written(root / "labels" / f"{number}_{scene}_{times}_labels.png", labels)
        for frame in (f"{scene}_{times}", f"{scene}_000009_000000"):
            written(root / "leftImg8bit" / split / scene / f"{frame}_leftImg8bit.png", np.zeros((*SIZE, 3), np.uint8))
    return root


def written(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("name", ["{number}", "{digits}", "{number}_{frame}", "{number}_{frame}_rgb", "{frame}"])
def test_every_name_that_is_in_use_finds_the_image_of_its_label(name: str, root: Path, tmp_path: Path) -> None:
    random, truth, values = np.random.default_rng(2), [], []
    folder = tmp_path / "mine" / "FishyscapesLAF"
    folder.mkdir(parents=True)
    for number, (_, scene, times) in FRAMES.items():
        labels = np.asarray(Image.open(root / "labels" / f"{number}_{scene}_{times}_labels.png"))
        scores = (random.random(SIZE) + 0.5 * (labels == 1)).astype(np.float32)
        stem = name.format(number=number, digits=int(number), frame=f"{scene}_{times}")
        np.save(folder / f"{stem}_anomaly.npy", scores)
        np.save(folder / f"{stem}_segmentation.npy", np.zeros(SIZE, np.uint8))  # what a submission holds besides
        truth.append(labels[labels != 255])
        values.append(scores[labels != 255])
    out = ResultsFolder(tmp_path / "out")
    import_scores(make_import("fishyscapes-lost-and-found", root, tmp_path / "mine", score=None), out, lambda _: None)
    evaluation = evaluate_run(out, [LIKE["fishyscapes"]])
    assert (evaluation.images, evaluation.failed) == (3, 0)
    expected = average_precision_score(np.concatenate(truth), np.concatenate(values))
    assert [found.score for found in evaluation.scores] == ["mine"] * 2
    assert [found.ap for found in evaluation.scores] == pytest.approx([expected] * 2, abs=1e-12)
