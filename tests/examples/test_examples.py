"""Every script of examples/ does what it says, on small data."""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import oodray

EXAMPLES = Path(__file__).parents[2] / "examples"
TESTS = Path(__file__).parents[1]


@pytest.fixture
def photos(tiny_dataset: Path) -> Path:
    return tiny_dataset / "images"


def run(name: str, *arguments: object) -> str:
    """What a script prints, in this process: to import torch again would take longer than most of them."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return out.getvalue()


def test_no_script_is_left_out() -> None:
    tested = {"my_photos.py", "my_own_logits.py", "benchmark_and_sweep.py", "another_methods_scores.py", "cluster.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_scripts_are_short(path: Path) -> None:
    code = [line for line in path.read_text().split('"""')[2].splitlines() if line.strip()]
    assert 8 <= len(code) <= 30


def test_photos_and_a_network_of_hugging_face(photos: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is an extra: pip install 'oodray[hf]'")
    widths = {"hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 4]}
    config = transformers.SegformerConfig(**widths, decoder_hidden_size=16, num_labels=5)
    model = tmp_path / "model"
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(model)
    transformers.SegformerImageProcessor(size={"height": 64, "width": 96}).save_pretrained(model)
    said = run("my_photos.py", photos, model, tmp_path / "out")
    assert said.count("of it is unknown to the network") == 5
    pictures = sorted((tmp_path / "out").glob("*-unknown.png"))
    assert len(pictures) == 5
    with Image.open(pictures[0]) as picture:
        assert picture.mode == "RGBA"


def test_logits_of_my_own(photos: Path) -> None:
    said = run("my_own_logits.py", photos / "00.png")
    assert "of the image is out of distribution, image score " in said
    assert "energy from -" in said


def test_a_benchmark_and_its_sweep(tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The script leaves the executor to the default, Ray, which takes its time to start.
    monkeypatch.setattr(oodray, "run", partial(oodray.run, executor="local"))
    said = run("benchmark_and_sweep.py", "ade-ood", tiny_dataset, "internimage-n-demo", tmp_path / "out")
    scores, intervals, best = said.split("ap_low")[0], said.split("ap_low")[1], said.splitlines()[-1]
    assert scores.count("mask-then-logit") == 1
    assert intervals.count("mask-then-logit") == 1
    assert int(best.split()[0]) in (3, 5, 8)


def test_scores_of_another_method(tmp_path: Path) -> None:
    for name, values, codes in (("a", [[0.1, 0.9]], [[0, 1]]), ("b", [[0.5, 0.2, 7.0]], [[1, 0, 255]])):
        np.save(tmp_path / f"{name}.npy", np.array(values))
        Image.fromarray(np.array(codes, np.uint8)).save(tmp_path / f"{name}.png")
    said = run("another_methods_scores.py", tmp_path, tmp_path)
    assert said == "AP    100.00%\nFPR95 0.00%\nAUROC 100.00%\n"


@pytest.mark.soak
def test_a_cluster(ray_session: None, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the Ray that this process has: joining one is tested in tests/cluster."""
    import ray

    monkeypatch.chdir(TESTS)
    address = ray.get_runtime_context().gcs_address
    said = run("cluster.py", address, "ade-ood", tiny_dataset, tmp_path / "out", "fakes:colours", 1.5)
    assert said.startswith("10 images, the most anomalous is ")
