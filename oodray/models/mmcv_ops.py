"""A placeholder for `mmcv.ops` where mmcv was installed without its compiled part.

mmsegmentation imports a handful of names from `mmcv.ops`, which needs the C++ extension `mmcv._ext`. None of
them is used by the networks here, so mmcv-lite does, provided the import succeeds. Where the extension
exists, nothing is replaced.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any, NoReturn

FUNCTIONS = ("point_sample", "sigmoid_focal_loss")
MODULES = ("CrissCrossAttention", "PSAMask", "DeformConv2d", "ModulatedDeformConv2d")


def ensure_mmcv_ops() -> None:
    """Make `import mmcv.ops` succeed; idempotent."""
    if "mmcv.ops" in sys.modules or importlib.util.find_spec("mmcv._ext") is not None:
        return
    ops = ModuleType("mmcv.ops", __doc__)
    for name in FUNCTIONS:
        setattr(ops, name, _missing_function(name))
    for name in MODULES:
        setattr(ops, name, type(name, (_MissingModule,), {}))
    sys.modules["mmcv.ops"] = ops


def _refuse(name: str) -> NoReturn:
    raise NotImplementedError(
        f"mmcv.ops.{name} is not available: it needs mmcv's compiled extension. "
        "Choose a model that does not use it, or replace mmcv-lite by a compiled mmcv 2.1."
    )


def _missing_function(name: str) -> Any:
    def missing(*_args: object, **_kwargs: object) -> NoReturn:
        _refuse(name)

    missing.__name__ = name
    return missing


class _MissingModule:
    def __init__(self, *_args: object, **_kwargs: object) -> None:
        _refuse(type(self).__name__)
