"""Tables for the terminal. Long text is folded, never cut: a pipe or a file gets all of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from oodray.analysis.images import ImagesInBrief
from oodray.errors import ConfigError
from oodray.metrics.conventions import DEFAULT, Convention
from oodray.report.words import conventions_text, duration_text, percent, rate_text, why_empty

if TYPE_CHECKING:
    from oodray.analysis.calibration import Calibration
    from oodray.analysis.evaluation import Evaluation
    from oodray.analysis.sweep import Sweep
    from oodray.datasets.layouts import Layout
    from oodray.method.rule import Rule
    from oodray.metrics.evaluation import ScoreMetrics
    from oodray.metrics.further import Further
    from oodray.metrics.id_quality import IdQuality
    from oodray.results.status import Speed, Status
    from oodray.storage.place import Place

TOLD_TIE = 0.01
"""Ties that hold a larger share of the labelled pixels are told below a table of metrics."""


_CLASSES_A_LINE = 4

MOST_ANOMALOUS = 10
"""Images that are listed where nothing has a label."""


def evaluation_tables(evaluation: Evaluation) -> list[RenderableType]:
    """What a run is worth: the metrics of its scores, and those of its mask; a line where nothing has a label."""
    if _labelled_pixels(evaluation) == 0:
        without = ", none with labels" if evaluation.images else ""
        return [Text(f"{_images(evaluation)}{without}, so nothing is measured.")]
    tables: list[RenderableType] = [metrics_table(evaluation, convention) for convention in evaluation.conventions]
    if evaluation.further:
        tables.append(further_table(evaluation.further))
    if evaluation.id_quality is not None:
        tables += id_quality_tables(evaluation.id_quality, evaluation.class_names)
    if evaluation.rule is not None:
        tables.append(mask_table(evaluation, evaluation.rule))
    return tables


def most_anomalous_table(found: ImagesInBrief) -> Table:
    """The images with the highest image scores, with the area of their masks."""
    share = percent(found.mean_ood_fraction or 0.0)
    caption = f"The {len(found.most_anomalous)} most anomalous images. {share}% of an average image is OoD."
    table = Table(caption=caption, caption_justify="left", min_width=60)
    table.add_column("image", overflow="fold")
    _add_numbers(table, "image score", "OoD area %")
    for image in found.most_anomalous:
        table.add_row(Text(image.image_id), f"{image.image_score:.3f}", percent(image.ood_fraction or 0.0))
    return table


def metrics_table(evaluation: Evaluation, convention: Convention = DEFAULT) -> Table:
    """The metrics of every score under one convention, in percent; `-` where a class has no pixel."""
    table = Table(caption=_caption(evaluation, convention), caption_justify="left", min_width=60)
    table.add_column("score", overflow="fold")
    names = ["AP", "FPR95", "AUROC"]
    if convention.tpr != DEFAULT.tpr:
        names.insert(2, f"FPR{100 * convention.tpr:g}")
    _add_numbers(table, *(f"{name} %" for name in names))
    for metrics in evaluation.of(convention):
        numbers = [
            _interval(metrics.ap, metrics.ap_low, metrics.ap_high),
            _interval(metrics.fpr95, metrics.fpr95_low, metrics.fpr95_high),
            _interval(metrics.auroc, metrics.auroc_low, metrics.auroc_high),
        ]
        if convention.tpr != DEFAULT.tpr:
            numbers.insert(2, percent(metrics.fpr_at_tpr))
        table.add_row(Text(metrics.score), *numbers)
    return table


def further_table(further: Mapping[str, Further]) -> Table:
    """The further numbers of every score, in percent."""
    caption = (
        "TPR at the first threshold whose FPR is at least 5%; AP of in-distribution pixels; area under FPR and FNR "
        "over thresholds (AUTC) and the smallest mean of both, lower is better; quartiles of the AP of single images; "
        "AUROC and AP of whole images that hold OoD pixels, by image_score."
    )
    table = Table(caption=Text(caption, overflow="fold"), caption_justify="left", min_width=60)
    table.add_column("score", overflow="fold")
    _add_numbers(table, "TPR5 %", "AUPR-in %", "AUTC %", "error %", "AP of images %", "image AUROC %", "image AP %")
    for score, found in further.items():
        quartiles = " / ".join(map(percent, found.ap_quartiles))
        shares = (found.tpr_at_fpr05, found.aupr_in, found.autc, found.detection_error)
        whole = map(percent, (found.image_auroc, found.image_ap))
        table.add_row(Text(score), *map(percent, shares), quartiles, *whole)
    return table


def id_quality_tables(quality: IdQuality, class_names: Sequence[str] = ()) -> list[RenderableType]:
    """What the network is worth on its own classes, and the IoU of each class that occurs, in percent."""
    caption = (
        f"The network on its own classes, of {quality.pixels:,} in-distribution pixels. Kept: on the pixels that the "
        "mask keeps. Open: with the mask as a class of its own. ECE of 15 bins of confidence; Brier is a mean over "
        "pixels of the sum over classes of (p - y)^2, 0 to 2. Classes that neither label nor network names are left "
        "out."
    )
    table = Table(caption=Text(caption, overflow="fold"), caption_justify="left", min_width=60)
    _add_numbers(table, "mIoU %", "mIoU kept %", "open mIoU %", "ECE %", "Brier")
    shares = (quality.miou, quality.miou_kept, quality.open_iou, quality.ece)
    table.add_row(*map(percent, shares), "-" if math.isnan(quality.brier) else f"{quality.brier:.4f}")
    present = [(number, iou) for number, iou in enumerate(quality.iou) if not math.isnan(iou)]
    named = dict(enumerate(class_names))
    caption = "IoU by class." if named else "IoU by class, counted from 0."
    by_class = Table(caption=caption, caption_justify="left", min_width=60)
    _add_numbers(by_class, *["class", "IoU %"] * _CLASSES_A_LINE)
    for start in range(0, len(present), _CLASSES_A_LINE):
        line = present[start : start + _CLASSES_A_LINE]
        by_class.add_row(
            *(text for number, iou in line for text in (Text(named.get(number, str(number))), percent(iou)))
        )
    return [table, by_class]


def mask_table(evaluation: Evaluation, rule: Rule) -> Table:
    """What the mask achieves, in percent; `-` where a share is of nothing."""
    mask = evaluation.mask
    caption = f"The mask at {_rule(rule)}."
    if evaluation.mask_is_empty:
        caption += (
            f" It is empty: no cluster of any image is OoD, as the largest share of unsure pixels in one is "
            f"{evaluation.largest_ratio:.3g}, not above T. A larger --tau or a smaller --ood-ratio calls more; "
            "`oodray calibrate` estimates tau, `oodray sweep` tries settings."
        )
    table = Table(caption=Text(caption, overflow="fold"), caption_justify="left", min_width=60)
    _add_numbers(table, "precision %", "recall %", "FPR %", "F1 %", "IoU %")
    table.add_row(*map(percent, (mask.precision, mask.recall, mask.fpr, mask.f1, mask.iou)))
    return table


def sweep_table(sweep: Sweep, rows: Sequence[int]) -> Table:
    """Some settings of a sweep, in percent."""
    ks, taus, ood_ratios = sweep.request.shape
    caption = (
        f"The best of {ks} K x {taus} tau x {ood_ratios} T by F1 of the mask, each the best among its neighbours. "
        "AP and FPR95 are those of ratio, which does not depend on T."
    )
    return _settings_table(caption, [sweep.setting(row) for row in rows])


def selection_table(sweep: Sweep, elsewhere: Sweep, path: Place) -> Table:
    """The setting that is best on another run, as it is there and here.

    Raises:
        ConfigError: if this run did not cluster with the K of that setting.
    """
    there = elsewhere.setting(elsewhere.chosen())
    if there["k"] not in sweep.request.ks:
        raise ConfigError(
            f"the best setting on {path} has K = {there['k']}; run this one with --sweep-k {there['k']}, too"
        )
    taus, ood_ratios = sweep.request.shape[1:]
    place = elsewhere.chosen() % (taus * ood_ratios)
    here = sweep.setting(sweep.request.ks.index(there["k"]) * taus * ood_ratios + place)
    return _settings_table(f"Above: the best by F1 of the mask on {path}. Below: the same setting here.", [there, here])


def _settings_table(caption: str, settings: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(caption=Text(caption, overflow="fold"), caption_justify="left", min_width=60)
    _add_numbers(table, "K", "tau", "T", "F1 %", "IoU %", "precision %", "recall %", "AP %", "FPR95 %")
    for row in settings:
        shares = (row[name] for name in ("f1", "iou", "precision", "recall", "ratio_ap", "ratio_fpr95"))
        table.add_row(str(row["k"]), f"{row['tau']:g}", f"{row['ood_ratio']:g}", *map(percent, shares))
    return table


def calibration_tables(calibration: Calibration) -> list[RenderableType]:
    """Tau, and by T what would be called OoD on images that hold nothing unknown."""
    failed = f", {calibration.failed} failed" if calibration.failed else ""
    tau = Text.assemble(
        (f"tau {calibration.tau}", "bold"),
        f": {calibration.unsure:.2%} of {calibration.pixels:,} in-distribution pixels of {calibration.images} images"
        f"{failed} have a smaller max-logit",
    )
    silent = [alarms.ood_ratio for alarms in calibration.false_alarms if not alarms.clusters]
    caption = "False alarms at this tau: nothing here is OoD. Choose T by the share you can bear."
    if silent:
        caption += f" From T = {silent[0]:g} on the mask is empty: no cluster of these images is called OoD."
    table = Table(caption=Text(caption, overflow="fold"), caption_justify="left", min_width=60)
    _add_numbers(table, "T", "clusters %", "pixels %", "images %")
    for alarms in calibration.false_alarms:
        shares = (alarms.clusters, alarms.pixels, alarms.images)
        table.add_row(f"{alarms.ood_ratio:g}", *map(percent, shares))
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
    if status.seconds_left is not None:
        rows.append(("time left", f"{duration_text(status.seconds_left)} at this speed"))
    return rows


def _speed_text(speed: Speed) -> str:
    period = "start-up included" if speed.with_start_up else "from the first results file to the last"
    return f"{rate_text(speed.images_per_second)} images/s, {period}"


def _caption(evaluation: Evaluation, convention: Convention) -> Text:
    labelled = _labelled_pixels(evaluation)
    share = f"{evaluation.scores[0].pixels_ood / labelled:.2%} of {labelled:,} labelled pixels OoD"
    setting = f"; {_rule(evaluation.rule)}" if evaluation.rule else ""
    interval = " In brackets: 95% confidence intervals, from images drawn anew." if _has_intervals(evaluation) else ""
    ties = _ties(evaluation.of(convention))
    rules = conventions_text(convention, blurred=evaluation.blurred, exact=evaluation.exact)
    text = f"{_images(evaluation)}, {share}{setting}.\n{rules}{interval}{ties}"
    if convention.lacking == "drop" and evaluation.lacking:
        text += f"\nLeft out: {evaluation.lacking} of {evaluation.images} images."
    empty = why_empty(evaluation, convention)
    return Text(f"{text}\n{empty}" if empty else text, overflow="fold")


def _ties(scores: Sequence[ScoreMetrics]) -> str:
    """The scores of which a hundredth of the pixels or more have one value: their curves have a corner there."""
    large = [metrics for metrics in scores if metrics.largest_tie is not None and metrics.largest_tie > TOLD_TIE]
    if not large:
        return ""
    ties = ", ".join(f"{metrics.score} {metrics.largest_tie:.1%}" for metrics in large)
    return f"\nLargest tie, the share of the labelled pixels that have one value: {ties}."


def _has_intervals(evaluation: Evaluation) -> bool:
    return any(metrics.ap_low is not None for metrics in evaluation.scores)


def _interval(share: float, low: float | None, high: float | None) -> str:
    return percent(share) if low is None or high is None else f"{percent(share)} [{100 * low:.1f}, {100 * high:.1f}]"


def _images(evaluation: Evaluation) -> str:
    failed = f", {evaluation.failed} failed" if evaluation.failed else ""
    left = f", {evaluation.left} not done yet" if evaluation.left else ""
    return f"{evaluation.images} images{failed}{left}"


def is_labelled(evaluation: Evaluation) -> bool:
    """Whether any pixel has a label."""
    return _labelled_pixels(evaluation) > 0


def _labelled_pixels(evaluation: Evaluation) -> int:
    """The same for every score; 0 also where every image failed."""
    return next((metrics.pixels_id + metrics.pixels_ood for metrics in evaluation.scores), 0)


def _rule(rule: Rule) -> str:
    return f"K = {rule.k}, tau = {rule.tau}, T = {rule.ood_ratio}"


def _add_numbers(table: Table, *names: str) -> None:
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
