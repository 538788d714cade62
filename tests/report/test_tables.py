from __future__ import annotations

import io
import math
from typing import Any

import pytest
from rich.console import Console, RenderableType

from oodray.analysis.evaluation import Evaluation
from oodray.datasets.layouts import LAYOUTS
from oodray.method.rule import Rule
from oodray.metrics.curves import OperatingPoint, operating_point
from oodray.metrics.evaluation import ScoreMetrics
from oodray.report.tables import datasets_table, evaluation_tables, mask_table, metrics_table, status_table
from oodray.results.status import Speed, Status


def printed(table: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    return text


def joined(text: str) -> str:
    """Without blanks, so that folded words are whole again."""
    return "".join(text.split())


def cells(text: str, first: str) -> list[str]:
    """The cells of the row that begins with `first`."""
    (line,) = (line for line in text.splitlines() if first in line)
    return [cell.strip() for cell in line.strip("│┃ ").replace("┃", "│").split("│")]


def evaluation(**changed: Any) -> Evaluation:
    content: dict[str, Any] = {
        "rule": Rule(8, 1.25, 0.3),
        "images": 58,
        "failed": 2,
        "scores": [
            ScoreMetrics("ratio", 0.123456, 0.5, 1.0, 7500, 2500),
            ScoreMetrics("mask-then-logit", 0.99999, 0.0, math.nan, 7500, 2500),
        ],
        "mask": operating_point(tp=3, fp=1, fn=2, tn=4),
    }
    return Evaluation(**(content | changed))


def status(**changed: Any) -> Status:
    content: dict[str, Any] = {
        "total": 600,
        "ok": 100,
        "failed": 20,
        "left": 480,
        "speed": Speed(4.1, with_start_up=False),
        "finished": False,
        "errors": [("the image is [red]damaged", 18), ("out of memory", 2)],
    }
    return Status(**(content | changed))


def test_metrics_in_percent() -> None:
    text = printed(metrics_table(evaluation()))
    assert cells(text, "AP %") == ["score", "AP %", "FPR95 %", "AUROC %"]
    assert cells(text, "ratio ") == ["ratio", "12.35", "50.00", "100.00"]
    assert cells(text, "mask-then-logit") == ["mask-then-logit", "100.00", "0.00", "-"]


def test_the_caption_says_what_the_numbers_are_of() -> None:
    text = joined(printed(metrics_table(evaluation())))
    expected = "58 images, 2 failed, 25.00% of 10,000 labelled pixels OoD; K = 8, tau = 1.25, T = 0.3."
    assert joined(expected) in text
    assert joined("AP is the step sum over recall") in text
    assert joined("Equal scores share one threshold") in text
    assert "failed" not in printed(metrics_table(evaluation(failed=0)))
    assert "not done" not in text
    assert joined("2 failed, 7 not done yet, 25.00%") in joined(printed(metrics_table(evaluation(left=7))))


@pytest.mark.parametrize("scores", [[], [ScoreMetrics("ratio", math.nan, math.nan, math.nan, 0, 0)]])
def test_a_run_without_labels(scores: list[ScoreMetrics]) -> None:
    nothing = OperatingPoint(math.nan, math.nan, math.nan, math.nan, math.nan)
    tables = evaluation_tables(evaluation(scores=scores, mask=nothing))
    text = "".join(map(printed, tables))
    assert "none with labels, so nothing is measured" in text
    assert "nan" not in text


def test_mask_in_percent() -> None:
    text = printed(mask_table(evaluation(), Rule(8, 1.25, 0.3)))
    assert cells(text, "IoU") == ["precision %", "recall %", "FPR %", "F1 %", "IoU %"]
    assert cells(text, "75.00") == ["75.00", "60.00", "20.00", "66.67", "50.00"]
    assert "K = 8, tau = 1.25, T = 0.3" in text


def test_status_while_the_run_goes_on() -> None:
    lines = [" ".join(line.split()) for line in printed(status_table(status())).splitlines()]
    assert lines == [
        "state not finished",
        "images 120 of 600 done, 480 left",
        "failed 20",
        "speed 4.1 images/s, from the first results file to the last",
        "time left 1:57 at this speed",
        "18 x the image is [red]damaged",
        "2 x out of memory",
    ]


def test_status_of_a_finished_run_and_of_one_without_a_speed() -> None:
    finished = printed(status_table(status(finished=True, left=0, speed=Speed(0.16, with_start_up=True))))
    assert "0.16 images/s, start-up included" in finished
    assert "time left" not in finished
    assert "not finished" not in finished
    unknown = printed(status_table(status(speed=None)))
    assert "unknown" in unknown
    assert "time left" not in unknown


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_long_messages_are_folded_not_cut(width: int) -> None:
    message = "cannot read /a/" + "x" * 150 + "/frame.jpg: No such file or directory"
    assert joined(message) in joined(printed(status_table(status(errors=[(message, 3)])), width))


def test_datasets_at_80_columns() -> None:
    text = printed(datasets_table(LAYOUTS.values()))
    lines = [line.strip() for line in text.splitlines()]
    for layout in LAYOUTS.values():
        images = "any number of images" if layout.images is None else f"{layout.images} images"
        assert f"{layout.name}  {layout.title}, {images}" in lines
        addresses = [word for word in layout.where.split() if word.startswith("http")]
        assert all(address in text for address in addresses)  # whole, to be copied
        flat = " ".join(text.split())
        assert all(" ".join(tree.split("   ")[0].split()) in flat for tree in layout.tree.splitlines())
    assert "road-anomaly" in text
    at = lines.index("ROOT/frames/NAME.labels/labels_semantic.png")
    assert lines[at + 1] == "0 in-distribution, 2 OoD"


@pytest.mark.parametrize("width", [30, 80, 200])
def test_datasets_lose_nothing_at_any_width(width: int) -> None:
    text = printed(datasets_table(LAYOUTS.values()), width)
    for layout in LAYOUTS.values():
        assert joined(layout.where) in joined(text)
    expected = "".join(
        f"{layout.name}{layout.title},{'any number of' if layout.images is None else layout.images}images"
        f"{layout.where}{layout.tree}"
        for layout in LAYOUTS.values()
    )
    assert joined(text) == joined(expected)
