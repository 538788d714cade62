"""What docs/reliability.md promises is held by tests that exist, and no link inside of the docs is broken."""

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


def left_to_soak_in(path: Path) -> dict[str, bool]:
    """Its tests and classes of tests, as pytest calls them behind the path: whether only `make soak` runs them."""
    tree = ast.parse(path.read_text())
    # A file that marks all of its tests says so in `pytestmark`.
    marks = (
        node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
    )
    whole = any(is_soak(node.value) for node in marks)
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            found[node.name] = whole or is_marked(node)
        elif isinstance(node, ast.ClassDef):
            methods = [method for method in node.body if isinstance(method, ast.FunctionDef)]
            inside = {
                f"{node.name}::{method.name}": whole or is_marked(node) or is_marked(method)
                for method in methods
                if method.name.startswith("test_")
            }
            found |= inside | {node.name: all(inside.values())}
    return found


def is_marked(node: ast.FunctionDef | ast.ClassDef) -> bool:
    return any(is_soak(decorator) for decorator in node.decorator_list if "parametrize" not in ast.unparse(decorator))


def is_soak(expression: ast.expr) -> bool:
    return "pytest.mark.soak" in ast.unparse(expression)


def test_there_are_rows() -> None:
    assert len(ROWS) > 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0])[:40])
def test_every_promise_is_held_by_tests_that_exist_and_by_one_of_every_change(row: list[str]) -> None:
    tests = named_tests(row[-1])
    assert tests
    left_to_soak = []
    for test in tests:
        file, _, name = test.partition("::")
        assert (PROJECT / file).is_file(), test
        found = left_to_soak_in(PROJECT / file)
        assert not name or name in found, test
        left_to_soak.append(found[name] if name else all(found.values()))
    assert not all(left_to_soak), "held by tests alone that `make test` leaves out"


def test_a_mark_is_seen_wherever_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "test_some.py"
    file.write_text(
        """
@pytest.mark.soak
def test_long(): ...
def test_short(): ...
@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.soak), 2])
def test_both(x): ...
class TestSome:
    def test_one(self): ...
    @pytest.mark.soak
    @pytest.mark.timeout(9)
    def test_other(self): ...
@pytest.mark.soak
class TestAll:
    def test_one(self): ...
"""
    )
    expected = {
        "test_long": True,
        "test_short": False,
        "test_both": False,
        "TestSome::test_one": False,
        "TestSome::test_other": True,
        "TestSome": False,
        "TestAll::test_one": True,
        "TestAll": True,
    }
    assert left_to_soak_in(file) == expected
    file.write_text(f"pytestmark = [pytest.mark.slow, pytest.mark.soak]\n{file.read_text()}")
    assert all(left_to_soak_in(file).values())


PAGES = [PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "jobs/README.md")] + sorted(
    [*PROJECT.glob("docs/*.md"), *PROJECT.glob("benchmarks/*.md")]
)


def links(markdown: str) -> list[str]:
    """Targets of links and pictures, without those in code."""
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", markdown, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"\]\(([^)\s]+)\)", prose)


def anchors(markdown: str) -> set[str]:
    """Of the headings of a page, as GitHub and mkdocs make them."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_no_link_inside_of_the_repository_is_broken(page: Path) -> None:
    for link in links(page.read_text()):
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(file.read_text()), f"{page.name} links to {link}"


def test_links_are_found() -> None:
    assert links("[a](b.md#c) ![d](e.png) `[f](g)`\n```\n[h](i)\n```\n") == ["b.md#c", "e.png"]
    assert anchors("# A b, c\n```\n# no\n```\n## `x`-y\n") == {"a-b-c", "x-y"}
    assert any("#" in link for page in PAGES for link in links(page.read_text()))


def test_every_page_is_in_the_site() -> None:
    listed = set(re.findall(r"([\w/]+\.md)$", (PROJECT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert {page.name for page in PROJECT.glob("docs/*.md")} <= listed
