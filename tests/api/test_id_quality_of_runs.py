"""A network on its own classes, measured by a run, against the definitions on all pixels at once."""

from __future__ import annotations

import json
import math
from pathlib import Path

import fakes
import numpy as np
import pytest
from numpy.typing import NDArray
from torch.nn.functional import interpolate

import oodray
from oodray.cli import main
from oodray.datasets.images import encode_png
from oodray.errors import ConfigError

TESTS = Path(__file__).parents[1]
OOD, IGNORED = 9, 255
CODES = "0:3=id,9=ood"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five images of coloured blocks; class 3 never occurs in a label, and the last image has no label."""
    random = np.random.default_rng(7)
    for folder in ("images", "truth"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for index in range(5):
        blocks = random.integers(0, 256, (4, 6, 3), np.uint8).repeat(16, 0).repeat(16, 1)
        (tmp_path / "data" / "images" / f"{index}.png").write_bytes(encode_png(blocks))
        codes = random.choice([0, 1, 2, OOD, IGNORED], (4, 6), p=[0.4, 0.2, 0.2, 0.1, 0.1]).astype(np.uint8)
        if index < 4:
            label = encode_png(codes.repeat(16, 0).repeat(16, 1))
            (tmp_path / "data" / "truth" / f"{index}.png").write_bytes(label)
    return tmp_path / "data"


def the_run(root: Path, out: Path, **more: object) -> oodray.Run:
    settings = {
        "dataset": "folder",
        "root": str(root),
        "labels": "truth",
        "label_codes": CODES,
        "model": "fakes:colours",
        "tau": fakes.TAU,
        "id_quality": True,
        "executor": "local",
        "threads": 1,
    }
    return oodray.run(out=out, progress=False, **{**settings, **more})  # type: ignore[arg-type]


def probabilities(path: Path) -> NDArray[np.float64]:
    from PIL import Image

    image = np.array(Image.open(path))
    logits = fakes.Colours().segment_one(image).logits.double()[None]
    return interpolate(logits, image.shape[:2], mode="bilinear", align_corners=False)[0].softmax(0).numpy()


def iou(true: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> list[float]:
    found = []
    for number in range(classes):
        union = np.count_nonzero((true == number) | (predicted == number))
        hit = np.count_nonzero((true == number) & (predicted == number))
        found.append(hit / union if union else math.nan)
    return found


def test_all_numbers_are_those_of_the_pixels(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(TESTS)
    run = the_run(root, tmp_path / "out")
    from PIL import Image

    shares, truth, masks = [], [], []
    for index in range(4):
        shares.append(probabilities(root / "images" / f"{index}.png").reshape(4, -1))
        truth.append(np.asarray(Image.open(root / "truth" / f"{index}.png")).astype(np.int64).ravel())
        masks.append(run.mask(f"images/{index}").ravel() > 0)
    p, codes, mask = np.concatenate(shares, 1), np.concatenate(truth), np.concatenate(masks)
    predicted, known = p.argmax(0), codes < 4
    assert mask.any()
    assert not mask[known].all()
    found = run.evaluation.id_quality
    assert found is not None
    expected = iou(codes[known], predicted[known], 4)
    np.testing.assert_allclose(found.iou, expected)
    assert found.miou == pytest.approx(np.nanmean(expected))
    assert found.miou_kept == pytest.approx(np.nanmean(iou(codes[known & ~mask], predicted[known & ~mask], 4)))
    labelled = codes != IGNORED
    opened = np.where(mask, OOD, predicted)
    assert found.open_iou == pytest.approx(np.nanmean(iou(codes[labelled], opened[labelled], 4)))
    confidence, right = p.max(0)[known], (predicted == codes)[known]
    bins = np.minimum((confidence * 15).astype(int), 15)
    gaps = [abs(right[bins == b].sum() - confidence[bins == b].sum()) for b in np.unique(bins)]
    assert found.ece == pytest.approx(sum(gaps) / known.sum(), abs=1e-6)
    one_hot = np.eye(4)[codes[known]].T
    assert found.brier == pytest.approx(np.square(p[:, known] - one_hot).sum(0).mean(), abs=1e-6)
    assert found.pixels == known.sum()
    main_evaluate(tmp_path / "out", monkeypatch, capsys, found.miou)


def main_evaluate(out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], miou: float) -> None:
    """`oodray evaluate` reads the same from the files, as a table and as JSON."""
    monkeypatch.setattr("sys.argv", ["oodray", "evaluate", str(out)])
    with pytest.raises(SystemExit):
        main()
    assert f"{100 * miou:.2f}" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["oodray", "evaluate", str(out), "--json"])
    with pytest.raises(SystemExit):
        main()
    assert json.loads(capsys.readouterr().out)["id_quality"]["miou"] == pytest.approx(miou)


def test_labels_that_name_no_classes_are_refused(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TESTS)
    with pytest.raises(ConfigError, match="--id-quality needs labels that name classes"):
        the_run(root, tmp_path / "out", label_codes="0=id,9=ood")


def test_a_network_without_a_class_of_the_labels_makes_error_rows(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TESTS)
    label = np.full((64, 96), 5, np.uint8)
    (root / "truth" / "0.png").write_bytes(encode_png(label))
    images = the_run(root, tmp_path / "out", label_codes="0:5=id,9=ood").images
    assert images["status"].tolist() == ["error", "ok", "ok", "ok", "ok"]
    assert "the label names class 5, counted from 0, and the network has 4" in images["error"][0]
