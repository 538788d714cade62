"""The dashboard asks for numbers that a run gives, by their real names and labels."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
OURS = re.compile(r"ray_oodray_\w+")


def dashboard() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "jobs/grafana.json").read_text(encoding="utf-8"))
    return content


def expressions() -> list[str]:
    content = dashboard()
    asked = [target["expr"] for panel in content["panels"] for target in panel["targets"]]
    return [*asked, *(variable["query"] for variable in content["templating"]["list"])]


def test_every_panel_has_a_place_and_a_source() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len({*places}) == len(panels)
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    for text in expressions():
        assert text.count("(") == text.count(")")
        assert text.count("{") == text.count("}")


def test_the_documented_names_are_those_of_the_dashboard() -> None:
    documented = {*OURS.findall((ROOT / "docs/cluster.md").read_text(encoding="utf-8"))}
    asked = {re.sub("_(bucket|sum|count)$", "", name) for text in expressions() for name in OURS.findall(text)}
    assert asked == documented


@pytest.mark.soak
def test_prometheus_finds_every_number_that_the_dashboard_asks_for(ray_session: None) -> None:
    import ray

    def work() -> None:
        import time
        from dataclasses import replace

        from pixel_oracles import failed_row

        from oodray.job.telemetry import BusyShare, count_images

        count_images([replace(failed_row("a"), seconds_decode=0.02)], "/runs/a")
        with BusyShare({"run": "/runs/a", "dataset": "folder"}):
            time.sleep(0.1)
        time.sleep(30)  # as long as the process lives, Ray gives out its numbers

    done = ray.remote(work).options(num_cpus=0).remote()
    [node] = ray.nodes()
    address, text = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", ""
    wanted = {name for expression in expressions() for name in OURS.findall(expression)}
    until = time.monotonic() + 90
    while not all(f"\n{name}{{" in text for name in wanted):
        assert time.monotonic() < until, sorted(name for name in wanted if f"\n{name}{{" not in text)
        with urllib.request.urlopen(address, timeout=10) as answer:
            text = answer.read().decode()
        time.sleep(0.5)
    for line in text.splitlines():
        if line.startswith("ray_oodray"):
            assert 'run="/runs/a"' in line
            assert "dataset=" in line
    ray.cancel(done, force=True)
