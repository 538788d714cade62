"""Train a network of our own with mmengine's Runner: `python -m oodray.training CONFIG --out DIR`.

DIR gets the Runner's logs and checkpoints, and in the end `NAME.pth` and `NAME.json`, NAME being the config's: the
weights as oodray reads them, and what the network reaches on its validation scenes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from oodray.datasets.scenes import CLASSES
from oodray.models.mmseg import load_mmseg_segmenter
from oodray.training.export import export_weights, write_card
from oodray.training.scenes import validation_examples

VALIDATION_SCENES = 64


def main() -> None:
    """Train, export, measure."""
    parser = argparse.ArgumentParser(prog="python -m oodray.training", description="Train a network of our own.")
    parser.add_argument("config", type=Path, help="a training config, see configs/train/")
    parser.add_argument("--out", type=Path, required=True, help="where logs, checkpoints and weights go")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads; part of what makes a run repeatable")
    parser.add_argument(
        "--scenes", type=int, default=VALIDATION_SCENES, help="validation scenes that mIoU and tau are measured on"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    weights = arguments.out / f"{arguments.config.stem}.pth"
    export_weights(train(arguments.config, arguments.out), weights)
    segmenter = load_mmseg_segmenter(arguments.config, weights, classes=None, device="cpu")
    card = write_card(weights.with_suffix(".json"), segmenter, validation_examples(arguments.scenes), CLASSES)
    print(card)  # noqa: T201


def train(config_file: Path, work_dir: Path) -> torch.nn.Module:
    """Run the training that a config describes; logs and checkpoints go to `work_dir`."""
    from mmengine.config import Config
    from mmengine.runner import Runner

    config = Config.fromfile(str(config_file))
    config.work_dir = str(work_dir)
    network: torch.nn.Module = Runner.from_cfg(config).train()
    return network


if __name__ == "__main__":
    main()
