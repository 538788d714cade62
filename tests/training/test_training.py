"""Training from config to a network that oodray loads: two steps, on next to nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from oodray.config import config_root
from oodray.datasets.demo.scenes import CLASSES, render_scene
from oodray.models.loading import load_segmenter
from oodray.models.segmenter import check_segmentations
from oodray.models.source import resolve_model
from oodray.models.weights.checkpoints import read_state_dict

pytestmark = [pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(240)]

CONFIG = config_root() / "train" / "internimage-n-demo.py"

OVER_IT = """
crop = (64, 96)
model = dict(data_preprocessor=dict(size=crop))
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(scenes=2, crop=crop)
)
val_dataloader = dict(dataset=dict(scenes=1))
test_dataloader = dict(dataset=dict(scenes=2))
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
"""


@pytest.fixture(scope="module")
def trained(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights that the command leaves, with the card beside them."""
    folder = tmp_path_factory.mktemp("training")
    config = folder / "tiny.py"
    config.write_text(f"_base_ = {str(CONFIG)!r}\n{OVER_IT}", encoding="utf-8")
    train(folder, environment)
    assert {path.name for path in folder.iterdir()} == {"tiny.py", "out"}
    return folder / "out" / "tiny.pth"


def train(folder: Path, environment: dict[str, str]) -> None:
    """Run the command on `tiny.py` of a folder."""
    command = ["-m", "oodray.training", "tiny.py", "--out", "out", "--threads", "1"]
    # A process of its own: mmengine's Runner sets up logging, seeds and determinism for good.
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def steps(out: Path) -> list[dict[str, float]]:
    """What was logged of each training step, in order of time."""
    logs = sorted(out.glob("*/vis_data/scalars.json"))
    lines = [json.loads(line) for log in logs for line in log.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if "loss" in line]


def test_both_steps_were_made(trained: Path) -> None:
    made = steps(trained.parent)
    assert [step["iter"] for step in made] == [1, 2]
    assert all(0.5 < step["loss"] < 10 for step in made)  # log 10 = 2.3 is chance


@pytest.mark.soak
def test_the_same_command_goes_on_from_the_last_checkpoint(
    trained: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(trained.parents[1], tmp_path / "again"))
    config = folder / "tiny.py"
    config.write_text(config.read_text(encoding="utf-8").replace("max_iters=2", "max_iters=3"), encoding="utf-8")
    train(folder, environment)
    assert [step["iter"] for step in steps(folder / "out")] == [1, 2, 3]
    before, after = read_state_dict(trained), read_state_dict(folder / "out" / "tiny.pth")
    counters = [key for key in before if key.endswith("num_batches_tracked")]
    assert {int(before[key]) for key in counters} == {2}
    assert {int(after[key]) for key in counters} == {3}


def test_the_weights_are_those_of_the_last_step_as_float16(trained: Path) -> None:
    stored = read_state_dict(trained)
    # What the Runner saves to go on from later holds more than tensors; they alone are read.
    last = read_state_dict(trained.with_name("iter_2.pth"))
    assert stored.keys() == last.keys()
    assert {value.dtype for value in stored.values()} == {torch.float16, torch.int64}
    assert all(torch.equal(value, last[key].to(value.dtype)) for key, value in stored.items())


def test_the_card_was_measured_on_the_scenes_asked_for(trained: Path) -> None:
    card = json.loads(trained.with_suffix(".json").read_text(encoding="utf-8"))
    assert card["images"] == 2
    assert list(card["iou"]) == list(CLASSES)
    assert 0 <= card["miou"] <= 100


def test_the_config_and_its_weights_run(trained: Path) -> None:
    source = resolve_model(str(trained.parents[1] / "tiny.py"), str(trained))
    image = render_scene(0, split="demo", height=96, width=128).image
    [found] = check_segmentations(load_segmenter(source).segment([image]), 1)
    assert found.logits.shape == (len(CLASSES), 24, 32)
    assert found.features.shape[1:] == (6, 8)
    assert bool(found.logits.isfinite().all())
