"""Networks made by a callable of yours, `package.module:factory`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from oodray.errors import ModelError
from oodray.models.segmenter import Segmenter


def import_factory(name: str, search_path: str | None) -> Callable[[], Any]:
    """The callable that `package.module:factory` names.

    Args:
        name: of the factory.
        search_path: a folder to look in before the others, the driver's working directory.

    Raises:
        ModelError: if it cannot be imported.
    """
    module_name, _, factory_name = name.partition(":")
    if search_path is not None and search_path not in sys.path:
        sys.path.insert(0, search_path)
    try:
        factory: Callable[[], Any] = getattr(importlib.import_module(module_name), factory_name)
    except Exception as error:
        raise ModelError(
            f"cannot import the factory {name}: {type(error).__name__}: {error}. "
            f"It is looked for in {search_path} and on PYTHONPATH, here and on every worker."
        ) from error
    return factory


def source_file(factory: Callable[[], Any]) -> Path | None:
    """The file of the module that defines a factory; None where it has none."""
    file = getattr(sys.modules.get(getattr(factory, "__module__", "")), "__file__", None)
    return None if file is None else Path(file)


def make_segmenter(name: str, search_path: str | None) -> Segmenter:
    """What the factory returns.

    Raises:
        ModelError: if the factory cannot be imported, fails, or returns something else than a segmenter.
    """
    factory = import_factory(name, search_path)
    try:
        segmenter = factory()
    except Exception as error:
        raise ModelError(f"the factory {name} failed: {type(error).__name__}: {error}") from error
    if isinstance(segmenter, type) or not isinstance(segmenter, Segmenter):
        raise ModelError(
            f"the factory {name} returned {segmenter!r}; it must return an object with a method "
            "segment(images), see oodray.Segmenter"
        )
    return segmenter
