"""Counts to numbers; numpy alone.

    oodray.metrics.average_precision(scores, labels)
    oodray.metrics.fpr_at_tpr(scores, labels, tpr=0.95)
    oodray.metrics.auroc(scores, labels)

take arrays, see `oodray.metrics.arrays`; the modules beside it take counts, as a run has them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oodray.metrics.arrays import auroc, average_precision, fpr_at_tpr

__all__ = ["auroc", "average_precision", "fpr_at_tpr"]


def __getattr__(name: str) -> Any:
    # On first use, so that the modules of this room do not load each other by being in it.
    if name not in __all__:
        raise AttributeError(f"module 'oodray.metrics' has no attribute {name!r}")
    return getattr(importlib.import_module("oodray.metrics.arrays"), name)


def __dir__() -> list[str]:
    return __all__
