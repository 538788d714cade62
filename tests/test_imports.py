"""The rooms of the package import each other in one direction, and heavy packages only where they belong."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import oodray

PACKAGE = Path(oodray.__file__).parent

# A room may use those on the steps before its own, and itself. The package's own __init__ imports everything, lazily.
STEPS = (
    {"errors", "spelling", "ahead"},
    {"storage", "settings", "ranges", "records", "yaml_text", "phases", "compiled"},
    {"config"},
    {"metrics"},
    {"scores"},
    {"method"},
    {"models"},
    {"datasets", "doctor"},
    {"results"},
    {"cluster"},
    {"analysis"},
    {"training", "job"},
    {"report"},
    {"export"},
    {"api"},
    {"cli"},
    {"__main__"},
)

HEAVY = {
    "torch",
    "ray",
    "mmseg",
    "mmengine",
    "mmcv",
    "pandas",
    "pyarrow",
    "sklearn",
    "scipy",
    "cuml",
    "triton",
    "numba",
    "transformers",
}

HOMES = {
    "ray": {"cluster", "analysis", "job", "export"},
    "mmseg": {"models", "training"},
    "mmengine": {"models", "training"},
    "mmcv": {"models"},
    "skimage": {"method", "scores"},
    "torch": {"scores", "method", "models", "datasets", "training", "cluster", "job", "api", "doctor"},
    "sklearn": {"method", "scores"},
    "scipy": {"metrics", "scores", "datasets", "report", "export"},
    "cuml": {"method"},
    "triton": {"models"},
    "numba": {"compiled", "models"},
    "transformers": {"models"},
    "huggingface_hub": {"models"},
    "llvmlite": {"models"},
    "safetensors": {"models", "scores"},
    "cv2": {"models", "datasets"},
    "filelock": {"models", "results"},
    "pandas": {"results", "report"},
    "pyarrow": {"records", "storage", "datasets", "results", "analysis", "job", "report", "export"},
    "PIL": {"datasets", "report", "export"},
    "h5py": {"datasets", "export"},
    "jinja2": {"report"},
    "markupsafe": {"report"},
    "matplotlib": {"report"},
    "rich": {"report", "cli"},
    "typer": {"cli"},
    "yaml": {"yaml_text"},
}


@dataclass(frozen=True)
class Import:
    """An import of `module` by `importer`: `lazy` inside a function, `typing` where it is for type checkers alone."""

    module: str
    importer: str
    where: str
    room: str
    lazy: bool
    typing: bool

    @property
    def package(self) -> str:
        return self.module.split(".")[0]


def imports(path: Path) -> Iterator[Import]:
    inside = path.relative_to(PACKAGE)
    importer = name_of(path)

    def walk(node: ast.AST, lazy: bool, typing: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                for module in modules(child):
                    room = inside.parts[0].removesuffix(".py")
                    yield Import(module, importer, f"{inside}:{child.lineno}", room, lazy, typing)
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            is_typing = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            yield from walk(child, lazy or is_function, typing or is_typing)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), False, False)


def name_of(path: Path) -> str:
    """The name by which a file of the package is imported."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0, "imports name the whole path"
    # `from oodray import errors` may name a module of the package.
    return [f"{node.module}.{alias.name}" for alias in node.names]


ALL = [found for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py" for found in imports(path)]


def step(room: str) -> int:
    return next(index for index, rooms in enumerate(STEPS) if room in rooms)


def test_every_room_has_a_step() -> None:
    rooms = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms - {"__init__"} == set().union(*STEPS)


def test_rooms_import_in_one_direction() -> None:
    wrong = []
    for found in ALL:
        if found.package == "oodray" and found.module.count(".") > 1:
            other = found.module.split(".")[1]
            if other != found.room and step(other) >= step(found.room):
                wrong.append(f"{found.where} imports {found.module}")
    assert wrong == []


def test_no_module_imports_itself_in_a_circle() -> None:
    """Module by module, lazy imports as well: what one must understand to read a module can be read in order."""
    graph = import_graph()
    assert "oodray.metrics.mask_ranking" in graph["oodray.metrics.sweep"], "a lazy import is an import"
    assert circle(graph) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c", "a"]
    assert circle({"a": {"a"}}) == ["a", "a"]
    assert circle({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) == []


def import_graph() -> dict[str, set[str]]:
    """The modules of the package that each of them imports, but for type checkers alone.

    The package's own __init__ is asked for its version, and gives the rest by name, on first use.
    """
    graph: dict[str, set[str]] = {name_of(path): set() for path in PACKAGE.rglob("*.py")}
    for found in ALL:
        if found.package == "oodray" and not found.typing:
            # The last part is a name inside of a module, or the module.
            inside = found.module in graph
            graph[found.importer].add(found.module if inside else found.module.rpartition(".")[0])
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules each of which imports the next, from one of them back to it; empty where there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1][::-1]
        start = found.index(min(found))
        return [*found[start:-1], *found[:start], found[start]]
    return []


def test_the_package_itself_is_asked_for_its_version_alone() -> None:
    names = {(found.room, found.module) for found in ALL if found.module.count(".") < 2 and found.package == "oodray"}
    assert {module for _, module in names} <= {"oodray"}
    assert {room for room, _ in names} <= {"cli", "cluster", "doctor", "export", "results"}


@pytest.mark.parametrize("package", HOMES)
def test_packages_stay_in_their_rooms(package: str) -> None:
    found = [found for found in ALL if found.package == package and not found.typing]
    assert [f"{at.where} imports {package}" for at in found if at.room not in HOMES[package]] == []


def test_loops_are_compiled_in_one_place() -> None:
    """The one that knows what to do without a folder for compiled files."""
    assert {found.room for found in ALL if found.module in {"numba.njit", "numba.jit"}} == {"compiled"}


def test_metrics_need_numpy_and_connected_regions() -> None:
    third_party = {found.package for found in ALL if found.room == "metrics"} - set(sys.stdlib_module_names)
    assert third_party == {"numpy", "scipy", "oodray"}
    at_once = {found.package for found in ALL if found.room == "metrics" and not found.lazy} - {"oodray"}
    assert at_once & {"scipy"} == set()


def test_the_method_needs_numpy_and_torch_alone() -> None:
    found = [found for found in ALL if found.room == "method" and found.package not in sys.stdlib_module_names]
    assert {at.package for at in found if not at.lazy} == {"numpy", "torch", "oodray"}
    assert {at.package for at in found if at.lazy} <= {"sklearn", "skimage", "cuml", "triton"}


@pytest.mark.parametrize("room", ["errors", "settings", "config", "cli"])
def test_what_every_command_loads_is_light(room: str) -> None:
    heavy = [found for found in ALL if found.room == room and found.package in HEAVY]
    assert [f"{found.where} imports {found.module}" for found in heavy if not (found.lazy or found.typing)] == []


@pytest.mark.parametrize(
    "statement",
    [
        "import oodray",
        "import oodray.cli",
        "import oodray.config, oodray.errors",
        "dir(__import__('oodray'))",
        "import oodray; oodray.metrics.auroc([1, 2], [0, 1])",
    ],
)
def test_importing_loads_nothing_heavy(statement: str) -> None:
    assert loaded(statement) == []


def test_reading_results_loads_neither_torch_nor_ray() -> None:
    found = loaded("import oodray; oodray.read_results, oodray.read_clusters, oodray.decode_mask")
    assert {"torch", "ray", "mmseg", "pandas"} & set(found) == set()


@pytest.mark.parametrize("name", oodray.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(oodray, name) is not None
    assert name in dir(oodray)


@pytest.mark.parametrize("name", oodray.metrics.__all__)
def test_the_metrics_of_arrays_are_there(name: str) -> None:
    assert callable(getattr(oodray.metrics, name))
    assert name in dir(oodray.metrics)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="module 'oodray' has no attribute 'nothing'"):
        oodray.nothing  # noqa: B018
    with pytest.raises(AttributeError, match=r"module 'oodray\.metrics' has no attribute 'nothing'"):
        oodray.metrics.nothing  # noqa: B018


def loaded(statement: str) -> list[str]:
    """The heavy packages that a fresh interpreter has loaded after a statement."""
    script = f"{statement}; import sys; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return done.stdout.split()


def rooms_in_the_docs() -> dict[str, set[str]]:
    """What `docs/architecture.md` names in each room."""
    text = (Path(__file__).parents[1] / "docs/architecture.md").read_text(encoding="utf-8").partition("## Rooms")[2]
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ") and line.count("|") > 4]
    return {row[1].strip(" `/"): {*re.findall(r"`([\w/]+)`", row[3])} for row in rows}


def test_the_docs_name_every_module_in_its_room() -> None:
    named = rooms_in_the_docs()
    lacking = []
    for path in sorted(PACKAGE.rglob("*.py")):
        *rooms, module = path.relative_to(PACKAGE).with_suffix("").parts
        room = "/".join(rooms)
        if module.startswith("__") or room == "cli" or module in named:
            continue  # a command is a module, and a module can be a room
        if module not in named.get(room or "top level", named.get(rooms[0] if rooms else "", set())):
            lacking.append(f"{room}/{module}")
    assert lacking == []
