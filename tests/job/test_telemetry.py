from __future__ import annotations

import pytest
from pixel_oracles import failed_row

from oodray.job.telemetry import BusyShare, count_images


def test_the_share_is_of_the_time_since_the_first_work() -> None:
    busy = BusyShare()
    assert busy.add(100.0, 101.0) == 1.0
    assert busy.add(103.0, 104.0) == pytest.approx(0.5)
    assert busy.add(104.0, 110.0) == pytest.approx(0.8)


def test_without_ray_nothing_is_counted() -> None:
    count_images([failed_row("a")], "/out")
