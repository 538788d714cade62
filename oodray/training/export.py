"""From a trained network to the file that oodray reads."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn


def export_weights(network: nn.Module, path: Path) -> None:
    """Write the state dict of `network` alone, floating point as float16."""
    state = {
        key: value.half() if value.is_floating_point() else value for key, value in network.state_dict().items()
    }
    torch.save(state, path)
