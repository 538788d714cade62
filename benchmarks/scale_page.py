"""The page and the plot of `benchmarks.scale`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE, PLOT = HERE / "RESULTS-SCALE.md", HERE / "scale.svg"


def write_page(story: dict[str, Any]) -> None:
    """Write RESULTS-SCALE.md and its plot."""
    print(story)
