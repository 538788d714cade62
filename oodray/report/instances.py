"""Instance AP as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from oodray.metrics.instances import IOU_LEVELS, SMALLEST
from oodray.report.words import percent, threshold_text, without_maps_text, without_threshold_text

if TYPE_CHECKING:
    from oodray.analysis.instances import InstanceReport


def instances_table(report: InstanceReport) -> Table:
    """AP and AP50 of each score, as OoDIS has them."""
    caption = (
        f"Instances of {report.images} labelled images, as OoDIS: AP is the mean over IoU {IOU_LEVELS[0]:.2f} to "
        f"{IOU_LEVELS[-1]:.2f}. Predictions are connected regions above the threshold, of {SMALLEST} pixels and more, "
        f"each as confident as the mean of its scores. {_origin(report)}"
    )
    caption += without_maps_text(report.left_out) + without_threshold_text(report.without_threshold)
    table = Table(caption=Text(caption, overflow="fold"), caption_justify="left", min_width=60)
    table.add_column("score", overflow="fold")
    for name in ("threshold", "AP %", "AP50 %", "objects", "predictions"):
        table.add_column(name, justify="right", overflow="fold")
    for judged in report.judged:
        metrics = judged.metrics
        table.add_row(
            Text(judged.score),
            threshold_text(judged.threshold),
            percent(metrics.ap),
            percent(metrics.ap50),
            str(metrics.objects),
            str(metrics.predictions),
        )
    return table


def _origin(report: InstanceReport) -> str:
    if report.with_ids == report.images:
        return "Objects are those of instance images."
    if not report.with_ids:
        return (
            "There are no instance images: objects are connected regions of OoD pixels, so two that touch are one. "
            "--instance-labels DIR names a folder of them."
        )
    return (
        f"Objects are those of instance images in {report.with_ids} images, and connected regions of OoD pixels in the "
        "others, which have none."
    )
