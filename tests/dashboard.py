"""What the dashboard in jobs/grafana.json asks Prometheus for, and whether a metrics page has it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_SELECTOR = re.compile(r"\b(ray_\w+)(?:\{([^}]*)\})?")
_GROUPED = re.compile(r"\bby \(([^)]*)\)")
_LINE = re.compile(r"(\w+)(?:\{(.*)\})? \S+")


def dashboard() -> dict[str, Any]:
    """The file."""
    content: dict[str, Any] = json.loads((ROOT / "jobs/grafana.json").read_text(encoding="utf-8"))
    return content


def expressions() -> list[str]:
    """What its panels and its variables ask for, in Prometheus's language."""
    content = dashboard()
    asked = [target["expr"] for panel in content["panels"] for target in panel["targets"]]
    return [*asked, *(variable["query"] for variable in content["templating"]["list"])]


def series() -> dict[str, set[str]]:
    """The series that they ask for, each with the labels that it must have."""
    found: dict[str, set[str]] = {}
    for text in expressions():
        grouped = {label.strip() for labels in _GROUPED.findall(text) for label in labels.split(",")}
        for name, matchers in _SELECTOR.findall(text):
            labels = {*re.findall(r"(\w+)\s*=", matchers)}
            if variable := re.search(rf"label_values\({name}, (\w+)\)", text):
                labels.add(variable[1])
            found.setdefault(name, set()).update(labels | grouped)
    return found


def lacking(page: str) -> list[str]:
    """The series of ours that a metrics page in Prometheus's text has not, or not with all labels."""
    there: dict[str, list[set[str]]] = {}
    for line in page.splitlines():
        if match := _LINE.fullmatch(line):
            there.setdefault(match[1], []).append({*re.findall(r'(\w+)="', match[2] or "")})
    return [
        f"{name} with {', '.join(sorted(labels))}"
        for name, labels in series().items()
        if name.startswith("ray_oodray") and not any(labels <= has for has in there.get(name, []))
    ]
