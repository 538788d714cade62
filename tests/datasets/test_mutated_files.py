from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mutated_files
import mutated_kinds
import numpy as np
import pytest

from oodray.datasets.images import decode_image
from oodray.storage import remote


def test_the_files_are_sound_before() -> None:
    for data in mutated_files.seeds():
        assert decode_image(data).shape == (19, 23, 3) or decode_image(data).shape == (23, 19, 3)  # TIFF is turned


def test_the_other_kinds_are_sound_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A list names an object in a store that is not there.
    monkeypatch.setattr(remote, "CONTACT_SECONDS", 0.2)
    mutated_files._frames(tmp_path)
    outcomes = {kind.name: [kind.outcome(tmp_path, data) for data in kind.seeds] for kind in mutated_kinds.kinds()}
    for name, of_kind in outcomes.items():
        assert of_kind[:1] in ([], ["read"]) or name.startswith(("yaml", "frame list", "list", "tar")), name
    read = {name for name, of_kind in outcomes.items() if "read" in of_kind}
    assert read >= {"yaml", "frame list", "safetensors", "checkpoint", "npy", "npz", "score png", "score tiff"}


def test_every_mutated_file_is_read_or_an_error_of_ours(environment: dict[str, str]) -> None:
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
    counts = {name: int(files) for name, files in (line.rsplit(" ", 1) for line in ended.stdout.splitlines())}
    assert counts["image array"] + counts["image ImageError"] == 200
    assert counts["image ImageError"] > 50
    for refused in ("yaml ConfigError", "frame list DatasetError", "safetensors ModelError", "npy ImageError"):
        assert counts[refused] > 10
    assert sum(counts.values()) - counts["peak-MiB"] == 400


def test_odd_parts_are_put_into_png_and_tiff() -> None:
    random = np.random.default_rng(0)
    files = [data for data in mutated_files.seeds() if data.startswith((b"\x89PNG", b"II*\0"))]
    changed = [mutated_files.with_odd_parts(data, random) != data for data in files for _ in range(10)]
    assert len(files) > 10
    assert sum(changed) > 0.9 * len(changed)


def test_a_mutation_changes_something() -> None:
    random = np.random.default_rng(0)
    data = mutated_files.seeds()[0]
    assert sum(mutated_files.mutated(data, random) != data for _ in range(100)) > 90
