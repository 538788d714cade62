"""Training-free out-of-distribution segmentation of whole datasets.

The command line is `oodray --help`. From Python:

    oodray.read_results(out)     one row per image, as a pandas DataFrame
    oodray.read_clusters(out)    one row per image, K and cluster
    oodray.decode_mask(data)     the bytes of `mask_png` or `clusters_png` as a uint8 array
    oodray.metrics               average_precision, fpr_at_tpr and auroc of arrays of scores and labels
    oodray.Segmentation          what a network of your own returns, see `--model package.module:factory`
    oodray.OodrayError           base of all errors raised on purpose
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from oodray.errors import OodrayError

if TYPE_CHECKING:
    from oodray import metrics
    from oodray.datasets.images import decode_mask
    from oodray.models.segmenter import Segmentation, Segmenter
    from oodray.results.reading import read_clusters, read_results

__version__ = "0.1.0"
__all__ = [
    "OodrayError",
    "Segmentation",
    "Segmenter",
    "__version__",
    "decode_mask",
    "metrics",
    "read_clusters",
    "read_results",
]

# Imported on first use: `import oodray` stays free of torch, ray, mmseg and pandas.
_HOMES = {
    "Segmentation": "oodray.models.segmenter",
    "Segmenter": "oodray.models.segmenter",
    "decode_mask": "oodray.datasets.images",
    "read_clusters": "oodray.results.reading",
    "read_results": "oodray.results.reading",
}


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return importlib.import_module("oodray.metrics")
    if name not in _HOMES:
        raise AttributeError(f"module 'oodray' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
