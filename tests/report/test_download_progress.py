from __future__ import annotations

import io

from rich.console import Console

from oodray.report.download_progress import SECONDS_BETWEEN_LINES, DownloadProgress


def test_without_a_terminal_there_is_a_line_now_and_then_and_a_last_one() -> None:
    out, now = io.StringIO(), 0.0
    with DownloadProgress("weights.pth", console=Console(file=out, width=20), clock=lambda: now) as progress:
        for step in range(21):
            now = step * SECONDS_BETWEEN_LINES / 10
            progress.update(step * 10**6, 20 * 10**6)
    assert out.getvalue().splitlines() == [
        "weights.pth: 0.0 of 20.0 MB",
        "weights.pth: 10.0 of 20.0 MB",
        "weights.pth: 20.0 of 20.0 MB",
    ]


def test_a_size_that_nobody_knows() -> None:
    out = io.StringIO()
    with DownloadProgress("weights.pth", console=Console(file=out)) as progress:
        progress.update(1_500_000, None)
    assert out.getvalue() == "weights.pth: 1.5 MB\n"


def test_a_terminal_gets_a_bar() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with DownloadProgress("weights.pth", console=console) as progress:
        progress.update(500_000, 2_000_000)
        progress.update(2_000_000, 2_000_000)
    assert "weights.pth" in out.getvalue()
    assert "2.0/2.0 MB" in out.getvalue()


def test_where_nothing_is_downloaded_nothing_is_shown() -> None:
    out = io.StringIO()
    with DownloadProgress("weights.pth", console=Console(file=out, force_terminal=True)):
        pass
    assert out.getvalue() == ""
