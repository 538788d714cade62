"""Which methods of mmsegmentation run here: one config of every folder that its package ships, with random weights.

    python -m benchmarks.mmseg_methods            # all, one process each; prints the table of docs/models.md
    python -m benchmarks.mmseg_methods segformer  # one

A method runs if oodray's logits are those of mmsegmentation's own inference. Nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

MINUTES = 10
SIZES = {"mobilenet_v3": (512, 1024)}
"""Height and width for what cannot take a small image: LR-ASPP averages windows of 49 x 49 features."""

SMALL = ("r18", "mit-b0", "_t_", "tiny", "small", "_s_", "hr18", "s101", "fast", "r50", "m-v2", "b0", "vit-s", "vit-b")


def main() -> None:
    """The table, or what one process finds out of one config."""
    if "--child" in sys.argv:
        print(json.dumps(tried(Path(sys.argv[-1]))))
        return
    print("| method | config | runs | parameters, features |\n|---|---|---|---|")
    for folder in folders():
        if len(sys.argv) > 1 and folder.name not in sys.argv[1:]:
            continue
        print(row(folder), flush=True)


def folders() -> list[Path]:
    """The folders of configs in mmsegmentation's package."""
    package = importlib.util.find_spec("mmseg")
    assert package is not None, "oodray depends on mmsegmentation"
    configs = Path((package.submodule_search_locations or [])[0]) / ".mim" / "configs"
    return [folder for folder in sorted(configs.iterdir()) if folder.is_dir() and folder.name != "_base_"]


def row(folder: Path) -> str:
    """The row of a method."""
    config = smallest(sorted(folder.glob("*.py")))
    if config is None:
        return f"| {folder.name} | | no: no config for segmentation | |"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TORCH_HOME": "/nonexistent"}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.mmseg_methods", "--child", str(config)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60 * MINUTES, env=environment, check=False
        )
        found = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        found = {"runs": f"not within {MINUTES} minutes on two cores"}
    except (IndexError, ValueError):
        found = {"runs": f"no: the process ended with {done.returncode}"}
    return f"| {folder.name} | {config.name} | {found['runs']} | {found.get('what', '')} |"


def smallest(configs: list[Path]) -> Path | None:
    """A config of a small network; those of LEVIR compare two images, six channels."""
    return min(
        [path for path in configs if "levir" not in path.name],
        key=lambda path: (rank(path.name), len(path.name)),
        default=None,
    )


def rank(name: str) -> int:
    """How small a network the name of a config says it is."""
    return next((index for index, word in enumerate(SMALL) if word in name), len(SMALL))


def tried(config: Path) -> dict[str, Any]:
    """Whether the network of a config runs, and equals mmsegmentation's own inference."""
    import numpy as np
    import torch

    from oodray.errors import OodrayError
    from oodray.models.mmseg import MMSegSegmenter, build_network

    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        network: Any = build_network(config)
        segmenter = MMSegSegmenter(network)
        height, width = segmenter.sliding[0] if segmenter.sliding else SIZES.get(config.parent.name, (128, 160))
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        [found] = segmenter.segment([image])
    except OodrayError as error:
        said = str(error).replace(str(config), "the config").partition("\n")[0]
        return {"runs": "no: " + textwrap.shorten(said, 160, placeholder=" ...")}
    except Exception as error:
        return {"runs": f"no: {type(error).__name__}: {str(error).partition(chr(10))[0][:120]}"}
    logits = torch.nn.functional.interpolate(
        found.logits[None], (height, width), mode="bilinear", align_corners=segmenter.align_corners
    )
    expected = of_mmsegmentation(network, image)
    wrong = float((logits - expected).abs().max() / expected.abs().max().clamp(min=1e-9))
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    channels, rows, columns = found.features.shape
    own = float((of_mmsegmentation(network, image) - expected).abs().max())
    same = "yes" if wrong < 1e-4 else f"no: logits differ by {wrong:.1e}"
    same = f"yes, but its own inference is random: it differs from itself by {own:.1e}" if own else same
    return {"runs": same, "what": f"{millions:.1f} M, {channels}x{rows}x{columns} of {height}x{width}"}


def of_mmsegmentation(network: Any, image: Any) -> Any:
    """Logits `(1, C, H, W)` of mmsegmentation's own inference."""
    import torch
    from mmseg.structures import SegDataSample

    size = image.shape[:2]
    sample = SegDataSample(metainfo={"img_shape": size, "ori_shape": size})
    pixels = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)
    with torch.inference_mode():
        [found] = network.test_step({"inputs": [pixels], "data_samples": [sample]})
    return found.seg_logits.data[None]


if __name__ == "__main__":
    main()
