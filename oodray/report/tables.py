"""Tables for the terminal. Long text is folded, never cut: a pipe or a file gets all of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from oodray.report.words import duration_text, rate_text

if TYPE_CHECKING:
    from oodray.datasets.layouts import Layout
    from oodray.job.calibration import Calibration
    from oodray.job.reduce import Evaluation
    from oodray.method.rule import Rule
    from oodray.report.status import Speed, Status

CONVENTIONS = (
    "The pixels of all images are pooled; ignored pixels do not count. AP is the step sum over recall. "
    "FPR95 is the false positive rate at the first threshold that finds 95% of the OoD pixels. "
    "Equal scores share one threshold."
)


def evaluation_tables(evaluation: Evaluation) -> list[RenderableType]:
    """What a run is worth: the metrics of its scores, and those of its mask; a line where nothing has a label."""
    if _labelled_pixels(evaluation) == 0:
        nothing = f"{_images(evaluation)}, no labelled pixels: nothing to measure. `oodray show` draws what was found."
        return [Text(nothing)]
    return [metrics_table(evaluation), mask_table(evaluation)]


def metrics_table(evaluation: Evaluation) -> Table:
    """AP, FPR95 and AUROC of every score, in percent; `-` where a class has no pixel."""
    table = Table(caption=_caption(evaluation), caption_justify="left", min_width=60)
    table.add_column("score", overflow="fold")
    _add_numbers(table, "AP %", "FPR95 %", "AUROC %")
    for metrics in evaluation.scores:
        table.add_row(Text(metrics.score), *map(_percent, (metrics.ap, metrics.fpr95, metrics.auroc)))
    return table


def mask_table(evaluation: Evaluation) -> Table:
    """What the mask achieves, in percent; `-` where a share is of nothing."""
    mask = evaluation.mask
    table = Table(caption=f"The mask at {_rule(evaluation.rule)}.", caption_justify="left", min_width=60)
    _add_numbers(table, "precision %", "recall %", "FPR %", "F1 %", "IoU %")
    table.add_row(*map(_percent, (mask.precision, mask.recall, mask.fpr, mask.f1, mask.iou)))
    return table


def calibration_tables(calibration: Calibration) -> list[RenderableType]:
    """Tau, and by T what would be called OoD on images that hold nothing unknown."""
    failed = f", {calibration.failed} failed" if calibration.failed else ""
    tau = Text.assemble(
        (f"tau {calibration.tau}", "bold"),
        f": {calibration.unsure:.2%} of {calibration.pixels:,} in-distribution pixels of {calibration.images} images"
        f"{failed} have a smaller max-logit",
    )
    table = Table(
        caption="False alarms at this tau: nothing here is OoD. Choose T by the share you can bear.",
        caption_justify="left",
        min_width=60,
    )
    _add_numbers(table, "T", "clusters %", "pixels %", "images %")
    for alarms in calibration.false_alarms:
        shares = (alarms.clusters, alarms.pixels, alarms.images)
        table.add_row(f"{alarms.ood_ratio:g}", *map(_percent, shares))
    return [tau, table]


def status_table(status: Status) -> Table:
    """How far a run is, and its most frequent errors."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", overflow="fold")
    table.add_column(overflow="fold")
    for name, value in _status_rows(status):
        table.add_row(name, Text(value))
    for message, images in status.errors:
        table.add_row(Text(f"{images} x", justify="right"), Text(message))
    return table


def datasets_table(layouts: Iterable[Layout]) -> Table:
    """The known datasets: name, number of images, the files that each needs and where to get it.

    One column, as the addresses are too long for a second one in 80 characters.
    """
    table = Table.grid()
    table.add_column(overflow="fold")
    for layout in layouts:
        images = "any number of images" if layout.images is None else f"{layout.images} images"
        heading = Text.assemble((layout.name, "bold"), f"  {layout.title}, {images}")
        where = Text(layout.where, overflow="fold")
        details = Padding(Group(where, _tree_table(layout.tree)), (0, 0, 1, 2))
        table.add_row(Group(heading, details))
    return table


def _tree_table(tree: str) -> Table:
    """The lines of a layout's tree, each with its remark below it."""
    table = Table.grid()
    table.add_column(overflow="fold")
    for line in tree.splitlines():
        path, _, remark = line.partition("   ")
        table.add_row(Text(path))
        if remark:
            table.add_row(Padding(Text(remark.strip(), style="dim", overflow="fold"), (0, 0, 0, 2)))
    return table


def _status_rows(status: Status) -> list[tuple[str, str]]:
    done = status.ok + status.failed
    rows = [
        ("state", "finished" if status.finished else "not finished"),
        ("images", f"{done} of {status.total} done, {status.left} left"),
        ("failed", str(status.failed)),
        ("speed", _speed_text(status.speed) if status.speed else "unknown"),
    ]
    if status.speed and status.left:
        rows.append(("time left", f"{duration_text(status.left / status.speed.images_per_second)} at this speed"))
    return rows


def _speed_text(speed: Speed) -> str:
    period = "start-up included" if speed.with_start_up else "from the first results file to the last"
    return f"{rate_text(speed.images_per_second)} images/s, {period}"


def _caption(evaluation: Evaluation) -> Text:
    labelled = _labelled_pixels(evaluation)
    share = f"{evaluation.scores[0].pixels_ood / labelled:.2%} of {labelled:,} labelled pixels OoD"
    return Text(f"{_images(evaluation)}, {share}; {_rule(evaluation.rule)}.\n{CONVENTIONS}", overflow="fold")


def _images(evaluation: Evaluation) -> str:
    failed = f", {evaluation.failed} failed" if evaluation.failed else ""
    left = f", {evaluation.left} not done yet" if evaluation.left else ""
    return f"{evaluation.images} images{failed}{left}"


def _labelled_pixels(evaluation: Evaluation) -> int:
    """The same for every score; 0 also where every image failed."""
    return next((metrics.pixels_id + metrics.pixels_ood for metrics in evaluation.scores), 0)


def _rule(rule: Rule) -> str:
    return f"K = {rule.k}, tau = {rule.tau}, T = {rule.ood_ratio}"


def _add_numbers(table: Table, *names: str) -> None:
    for name in names:
        table.add_column(name, justify="right", overflow="fold")


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.2f}"
