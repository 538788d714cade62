"""The wheel, installed in an environment of its own: all that a run needs must be inside."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

PROJECT = Path(__file__).parents[1]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Call = Callable[..., str]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; other packages are those of this interpreter."""
    wheels, target = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("environment")
    build = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(PROJECT)]
    subprocess.run([sys.executable, *build], check=True, capture_output=True)
    venv.create(target, with_pip=False, symlinks=True)
    [wheel] = wheels.glob("*.whl")
    python = target / "bin" / "python"
    install = ["-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, *install], check=True, capture_output=True)
    # A path in a .pth file is searched for packages, but the .pth files there, as of an editable install, are not.
    [packages] = target.glob("lib/*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    return target


@pytest.fixture
def call(environment: Path, tmp_path: Path) -> Call:
    """Runs a program of the environment, in a folder without the project."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(program: str, *arguments: object) -> str:
        command = [str(environment / "bin" / program), *map(str, arguments)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, env=clean)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_package_is_that_of_the_wheel(call: Call, environment: Path) -> None:
    where = call("python", "-c", "import oodray; print(oodray.__file__)")
    assert Path(where.strip()).is_relative_to(environment)


def test_configs_are_inside(call: Call, environment: Path) -> None:
    root = Path(call("python", "-c", "from oodray.config import config_root; print(config_root())").strip())
    assert root.is_relative_to(environment)

    def names(folder: Path) -> set[str]:
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in (".py", ".yaml")}

    assert names(root) == names(PROJECT / "configs")


def test_every_file_of_the_package_is_inside(environment: Path) -> None:
    [installed] = environment.glob("lib/*/site-packages/oodray")
    source = PROJECT / "oodray"
    wanted = {
        path.relative_to(source) for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert {path for path in wanted if not (installed / path).is_file()} == set()


def test_datasets_are_listed(call: Call) -> None:
    assert "road-anomaly" in call("oodray", "datasets")


def test_the_embedded_network_runs_from_end_to_end(call: Call, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for index, (height, width) in enumerate([(64, 96), (80, 64)]):
        pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(images / f"{index}.png")
    model = ("--model", "internimage-n-demo", "--executor", "local")
    printed = call("oodray", "run", "--dataset", "folder", "--root", images, *model, "--out", "out")
    assert f"results in {tmp_path / 'out'}" in printed
    frame = pd.read_parquet(tmp_path / "out" / "results")
    assert frame["status"].tolist() == ["ok", "ok"]
    assert "2 of 2 done" in call("oodray", "status", "out")
