from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

import oodray
from oodray import doctor as machine
from oodray.doctor import Finding, look_around
from oodray.method.kmeans import resolve_backend
from oodray.models.internimage.dcnv3 import kernel_name
from oodray.models.weights.zoo import get_model


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OODRAY_CACHE", str(tmp_path))
    return tmp_path


def by_name() -> dict[str, Finding]:
    return {finding.name: finding for finding in look_around()}


def without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a package be absent."""

    def version(asked: str) -> str:
        if asked == name:
            raise PackageNotFoundError(name)
        return importlib.metadata.version(asked)

    monkeypatch.setattr(machine, "version", version)


class TestHere:
    def test_what_is_needed_is_there(self) -> None:
        found = by_name()
        assert [finding for finding in found.values() if finding.broken] == []
        assert found["oodray"].found == oodray.__version__
        assert found["Python"].found == platform.python_version()
        for name in ("torch", "ray", "mmengine", "mmsegmentation"):
            assert found[name].needed
            assert found[name].found == importlib.metadata.version(name)

    def test_kernels_are_those_that_a_run_would_use(self) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        found = by_name()
        assert found["DCNv3"].found == f"{kernel_name(device, torch.float32)} on {device.type}"
        assert found["K-Means"].found == f"{resolve_backend('auto', device.type)} on {device.type}"

    def test_weights_in_the_cache_are_named(self, cache: Path) -> None:
        assert by_name()["cache"] == Finding(
            "cache", f"{cache}: 0 of 12 published networks", "oodray models fetch NAME, see `oodray models`"
        )
        model = get_model("internimage-t-ade20k")
        model.checkpoint.parent.mkdir()
        model.checkpoint.touch()
        assert by_name()["cache"] == Finding("cache", f"{cache}: 1 of 12 published networks: internimage-t-ade20k")


class TestMissing:
    @pytest.mark.parametrize("name", ["ray", "mmengine", "mmsegmentation"])
    def test_a_package_that_is_needed(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        without(name, monkeypatch)
        found = by_name()[name]
        assert (found.found, found.needed, found.broken) == (None, True, True)
        # With the versions that the project asks for.
        assert re.fullmatch(rf"pip install '{name}(\[data\])?[<>=].*'", str(found.remedy))

    def test_torch_is_missed_without_asking_it_for_devices(self, monkeypatch: pytest.MonkeyPatch) -> None:
        without("torch", monkeypatch)
        found = by_name()
        assert found["torch"].broken
        assert found.keys() & {"CUDA", "DCNv3", "K-Means"} == set()
        assert "cache" in found

    def test_a_package_that_cannot_be_imported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "mmengine.py").write_text("raise OSError('libGL.so.1: cannot open shared object file')")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "mmengine", raising=False)
        found = by_name()["mmengine"]
        assert found.broken
        assert found.remedy is not None
        assert "cannot be imported, OSError: libGL.so.1: cannot open shared object file" in found.remedy

    @pytest.mark.parametrize(
        ("built", "message"),
        [(None, "install a torch with CUDA"), ("12.8", "was built for CUDA 12.8 and finds no GPU: does `nvidia-smi`")],
    )
    def test_a_gpu(self, built: str | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.version, "cuda", built)
        found = by_name()
        assert found["CUDA"].found is None
        assert not found["CUDA"].broken
        assert message in str(found["CUDA"].remedy)
        assert "only of use with a GPU" in str(found["cuml"].remedy)


@pytest.mark.parametrize("compiled", [True, False])
def test_mmcv_with_and_without_its_compiled_part(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "find_spec", lambda name: object() if compiled else None)
    found = by_name()["mmcv-lite"]
    word = "with" if compiled else "without"
    assert str(found.found).startswith(f"{importlib.metadata.version('mmcv-lite')}, {word} compiled operators")
