"""What is on this machine: packages, devices, kernels and weights, and what to install for what is missing."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec

import oodray
from oodray.models.weights.zoo import ZooModel, cache_folder, get_model, model_names

_GPU_PAGE = "https://pytorch.org/get-started/locally"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        name: what it is called.
        found: what is there, in words; None if it is missing.
        remedy: what to do to have it, or to have more of it.
        needed: whether oodray runs without it.
    """

    name: str
    found: str | None
    remedy: str | None = None
    needed: bool = False

    @property
    def broken(self) -> bool:
        """Whether oodray cannot run because of it."""
        return self.needed and self.found is None


def look_around() -> Iterator[Finding]:
    """Everything that decides how a run works here, one by one, as some take seconds."""
    yield Finding("oodray", oodray.__version__)
    yield Finding("Python", platform.python_version())
    torch = _package("torch", needed=True)
    yield torch
    yield from _devices() if torch.found else ()
    yield _package("ray", needed=True)
    yield _package("mmengine", needed=True)
    yield _package("mmsegmentation", module="oodray.models.mmseg", needed=True)
    yield _mmcv()
    yield _package("transformers", remedy="for models of Hugging Face: pip install 'oodray[hf]'")
    yield from _accelerators() if torch.found else ()
    yield from _kernels() if torch.found else ()
    yield _cache()


def _package(name: str, *, module: str | None = None, needed: bool = False, remedy: str | None = None) -> Finding:
    """A package that is installed and can be imported."""
    remedy = remedy or f"pip install '{_requirement(name)}'"
    try:
        found = version(name)
        import_module(module or name)
    except PackageNotFoundError:
        return Finding(name, None, remedy, needed)
    except Exception as error:
        # Whatever an installation that is broken raises.
        reason = f"{found} cannot be imported, {type(error).__name__}: {error}"
        return Finding(name, None, f"{reason}. Install it again: {remedy}", needed)
    return Finding(name, found, needed=needed)


def _requirement(name: str) -> str:
    """A package as pip is asked for it: with the versions that this one says it needs."""
    try:
        requirements = requires("oodray") or []
    except PackageNotFoundError:
        # Run from its sources.
        requirements = []
    own = (requirement.split(";")[0].strip() for requirement in requirements)
    return next((found for found in own if re.fullmatch(rf"{re.escape(name)}(\[.*\])?[<>=!~].*", found)), name)


def _devices() -> Iterator[Finding]:
    import torch

    built = torch.version.cuda
    if torch.cuda.is_available():
        yield Finding("CUDA", built or "ROCm")
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            yield Finding(f"GPU {index}", f"{device.name}, {device.total_memory / 2**30:.0f} GiB")
        return
    yield Finding(
        "CUDA",
        None,
        f"for a GPU, install a torch with CUDA: {_GPU_PAGE}"
        if built is None
        else f"torch was built for CUDA {built} and finds no GPU: does `nvidia-smi` show one?",
    )


def _mmcv() -> Finding:
    """mmcv, of which the compiled operators are needed by few networks and by none of the named ones."""
    package = _package("mmcv" if _is_installed("mmcv") else "mmcv-lite", module="mmcv", needed=True)
    if package.found is None:
        return package
    if find_spec("mmcv._ext") is not None:
        return replace(package, found=f"{package.found}, with compiled operators")
    found = f"{package.found}, without compiled operators: enough for every network of `oodray models`"
    return replace(package, found=found)


def _accelerators() -> Iterator[Finding]:
    """Packages that make the same things faster."""
    import torch

    if torch.cuda.is_available():
        yield _package("triton", remedy="it comes with torch for CUDA; pip install 'oodray[triton]'")
        name = next((name for name in ("cuml-cu12", "cuml-cu13") if _is_installed(name)), "cuml-cu13")
        yield _package(name, module="cuml", remedy="pip install 'oodray[cuml]'")
    else:
        yield Finding("cuml", None, "only of use with a GPU: pip install 'oodray[cuml]'")


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _kernels() -> Iterator[Finding]:
    """What computes DCNv3 and K-Means where a run would put its workers."""
    import torch

    from oodray.method.kmeans import resolve_backend
    from oodray.models.internimage.dcnv3 import kernel_name

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    yield Finding("DCNv3", f"{kernel_name(device, torch.float32)} on {device.type}")
    yield Finding("K-Means", f"{resolve_backend('auto', device.type)} on {device.type}")


def _cache() -> Finding:
    """Which of the published weights are here."""
    published = [model for model in map(get_model, model_names()) if model.folder is None]
    here = [model for model in published if model.checkpoint.is_file()]
    found = f"{cache_folder()}: {len(here)} of {len(published)} published networks{_names(here)}"
    return Finding("cache", found, None if here else "oodray models fetch NAME, see `oodray models`")


def _names(models: list[ZooModel]) -> str:
    return f": {', '.join(model.name for model in models)}" if models else ""
