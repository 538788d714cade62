from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock

from oodray.models import mmcv_ops
from oodray.models.mmcv_ops import (
    FUNCTIONS,
    MODULES,
    ensure_mmcv_ops,
    hidden,
    import_yapf,
    point_sample,
    yapf_lock,
)


@pytest.fixture
def _no_ops() -> Iterator[None]:
    """As before the first import of `mmcv.ops`."""
    before = sys.modules.pop("mmcv.ops", None)
    yield
    sys.modules.pop("mmcv.ops", None)
    if before is not None:
        sys.modules["mmcv.ops"] = before


def pretend(monkeypatch: pytest.MonkeyPatch, *, compiled: bool) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        if name != "mmcv._ext":
            return real(name, package)
        return ModuleSpec(name, None) if compiled else None

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


@pytest.mark.usefixtures("_no_ops")
class TestWithoutTheExtension:
    @pytest.fixture
    def ops(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        pretend(monkeypatch, compiled=False)
        ensure_mmcv_ops()
        return importlib.import_module("mmcv.ops")

    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_functions_refuse_when_called(self, ops: Any, name: str) -> None:
        with pytest.raises(NotImplementedError, match=rf"mmcv\.ops\.{name} is not available.*compiled"):
            getattr(ops, name)(1, points=2)

    @pytest.mark.parametrize("name", MODULES)
    def test_classes_refuse_when_built(self, ops: Any, name: str) -> None:
        member = getattr(ops, name)
        assert isinstance(member, type)  # mmengine asks isinstance(module, (DeformConv2d, ...))
        with pytest.raises(NotImplementedError, match=rf"mmcv\.ops\.{name} is not available.*compiled"):
            member(3, kernel_size=3)

    def test_whatever_mmseg_imports_is_there(self, ops: Any) -> None:
        folder = Path(importlib.import_module("mmseg").__path__[0])
        wanted = set()
        for source in folder.rglob("*.py"):
            for names in re.findall(r"^\s*from mmcv\.ops import (.+)$", source.read_text("utf-8"), re.MULTILINE):
                wanted |= {name.split(" as ")[0].strip() for name in names.split(",")}
        assert "point_sample" in wanted
        assert wanted - set(vars(ops)) == set()

    def test_a_second_call_changes_nothing(self, ops: ModuleType) -> None:
        before = dict(vars(ops))
        ensure_mmcv_ops()
        assert sys.modules["mmcv.ops"] is ops
        assert vars(ops) == before


@pytest.mark.usefixtures("_no_ops")
class TestWithTheExtension:
    def test_nothing_is_replaced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pretend(monkeypatch, compiled=True)
        ensure_mmcv_ops()
        assert "mmcv.ops" not in sys.modules

    def test_ops_that_were_imported_stay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pretend(monkeypatch, compiled=False)
        real = ModuleType("mmcv.ops")
        sys.modules["mmcv.ops"] = real
        ensure_mmcv_ops()
        assert sys.modules["mmcv.ops"] is real
        assert not hasattr(real, "point_sample")


class TestHidden:
    @pytest.fixture(autouse=True)
    def _module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        (tmp_path / "heavy_package.py").write_text("weight = 3\n", encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        yield
        sys.modules.pop("heavy_package", None)

    def test_an_import_fails_inside_and_succeeds_afterwards(self) -> None:
        with hidden("heavy_package"):
            assert importlib.util.find_spec("heavy_package") is None
            with pytest.raises(ImportError):
                importlib.import_module("heavy_package")
        assert importlib.import_module("heavy_package").weight == 3

    def test_what_is_loaded_stays(self) -> None:
        loaded = importlib.import_module("heavy_package")
        with hidden("heavy_package"):
            assert importlib.import_module("heavy_package") is loaded
        assert sys.modules["heavy_package"] is loaded

    def test_an_error_inside_leaves_nothing_hidden(self) -> None:
        with pytest.raises(KeyError), hidden("heavy_package"):
            raise KeyError
        assert importlib.import_module("heavy_package").weight == 3


@pytest.mark.parametrize("align_corners", [False, True])
def test_points_are_sampled_bilinearly(align_corners: bool) -> None:
    random = np.random.default_rng(0)
    maps, points = random.standard_normal((2, 3, 5, 7)), random.uniform(0.2, 0.8, (2, 11, 2))
    found = point_sample(torch.from_numpy(maps), torch.from_numpy(points), align_corners=align_corners)
    assert found.shape == (2, 3, 11)
    for image in range(2):
        for index, (x, y) in enumerate(points[image]):
            column, row = (x * 6, y * 4) if align_corners else (x * 7 - 0.5, y * 5 - 0.5)
            left, top = int(column), int(row)
            right, below = column - left, row - top
            square = maps[image, :, top : top + 2, left : left + 2]
            weights = np.outer([1 - below, below], [1 - right, right])
            np.testing.assert_allclose(found[image, :, index], (square * weights).sum((1, 2)), atol=1e-12)


def test_one_process_at_a_time_imports_yapf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    imported: list[str] = []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(mmcv_ops, "import_module", imported.append)
    importing = Thread(target=import_yapf)
    with FileLock(yapf_lock()):  # as another process holds it
        importing.start()
        importing.join(timeout=0.2)
        assert importing.is_alive()
        assert not imported
    importing.join(timeout=30)
    assert imported == ["yapf"]


def test_yapf_is_imported_where_a_lock_has_no_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    imported: list[str] = []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file" / "below"))
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(mmcv_ops, "import_module", imported.append)
    import_yapf()
    assert imported == ["yapf"]
