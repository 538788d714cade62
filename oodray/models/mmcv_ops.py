"""What the packages of OpenMMLab ask for when they are imported, and do not need here.

`mmcv.ops`, where mmcv was installed without its compiled part: mmsegmentation imports a handful of names from it, and
it needs the C++ extension `mmcv._ext`. `point_sample`, of PointRend, needs none and is here; a network that uses one of
the others is refused. Where the extension exists, nothing is replaced.

`transformers`, which takes seconds to import: see `hidden`.

`yapf`, which writes files to HOME when it is imported: see `import_yapf`.

`pkg_resources`, which setuptools no longer has: mmengine asks it where a package is, for a base such as `mmseg::NAME`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from filelock import FileLock

if TYPE_CHECKING:
    from torch import Tensor

FUNCTIONS = ("sigmoid_focal_loss",)
MODULES = ("CrissCrossAttention", "PSAMask", "DeformConv2d", "ModulatedDeformConv2d")


def import_yapf() -> None:
    """Import yapf, which mmengine imports, in one process at a time.

    The first time after an installation it writes its grammars to HOME. A second process that imports it meanwhile,
    such as another worker, would read half of one, and fail.
    """
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # no place for a lock
            held.enter_context(FileLock(yapf_lock()))
        with contextlib.suppress(ModuleNotFoundError):  # said by the import of mmengine
            import_module("yapf")


def yapf_lock() -> Path:
    """The file that the processes of a user lock on this machine while they import yapf."""
    return Path(tempfile.gettempdir()) / f"oodray-yapf-{os.getuid()}.lock"


def ensure_mmcv_ops() -> None:
    """Make `import mmcv.ops` succeed; idempotent."""
    import_yapf()
    if "mmcv.ops" in sys.modules or importlib.util.find_spec("mmcv._ext") is not None:
        return
    ops = ModuleType("mmcv.ops", __doc__)
    for name in FUNCTIONS:
        setattr(ops, name, _missing_function(name))
    ops.point_sample = point_sample  # type: ignore[attr-defined]
    for name in MODULES:
        setattr(ops, name, type(name, (_MissingModule,), {}))
    sys.modules["mmcv.ops"] = ops


def point_sample(maps: Tensor, points: Tensor, *, align_corners: bool = False) -> Tensor:
    """Values at points, bilinearly, as `mmcv.ops.point_sample` gives them.

    Args:
        maps: `(N, C, h, w)`.
        points: `(N, P, 2)`, x and y in [0, 1] of the map's width and height.
        align_corners: whether 0 and 1 are the centres of the outermost pixels, and not their outer edges.

    Returns:
        `(N, C, P)`.

    Example:
        >>> import torch
        >>> halves = torch.tensor([[[[1.0, 3.0]]]])
        >>> point_sample(halves, torch.tensor([[[0.25, 0.5], [0.5, 0.5]]])).tolist()
        [[[1.0, 2.0]]]
    """
    from torch.nn.functional import grid_sample

    return grid_sample(maps, 2 * points[:, :, None] - 1, align_corners=align_corners)[..., 0]


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
