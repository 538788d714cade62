"""Train a network of our own with mmengine's Runner: `python -m oodray.training CONFIG --out DIR`.

DIR gets the Runner's logs and checkpoints, and in the end `NAME.pth` and `NAME.json`, NAME being the config's: the
weights as oodray reads them, and what the network reaches on the config's test images. The same command continues a
training that was interrupted.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import DATASETS

from oodray.models.mmseg import load_mmseg_segmenter
from oodray.training import camvid, scenes  # noqa: F401  # registers their datasets
from oodray.training.export import export_weights, write_card
from oodray.training.samples import examples


def main() -> None:
    """Train, export, measure."""
    parser = argparse.ArgumentParser(prog="python -m oodray.training", description="Train a network of our own.")
    parser.add_argument("config", type=Path, help="a training config, see configs/train/")
    parser.add_argument("--root", type=Path, help="the dataset's folder; scenes are drawn and need none")
    parser.add_argument("--out", type=Path, required=True, help="where logs, checkpoints and weights go")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads; part of what makes a run repeatable")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = read_config(arguments.config, arguments.root, arguments.out)
    weights = arguments.out / f"{arguments.config.stem}.pth"
    export_weights(train(config), weights)
    segmenter = load_mmseg_segmenter(arguments.config, weights)
    test = DATASETS.build(config.test_dataloader.dataset)
    card = write_card(weights.with_suffix(".json"), segmenter, examples(test), test.metainfo["classes"])
    print(card)  # noqa: T201


def read_config(path: Path, root: Path | None, work_dir: Path) -> Config:
    """A training config, with the folder of its dataset and the one for its logs and checkpoints."""
    config = Config.fromfile(str(path))
    config.work_dir = str(work_dir)
    config.resume = True
    if root is not None:
        for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
            loader.dataset.data_root = str(root)
    return config


def train(config: Mapping[str, Any]) -> torch.nn.Module:
    """Run the training that a config describes, from its last checkpoint where its work folder has one."""
    # The Runner's own checkpoints hold more than tensors, and torch would refuse to load them. They are trusted as
    # the folder is: it is the one this program writes to.
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
    network: torch.nn.Module = Runner.from_cfg(config).train()
    return network


if __name__ == "__main__":
    main()
