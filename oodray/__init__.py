"""Training-free out-of-distribution segmentation of whole datasets.

The command line is `oodray --help`. From Python:

    oodray.run(...)              a run over a dataset, as `oodray run`: a `Run`, with its tables, masks and metrics
    oodray.merge(outs, out=...)  the shares of a run, made with `shard="I/N"`, joined
    oodray.open_run(out)         the `Run` in a results folder, without torch or Ray
    oodray.load(model)           a network by its name, from Hugging Face, a config or a function of yours
    oodray.detect(image, net)    one image: its OoD mask, clusters and scores
    oodray.fit(...)              statistics of in-distribution images, for scores that need them: a `Fit`
    oodray.metrics               average_precision, fpr_at_tpr and auroc of arrays of scores and labels
    oodray.read_results(out)     one row per image, as a pandas DataFrame
    oodray.read_clusters(out)    one row per image, K and cluster
    oodray.decode_mask(data)     the bytes of `mask_png` or `clusters_png` as a uint8 array
    oodray.Segmentation          what a network of your own returns, see `--model package.module:factory`
    oodray.PixelScore            base of a score of your own, see `--scores package.module:MyScore`
    oodray.OodrayError           base of all errors raised on purpose

`docs/architecture.md` has the words, the way of the data and the rooms of the package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from oodray.errors import OodrayError

if TYPE_CHECKING:
    from oodray import metrics
    from oodray.api.detect import Found, detect
    from oodray.api.fit import fit
    from oodray.api.merge import merge
    from oodray.api.run import Run, open_run
    from oodray.api.start import run
    from oodray.datasets.images import decode_mask
    from oodray.models.loading import load
    from oodray.models.segmenter import Segmentation, Segmenter
    from oodray.results.reading import read_clusters, read_results
    from oodray.scores.fitted.folder import Fit
    from oodray.scores.score import FeatureScore, PixelScore

__version__ = "0.1.0"
__all__ = [
    "FeatureScore",
    "Fit",
    "Found",
    "OodrayError",
    "PixelScore",
    "Run",
    "Segmentation",
    "Segmenter",
    "__version__",
    "decode_mask",
    "detect",
    "fit",
    "load",
    "merge",
    "metrics",
    "open_run",
    "read_clusters",
    "read_results",
    "run",
]

# Imported on first use: `import oodray` stays free of torch, ray, mmseg and pandas.
_HOMES = {
    "FeatureScore": "oodray.scores.score",
    "PixelScore": "oodray.scores.score",
    "Fit": "oodray.scores.fitted.folder",
    "Found": "oodray.api.detect",
    "Run": "oodray.api.run",
    "Segmentation": "oodray.models.segmenter",
    "Segmenter": "oodray.models.segmenter",
    "decode_mask": "oodray.datasets.images",
    "detect": "oodray.api.detect",
    "fit": "oodray.api.fit",
    "load": "oodray.models.loading",
    "merge": "oodray.api.merge",
    "open_run": "oodray.api.run",
    "read_clusters": "oodray.results.reading",
    "read_results": "oodray.results.reading",
    "run": "oodray.api.start",
}


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return importlib.import_module("oodray.metrics")
    if name not in _HOMES:
        raise AttributeError(f"module 'oodray' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
