"""Shared by the tests of the distributed run."""

from __future__ import annotations

from pathlib import Path

import fakes
import pytest

from oodray.job.plan import make_plan
from oodray.job.results import ResultsFolder
from oodray.job.run import run, start_or_continue


@pytest.fixture(scope="session")
def undisturbed(ray_session: None, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a run of the tiny dataset to which nothing happened, for those to which something does."""
    folder = ResultsFolder(tmp_path_factory.mktemp("undisturbed") / "out")
    options = {"dataset": "ade-ood", "root": str(tiny_dataset), "model": "fakes:colours", "tau": fakes.TAU}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parent)
        plan = make_plan(options | {"threads": 1}, None, folder)
        start_or_continue(plan, folder)
        run(plan, folder, lambda _: None)
    return Path(folder.path)
