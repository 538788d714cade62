"""When a cluster is waited for at all; that its machines come is in test_growing.py."""

from __future__ import annotations

from typing import Any

import pytest

from oodray.cluster import capacity as room
from oodray.cluster.capacity import wait_for_room
from oodray.config import RunConfig
from oodray.errors import ConfigError

ADDRESS = "10.0.0.1:6379"


@pytest.mark.parametrize("options", [{"ray_address": ADDRESS}, {"wait": 60.0, "gpus_per_worker": 1.0}])
def test_a_cluster_is_waited_for_where_there_is_one_and_somebody_asks(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(room, "connected", lambda _: pytest.fail("a cluster was joined"))
    wait_for_room(RunConfig("demo", **options), pytest.fail)


def test_gpus_that_are_not_there_must_be_asked_for() -> None:
    with pytest.raises(ConfigError, match="--wait needs --gpus-per-worker"):
        wait_for_room(RunConfig("demo", ray_address=ADDRESS, wait=60.0), pytest.fail)
