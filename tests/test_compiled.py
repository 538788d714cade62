"""Compiled loops where numba finds no folder for what it compiles: a package that is read-only, and no home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import oodray

PACKAGE = Path(oodray.__file__).parent

ADDED = """
import numpy as np
from oodray.metrics.adding import DenseCounts, Runs
counts = DenseCounts(compiled=True)
counts.add(Runs.of(np.array([2, 1]), np.array([0, 1, 1], np.uint8)), np.array([0, 0, 1]), np.array([7, 9, 9]),
           np.array([5, 6, 8]))
print(counts.pixels(0)[:, [7, 9]].tolist())
"""

RANKED = """
import numpy as np
from oodray.metrics.cells import Cells
from oodray.metrics.mask_ranking import RankedCells
keys, labels = np.array([9, 7, 5], np.uint16), np.array([0, 1, 0], np.uint8)
cells = Cells(2, np.array([0, 0, 1]), keys, labels, np.array([4, 3, 2]))
found = np.zeros((2, 3))
RankedCells.of(cells).fill(found, np.array([2, 0], np.int32))
print(found.round(3).tolist())
"""

FILTERED = """
import numpy as np
from oodray.scores.edge_filters import guided_filter, joint_bilateral_upsampling
image = np.zeros((2, 4, 3), np.uint8)
image[:, 2:] = 255
print(joint_bilateral_upsampling(np.array([[1.0, 5.0]], np.float32), image).round(3).tolist()[0])
print(guided_filter(np.eye(4, dtype=np.float32), np.full((4, 4, 3), 100, np.uint8), 4).round(3).tolist()[0])
"""

SCANNED = """
import numpy as np
from oodray.scores.fitted.scan import scanned
vectors = np.array([[0.0], [5.0], [9.0]], np.float32)
print(scanned(np.array([[6.0]], np.float32), np.zeros(1, np.float32), vectors, (vectors**2).sum(1), 2, 1).tolist())
"""

CONVOLVED = """
import torch
from oodray.models.internimage.dcnv3_cpu import dcnv3_cpu
print(dcnv3_cpu(torch.ones(1, 4, 4, 2), torch.zeros(1, 4, 4, 18), torch.ones(1, 4, 4, 9), groups=1, kernel_size=3,
                stride=1, padding=1, dilation=1, offset_scale=1.0)[0, :, :, 0].tolist()[:2])
"""


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a process that has the package and nothing that numba may write to, whoever the user is."""
    folder = tmp_path_factory.mktemp("read_only")
    for path in PACKAGE.rglob("*.py"):
        link = folder / "oodray" / path.relative_to(PACKAGE)
        if not link.parent.exists():
            link.parent.mkdir(parents=True)
            (link.parent / "__pycache__").touch()  # a file: no folder of that name can be made
        link.symlink_to(path)
    nothing = folder / "nothing"
    nothing.touch()
    variables = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    # Optimising takes most of the time of compiling.
    return (
        variables
        | {"PYTHONPATH": str(folder), "HOME": str(nothing), "XDG_CACHE_HOME": str(nothing / "cache")}
        | {"NUMBA_OPT": "0"}
    )


def printed(script: str, variables: dict[str, str]) -> str:
    # From the folder of the links, so that it is their package.
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        env=variables,
        cwd=variables["PYTHONPATH"],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (ADDED, "[[5, 0], [0, 6], [0, 0]]\n"),
        pytest.param(RANKED, "[[1.0, 1.0, 0.6], [0.0, 0.0, 0.333]]\n", marks=pytest.mark.soak),
        pytest.param(FILTERED, "[1.0, 1.0, 5.0, 5.0]\n[0.25, 0.25, 0.25, 0.25]\n", marks=pytest.mark.soak),
        pytest.param(SCANNED, "[[1, 2]]\n", marks=pytest.mark.soak),
        pytest.param(CONVOLVED, "[[4.0, 6.0, 6.0, 4.0], [6.0, 9.0, 9.0, 6.0]]\n", marks=pytest.mark.soak),
    ],
    ids=["adding", "mask_ranking", "edge_filters", "scan", "dcnv3_cpu"],
)
def test_loops_run_there(nowhere: dict[str, str], script: str, expected: str) -> None:
    assert printed(script, nowhere) == expected
