"""Many small images make larger units; few, large or unreadable ones those of always."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from oodray.datasets import unit_size
from oodray.datasets.manifest import MANIFEST_SCHEMA, units_of
from oodray.datasets.unit_size import cut_by_size


def listed(uris: list[str]) -> pa.Table:
    rows = range(len(uris))
    columns: dict[str, list[Any]] = {
        "unit": [0] * len(uris),
        "image_id": [f"{row:06}" for row in rows],
        "dataset": ["x"] * len(uris),
        "image_uri": uris,
        "label_uri": [None] * len(uris),
    }
    return pa.table(columns, schema=MANIFEST_SCHEMA)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[int, int], str]:
    def image(height: int, width: int) -> str:
        path = tmp_path / f"{height}x{width}.png"
        Image.fromarray(np.zeros((height, width), np.uint8)).save(path)
        return str(path)

    return image


@pytest.mark.parametrize(
    ("count", "size", "in_unit"),
    [(400, 64, 6), (1024, 64, 16), (9000, 64, 128), (100_000, 64, 128), (100_000, 512, 32), (100_000, 1024, 8)],
)
def test_the_size_of_the_images_and_their_number_decide(
    write: Callable[[int, int], str], count: int, size: int, in_unit: int
) -> None:
    units = cut_by_size(listed([write(size, size)] * count))["unit"].to_pylist()
    assert units == [row // in_unit for row in range(count)]


def test_the_largest_image_that_is_looked_at_decides(write: Callable[[int, int], str]) -> None:
    mixed = [write(64, 64)] * 50_000 + [write(3000, 4000)] * 50_000
    assert cut_by_size(listed(mixed))["unit"].to_pylist() == units_of(100_000).tolist()


def test_what_cannot_be_read_does_not_keep_a_run_from_its_start(
    write: Callable[[int, int], str], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    broken = [str(tmp_path / "broken.png"), str(tmp_path / "absent.png")]
    assert cut_by_size(listed(broken * 5000))["unit"].to_pylist() == units_of(10_000).tolist()
    assert cut_by_size(listed([*broken * 5000, write(64, 64)]))["unit"].to_pylist() == [
        row // 128 for row in range(10_001)
    ]


def test_of_few_images_none_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_size, "_pixels", lambda uri: pytest.fail("it was read"))
    assert cut_by_size(listed(["/absent.png"] * 500))["unit"].to_pylist() == units_of(500).tolist()
