"""Metrics of connected regions as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from oodray.metrics.components import LEVELS, SIZES
from oodray.report.words import percent, threshold_text, without_maps_text, without_threshold_text

if TYPE_CHECKING:
    from oodray.analysis.components import Report
    from oodray.metrics.components import Limits


def components_tables(report: Report, limits: Limits) -> list[RenderableType]:
    """sIoU, PPV and F1* of each score, then what an engineer acts on: objects found by size, and false alarms."""
    caption = (
        f"Regions of {report.images} labelled images: alarms of {limits.alarm} pixels and more, objects of "
        f"{limits.object} and more. A mean over all objects (sIoU), all alarms (PPV), and 11 levels from "
        f"{LEVELS[0]} to {LEVELS[-1]} (F1*). An object is found where its sIoU, and an alarm true where its PPV, is at "
        f"least {LEVELS[0]}. Small is below 32x32 pixels, large from 96x96 on."
    )
    caption += without_maps_text(report.left_out) + without_threshold_text(report.without_threshold)
    table = Table(caption=Text(caption, overflow="fold"), caption_justify="left", min_width=60)
    table.add_column("score", overflow="fold")
    names = ("threshold", "sIoU %", "PPV %", "F1* %", *(f"{size} found %" for size in SIZES), "false alarms an image")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for judged in report.judged:
        metrics = judged.metrics
        table.add_row(
            Text(judged.score),
            threshold_text(judged.threshold),
            *map(percent, (metrics.siou, metrics.ppv, metrics.f1_star, *metrics.found.values())),
            f"{metrics.false_alarms:.2f}",
        )
    return [table]
