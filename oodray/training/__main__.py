"""Train a network with mmengine's Runner: `python -m oodray.training CONFIG --out DIR`.

DIR gets the Runner's logs and checkpoints, and in the end `<config's name>.pth`, the weights as oodray reads them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import oodray.models.mmseg  # noqa: F401  registers InternImage, and must come before mmseg is imported
import oodray.training.scenes  # noqa: F401  registers the datasets
from mmengine.config import Config
from mmengine.runner import Runner

from oodray.training.export import export_weights


def main() -> None:
    """Train, then export."""
    parser = argparse.ArgumentParser(prog="python -m oodray.training", description="Train a network of our own.")
    parser.add_argument("config", type=Path, help="a training config, see configs/train/")
    parser.add_argument("--out", type=Path, required=True, help="where logs, checkpoints and weights go")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads; part of what makes a run repeatable")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = Config.fromfile(str(arguments.config))
    config.work_dir = str(arguments.out)
    runner = Runner.from_cfg(config)
    network = runner.train()
    export_weights(network, arguments.out / f"{arguments.config.stem}.pth")


if __name__ == "__main__":
    main()
