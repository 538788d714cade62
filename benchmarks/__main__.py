"""Run every benchmark and rewrite RESULTS.md: `python -m benchmarks`."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks import clustering, dcnv3, evaluation
from benchmarks.timing import REPEATS, Comparison

RESULTS = Path(__file__).parent / "RESULTS.md"
PACKAGES = ("torch", "numba", "numpy", "scikit-learn")


def main() -> None:
    """Measure, print, write."""
    text = _report([evaluation.run(), *dcnv3.run(), *clustering.run()])
    RESULTS.write_text(text, encoding="utf-8")
    print(text)


def _report(comparisons: list[Comparison]) -> str:
    rows = [
        f"| {c.what} | {c.ours} | {c.our_seconds:.3f} s | {c.theirs} | {c.their_seconds:.3f} s "
        f"| **{c.ratio:.1f}x** | {c.difference:.1e} |"
        for c in comparisons
    ]
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return "\n".join(
        [
            "# Benchmarks",
            "",
            f"Written by `make bench`, at a load of {os.getloadavg()[0]:.1f}. {os.cpu_count()} cores "
            f"({platform.machine()}), {torch.get_num_threads()} torch threads, Python {platform.python_version()}, "
            f"{versions}. Both ways in turn, medians of {REPEATS} runs; "
            "the ratio is the median of the ratios.",
            "",
            "| what | ours | time | theirs | time | ratio | difference |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main()
