"""A run whose processes are killed at random moments, and started again by the same command, loses and doubles nothing.

`--kills N` kills it more often; `make soak` does.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import runs
from PIL import Image
from processes import command_line, descendants, end_all, wait_until_gone

from oodray.results.folder import ResultsFolder
from oodray.results.reading import finished_units

TESTS = Path(__file__).parents[1]
IMAGES_OF_A_KILL, MOST_IMAGES = 64, 300
"""Every kill needs progress before it. With 64 or more a run has as many units."""

SECONDS_BETWEEN_LOOKS = 1.0
"""Of the test at all results: it takes the processors from the run that it watches."""

COMMAND = f"""
from oodray.cli import main
from oodray.results import joining

joining.LABELLED_UNITS_OF_A_WAVE = {IMAGES_OF_A_KILL // 6}
main()
"""
"""The command line, with waves so small that they are closed during the run."""

MARK = "OODRAY_KILLED_RUN"
"""The variable that all processes of a run have."""

VICTIMS = ("the driver", "the workers", "all")

pytestmark = pytest.mark.slow


class Run:
    """A run in a process of its own, and in a process group of its own."""

    def __init__(self, root: Path, out: Path, environment: dict[str, str], *more: str) -> None:
        options = {"dataset": "folder", "root": root, "out": out, "model": "fakes:unhurried", "tau": 1.5, "threads": 1}
        flat = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        self.out = out
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "run", *flat, *(more or ("--workers", "2"))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=TESTS,
            env=environment | {MARK: str(out)},
            start_new_session=True,
        )

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def finish(self, *story: str) -> None:
        _, err = self.process.communicate(timeout=240)
        assert self.process.returncode == 0, [*story, err]

    def kill(self, victim: str) -> None:
        family = list(descendants(self.process.pid))
        # What runs our code, and other actors. Without one of its agents, a node of Ray's ends, and the driver with it.
        names = {pid: command_line(pid) for pid in family}
        workers = [pid for pid in family if names[pid].startswith("ray::") and "Agent" not in names[pid]]
        # Ray's workers lead groups of their own: killing the driver's leaves them at work for a while.
        chosen = {"the driver": [], "the workers": workers, "all": family}[victim]
        end_all(chosen if victim == "the workers" else [self.process.pid, *chosen])
        if victim != "the workers":
            self.process.communicate()


def done(out: Path) -> int:
    return len(finished_units(ResultsFolder(out)))


def read(out: Path) -> pd.DataFrame:
    """What pandas alone makes of it, without what depends on the time."""
    table = pd.read_parquet(out / "results")
    return table[[name for name in table.columns if not name.startswith("seconds")]]


@pytest.fixture(scope="module")
def images(pytestconfig: pytest.Config) -> int:
    return min(IMAGES_OF_A_KILL * int(pytestconfig.getoption("--kills")), MOST_IMAGES)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, images: int) -> Path:
    """Small images with labels."""
    root, generator = tmp_path_factory.mktemp("kills") / "root", np.random.default_rng(3)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for index in range(images):
        colours = generator.integers(0, 256, (4, 6, 3), np.uint8).repeat(12, axis=0).repeat(12, axis=1)
        Image.fromarray(colours).save(root / f"images/{index:03}.png")
        Image.fromarray((colours[..., 0] > 200).astype(np.uint8)).save(root / f"labels/{index:03}.png")
    return root


@pytest.mark.timeout(3000)
def test_a_killed_run_ends_as_an_undisturbed_one(
    root: Path,
    images: int,
    tmp_path: Path,
    environment: dict[str, str],
    pytestconfig: pytest.Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    monkeypatch.chdir(TESTS)
    runs.Run(root, undisturbed, dataset="folder", model="fakes:unhurried").go()
    units = done(undisturbed)
    assert units > 60

    kills, seed = pytestconfig.getoption("--kills"), random.randrange(2**32)
    chance = random.Random(seed)
    story, run = [f"seed {seed}"], None
    for kill in range(kills):
        # Spread over the run, as every kill comes after some progress.
        goal = min(done(out) + chance.randint(0, 2 * (units - done(out)) // (kills - kill + 1)), units - 2)
        run = run if run and not run.has_ended() else Run(root, out, environment)
        looked = time.monotonic()
        while done(out) < goal or not list(descendants(run.process.pid)):
            assert not run.has_ended(), [*story, run.process.communicate()]
            if done(out) and time.monotonic() > looked + SECONDS_BETWEEN_LOOKS:
                # At any moment, what is there can be read; what pandas had listed may be closed before it comes there.
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    assert read(out)["image_id"].is_unique
                looked = time.monotonic()
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.1))
        victim = chance.choice(VICTIMS)
        run.kill(victim)
        story.append(f"{victim} at {done(out)} of {units} units")
    if run is None or run.has_ended():
        # In one process: with more kills than one, Ray has gone on with what it left itself.
        run = Run(root, out, environment, "--executor", "local")
    run.finish(*story)
    sys.stdout.write("\n".join(story) + "\n")

    found = read(out)
    assert (len(found), found["image_id"].nunique(), set(found["status"])) == (images, images, {"ok"}), story
    pd.testing.assert_frame_equal(found, read(undisturbed))
    for name in ("metrics.json", "metrics.parquet", "manifest.parquet"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), story
    wait_until_gone(f"{MARK}={out}")
    assert list(out.rglob(".*")) == [], story
