"""Runs side by side whose numbers are of other images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pixel_oracles import failed_image, random_images, write_results
from typer.testing import CliRunner

from oodray.analysis.comparison import compare_runs
from oodray.cli import app
from oodray.metrics.conventions import DEFAULT
from oodray.report.ranking import ranked_tables
from oodray.results.folder import ResultsFolder

Write = Callable[..., ResultsFolder]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a run of four images, some of which have failed."""

    def written(name: str, *failed: int) -> ResultsFolder:
        images = random_images(0, 4)
        for index in failed:
            images[index] = failed_image(images[index].image_id)
        folder = write_results(tmp_path / name, [images])
        content = folder.read_run()
        folder.write_run(content | {"config": content["config"] | {"dataset": "folder"}})
        return folder

    return written


def notes(*folders: ResultsFolder) -> str:
    [table] = ranked_tables(compare_runs(folders, [DEFAULT]), [DEFAULT])
    return " ".join(table.notes)


def test_images_that_failed_in_one_run_alone_are_named(write: Write) -> None:
    found = notes(write("one", 0), write("two", 2), write("both", 0, 2), write("none"))
    assert "of different images: one lacks 000; two lacks 002; both lacks 000, 002." in found


@pytest.mark.parametrize("failed", [(), (1,)])
def test_nothing_is_said_of_the_same_images(write: Write, failed: tuple[int, ...]) -> None:
    assert "different" not in notes(write("one", *failed), write("two", *failed))


def test_compare_says_it(write: Write) -> None:
    done = CliRunner().invoke(app, ["compare", str(write("one", 0).path), str(write("two", 3).path)])
    assert done.exit_code == 0, done.output
    assert "of different images: one lacks 000; two lacks 003." in " ".join(done.output.split())
