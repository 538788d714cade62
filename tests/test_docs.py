"""What docs/reliability.md promises is held by tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
ROWS = [
    line.strip("| \n").split(" | ")
    for line in (PROJECT / "docs/reliability.md").read_text().splitlines()
    if line.startswith("| ") and not line.endswith("held by |")
]


def named_tests(text: str) -> list[str]:
    return re.findall(r"`(tests/\S+?\.py(?:::\w+)*)`", text)


def names_in(path: Path) -> set[str]:
    """Its tests, as pytest calls them behind the path."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        inner = node.body if isinstance(node, ast.ClassDef) else []
        for name in (node, *inner):
            if isinstance(name, ast.FunctionDef | ast.ClassDef):
                found.add(name.name if name is node else f"{getattr(node, 'name', '')}::{name.name}")
    return found


def test_there_are_rows() -> None:
    assert len(ROWS) > 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0])[:40])
def test_every_promise_is_held_by_tests_that_exist(row: list[str]) -> None:
    tests = named_tests(row[-1])
    assert tests
    for test in tests:
        file, _, name = test.partition("::")
        assert (PROJECT / file).is_file(), test
        assert not name or name in names_in(PROJECT / file), test
