"""What the packages of OpenMMLab ask for when they are imported, and do not need here.

`mmcv.ops`, where mmcv was installed without its compiled part: mmsegmentation imports a handful of names from it, and
it needs the C++ extension `mmcv._ext`. None of them is used by the networks here, so mmcv-lite does, provided the
import succeeds. Where the extension exists, nothing is replaced.

`transformers`, which takes seconds to import: see `hidden`.

`pkg_resources`, which setuptools no longer has: mmengine asks it where a package is, for a base such as `mmseg::NAME`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
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


@contextlib.contextmanager
def hidden(package: str) -> Iterator[None]:
    """Inside, importing `package` fails as if it were not installed, unless it is loaded already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # so Python marks what must not be imported
    try:
        yield
    finally:
        del sys.modules[package]


@contextlib.contextmanager
def packages_found(config_module: ModuleType, packages: Mapping[str, str]) -> Iterator[None]:
    """Inside, mmengine finds packages without `pkg_resources`, where that is missing.

    Args:
        config_module: `mmengine.config.config`.
        packages: what pip calls a module, by the module's name.
    """
    if importlib.util.find_spec("pkg_resources") is not None:
        yield
        return
    modules = {package: module for module, package in packages.items()}

    def place(package: str) -> str | None:
        spec = importlib.util.find_spec(modules.get(package, package))
        return None if spec is None or spec.origin is None else str(Path(spec.origin).parent)

    names = ("is_installed", "get_installed_path")
    before = {name: getattr(config_module, name) for name in names}
    try:
        for name, stand_in in zip(names, (lambda package: place(package) is not None, place), strict=True):
            setattr(config_module, name, stand_in)
        yield
    finally:
        for name, own in before.items():
            setattr(config_module, name, own)


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
