"""In which floating-point type a network multiplies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oodray.config import DTYPES
from oodray.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from oodray.models.source import ModelSource

FLOAT32 = "float32"


def choose_dtype(asked: str | None, source: ModelSource, device: str) -> str | None:
    """In which dtype a network multiplies on `device`: the one asked for, else float32.

    None for a factory without `features` of another network, as it decides for itself.

    Raises:
        ConfigError: a dtype that there is not, or not here; one for a factory.
    """
    if asked not in (None, *DTYPES):
        raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, got {asked!r}")
    if not source.from_factory or source.features is not None:
        # Until it is shown what bfloat16 does to AP and FPR95, nobody gets it unasked.
        return resolve_dtype(asked or FLOAT32, device)
    if asked is not None:
        raise ConfigError(f"--dtype does not go with the factory {source.name}: the factory chooses its own")
    return None


def resolve_dtype(dtype: str, device: str) -> str:
    """The dtype that is meant on `"cpu"` or `"cuda"`: `"auto"` is bfloat16 on GPUs and float32 on CPUs.

    Raises:
        ConfigError: float16 on a CPU, which has no instructions for it.

    >>> resolve_dtype("auto", "cuda"), resolve_dtype("auto", "cpu")
    ('bfloat16', 'float32')
    """
    if dtype == "auto":
        return "bfloat16" if device == "cuda" else FLOAT32
    if dtype == "float16" and device == "cpu":
        raise ConfigError("dtype float16 is for GPUs: take bfloat16, or float32, on a CPU")
    return dtype


def multiplies_bfloat16() -> bool:
    """Whether torch has fast code for bfloat16 on this CPU, as from AVX-512 on; others take a hundred times as long."""
    import torch

    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a torch without oneDNN
        return False


def dtype_warning(dtype: str | None, device: str) -> str | None:
    """What the user of a dtype on a `"cpu"` like this one should know."""
    if dtype == "bfloat16" and device == "cpu" and not multiplies_bfloat16():
        return "on the CPU of this machine float32 is many times as fast as bfloat16"
    return None


def store_weights(network: nn.Module, dtype: str) -> None:
    """Convert weights to the dtype in which `products_in` wants them, once instead of for every image."""
    import torch
    from torch import nn

    if dtype == FLOAT32:
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(getattr(torch, dtype))


def products_in(dtype: str, device: str) -> torch.autocast:
    """Convolutions and linear layers in `dtype`, by torch's autocast, which leaves what needs it in float32.

    With float32 nothing changes, bit for bit.
    """
    import torch

    return torch.autocast(device, getattr(torch, dtype), enabled=dtype != FLOAT32)
