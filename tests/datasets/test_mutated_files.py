from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mutated_files
import numpy as np

from oodray.datasets.images import decode_image


def test_the_files_are_sound_before() -> None:
    for data in mutated_files.seeds():
        assert decode_image(data).shape == (19, 23, 3) or decode_image(data).shape == (23, 19, 3)  # TIFF is turned


def test_every_mutated_file_is_an_array_or_an_image_error(environment: dict[str, str]) -> None:
    ended = subprocess.run(
        [sys.executable, "mutated_files.py", "400", "1"],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        env=environment,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    counts = dict(line.rsplit(" ", 1) for line in ended.stdout.splitlines())
    assert int(counts["array"]) + int(counts["ImageError"]) == 400
    assert int(counts["ImageError"]) > 100


def test_a_mutation_changes_something() -> None:
    random = np.random.default_rng(0)
    data = mutated_files.seeds()[0]
    assert sum(mutated_files.mutated(data, random) != data for _ in range(100)) > 90
