"""Metrics of score maps from anywhere: `python examples/another_methods_scores.py SCORES LABELS`.

SCORES holds NAME.npy, a float per pixel, higher = more out of distribution; LABELS holds NAME.png: 0 in-distribution,
1 OoD, 255 ignored. `oodray import-scores` does the same for whole datasets, with sweeps and tables.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import oodray

files = sorted(Path(sys.argv[1]).glob("*.npy"))
scores = np.concatenate([np.load(file).ravel() for file in files])
labels = np.concatenate([np.array(Image.open(Path(sys.argv[2]) / f"{file.stem}.png")).ravel() for file in files])
print(f"AP    {oodray.metrics.average_precision(scores, labels):.2%}")
print(f"FPR95 {oodray.metrics.fpr_at_tpr(scores, labels, tpr=0.95):.2%}")
print(f"AUROC {oodray.metrics.auroc(scores, labels):.2%}")
