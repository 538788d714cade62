"""A worker that takes more memory than there is: Ray's monitor ends it before the machine is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fakes
import numpy as np
import pytest
from PIL import Image

from oodray.job.attempts import ATTEMPTS, DIED
from oodray.results.folder import ResultsFolder
from oodray.results.reading import read_rows

pytestmark = [pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(600)]

TESTS = Path(__file__).parents[1]
FOR_THE_RUN = 5 * 2**30
"""What a run of this size never takes, and the hungry network does."""


def memory() -> tuple[int, int]:
    """Bytes of the machine, and of those that are free."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    found = {name: int(rest.split()[0]) * 1024 for name, rest in (line.split(":") for line in lines)}
    return found["MemTotal"], found["MemAvailable"]


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="reads /proc")
def test_the_image_that_takes_the_memory_becomes_an_error(
    tiny_root: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    total, free = memory()
    if free < FOR_THE_RUN + fakes.MOST_HOARDED * 2**20:
        pytest.skip(f"needs more memory than the {free / 2**30:.1f} GiB that are free")
    path = tiny_root / "images/04.png"
    image = np.array(Image.open(path))
    image[0, 0] = fakes.MARK
    Image.fromarray(image).save(path)
    options = {"dataset": "ade-ood", "root": tiny_root, "out": tmp_path / "out", "threads": 1, "tau": fakes.TAU}
    flat = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    # As if the machine had no more than the run may take.
    limits = {
        "RAY_memory_usage_threshold": f"{(total - free + FOR_THE_RUN) / total:.4f}",
        "RAY_memory_monitor_refresh_ms": "100",
    }
    ended = subprocess.run(
        [sys.executable, "-m", "oodray.cli", "run", *flat, "--model", "fakes:hungry_on_mark"],
        check=False,
        capture_output=True,
        text=True,
        cwd=TESTS,
        env=environment | limits,
    )
    assert ended.returncode == 0, ended.stderr
    rows = read_rows(ResultsFolder(tmp_path / "out").parts(), ["image_id", "error"]).to_pylist()
    assert len(rows) == 10
    assert {row["image_id"]: row["error"] for row in rows if row["error"]} == {
        "images/04": f"given up after {ATTEMPTS} attempts (segment and cluster): {DIED}"
    }
