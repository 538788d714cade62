"""Run a network over a set once: `python -m benchmarks.research.features SET NETWORK`.

OUT/SET.NETWORK.npz gets what candidates are made of: images, labels, logits and the maps of the backbone's second to
fourth stage, in float16.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

import oodray
from benchmarks.research.sets import SETS, images_of

WEIGHTS = Path("benchmarks/weights")
DATA = Path("../shared/data")


def networks(data: Path) -> dict[str, tuple[str, Path | None]]:
    """What `oodray.load` takes, by name."""
    configs = Path("configs/models")
    return {
        "internimage-n-demo": ("internimage-n-demo", None),
        "internimage-n-camvid": (str(configs / "internimage-n-camvid.py"), WEIGHTS / "internimage-n-camvid.pth"),
        "internimage-held-out": (
            str(configs / "internimage-n-camvid-held-out.py"),
            WEIGHTS / "internimage-n-camvid-held-out.pth",
        ),
        "fast-scnn-held-out": (
            str(configs / "fast-scnn-camvid-held-out.py"),
            WEIGHTS / "fast-scnn-camvid-held-out.pth",
        ),
        "cgnet-camvid": (str(data / "cgnet-camvid/cgnet_camvid.py"), data / "cgnet-camvid/cgnet_camvid.pth"),
    }


def main() -> None:
    """Segment and keep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("set", choices=SETS)
    parser.add_argument("network")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=Path("work_dirs/novelty"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, checkpoint = networks(arguments.data)[arguments.network]
    net = oodray.load(model, checkpoint=checkpoint)
    stages: list[Any] = []
    net.segmenter.network.backbone.register_forward_hook(lambda _module, _inputs, outputs: stages.append(outputs))
    kept: dict[str, list[Any]] = {}
    for labelled in images_of(arguments.set, arguments.data):
        stages.clear()
        [found] = net.segment([labelled.image])
        maps = {"image": labelled.image, "label": labelled.label}
        maps |= {"logits": found.logits.half().numpy(), "features": found.features.half().numpy()}
        maps |= {f"stage{index}": stage[0].half().numpy() for index, stage in enumerate(stages[0]) if index}
        for name, values in maps.items():
            kept.setdefault(name, []).append(values)
    arguments.out.mkdir(parents=True, exist_ok=True)
    target = arguments.out / f"{arguments.set}.{arguments.network}.npz"
    np.savez(target, **{name: np.stack(values) for name, values in kept.items()})


if __name__ == "__main__":
    main()
