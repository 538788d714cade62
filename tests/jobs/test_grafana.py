"""The dashboard asks for numbers that a run gives, by their real names and labels."""

from __future__ import annotations

import re
from pathlib import Path

from dashboard import ROOT, dashboard, expressions, lacking, series

OURS = re.compile(r"ray_oodray_\w+")


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


def test_prometheus_finds_every_number_that_the_dashboard_asks_for() -> None:
    """`prometheus.txt` is what Ray 2.60 wrote of such numbers, some of its labels left out."""
    text = (Path(__file__).parent / "prometheus.txt").read_text(encoding="utf-8")
    wanted = {name for expression in expressions() for name in OURS.findall(expression)}
    assert wanted == {*re.findall(r"(?m)^(ray_oodray_\w+){", text)}
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all('run="/a/b"' in line for line in lines)
    assert all("stage=" in line and "dataset=" in line for line in lines if "stage_seconds" in line)
    assert all("status=" in line and "dataset=" in line for line in lines if "images" in line)
    assert lacking(text) == []


def test_series_are_found_in_expressions_and_missed_on_a_page() -> None:
    assert series()["ray_oodray_stage_seconds_bucket"] == {"run", "dataset", "le", "stage"}
    assert series()["ray_oodray_images_total"] == {"run", "dataset", "status"}
    assert series()["ray_node_gpus_utilization"] == set()
    assert len(lacking("")) == 5
    assert "ray_oodray_images_total with dataset, run, status" in lacking('ray_oodray_images_total{run="a"} 1.0')
