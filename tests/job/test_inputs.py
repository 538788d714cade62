"""The same images as a folder, as a list, in tar shards and in Parquet files: one result, and one that goes on."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import packed
import pandas as pd
import pytest
from PIL import Image
from runs import TESTS, Run
from typer.testing import CliRunner

from oodray.cli import app
from oodray.datasets.check import check_dataset
from oodray.datasets.layouts import get_layout
from oodray.errors import ResultsError
from oodray.results.reading import read_results

pytestmark = pytest.mark.timeout(240)

IMAGES = 12

Pictures = dict[str, tuple[bytes, bytes | None]]


def png(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    """Images and labels, two of which are not there, by name."""
    random = np.random.default_rng(5)
    found: Pictures = {}
    for index in range(IMAGES):
        image = random.integers(0, 256, (4, 6, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        label = png((image[..., 0] > 180).astype(np.uint8)) if index % 5 else None
        found[f"{index:06}"] = png(image), label
    return found


def as_folder(root: Path, pictures: Pictures) -> Path:
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, (image, label) in pictures.items():
        (root / f"images/{name}.png").write_bytes(image)
        if label is not None:
            (root / f"labels/{name}.png").write_bytes(label)
    return root


def as_list(root: Path, pictures: Pictures) -> Path:
    as_folder(root, pictures)
    rows = [
        {"image": f"images/{name}.png", "label": "" if label is None else f"labels/{name}.png"}
        for name, (_, label) in pictures.items()
    ]
    return packed.image_list(root / "list.csv", rows)


def as_shards(root: Path, pictures: Pictures) -> Path:
    files = [(f"{name}.png", image) for name, (image, _) in pictures.items()]
    files += [(f"{name}.seg.png", label) for name, (_, label) in pictures.items() if label is not None]
    packed.tar(root / "test-0.tar", [file for file in files if file[0] < "000005"])
    packed.tar(root / "test-1.tar", [file for file in files if file[0] >= "000005"])
    packed.tar(root / "train-0.tar", files)
    return root


def as_tables(root: Path, pictures: Pictures) -> Path:
    images, labels = zip(*pictures.values(), strict=True)
    packed.parquet(root / "data/test-00000-of-00001.parquet", images, labels, rows_of_a_group=5)
    packed.parquet(root / "data/train-00000-of-00001.parquet", images)
    return root


FORMS: dict[str, Callable[[Path, Pictures], Path]] = {
    "folder": as_folder,
    "list": as_list,
    "webdataset": as_shards,
    "hf-parquet": as_tables,
}


@pytest.fixture
def start(pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Run]:
    """Makes the run of a form."""
    monkeypatch.chdir(TESTS)

    def made(form: str) -> Run:
        root = FORMS[form](tmp_path / form, pictures)
        split = {"split": "test"} if form in ("webdataset", "hf-parquet") else {}
        return Run(root, tmp_path / "out" / form, dataset=form, **split)

    return made


def found_in(run: Run) -> pd.DataFrame:
    """The rows without what differs by form."""
    rows = read_results(run.folder.path)
    left_out = [name for name in rows.columns if name.startswith("seconds") or name.endswith("_uri")]
    rows["image_id"] = [image_id.rpartition("/")[2] for image_id in rows["image_id"]]
    return rows.drop(columns=[*left_out, "dataset"])


def test_every_form_gives_the_same_rows_and_metrics(start: Callable[[str], Run]) -> None:
    runs = {form: start(form) for form in FORMS}
    evaluations = {form: run.go() for form, run in runs.items()}
    expected = found_in(runs["folder"])
    assert expected["image_id"].tolist() == [f"{index:06}" for index in range(IMAGES)]
    assert set(expected["status"]) == {"ok"}
    assert evaluations["folder"].scores[0].pixels_ood > 0
    for form, run in runs.items():
        pd.testing.assert_frame_equal(found_in(run), expected)
        assert evaluations[form] == evaluations["folder"]


@pytest.mark.parametrize("form", ["list", "webdataset", "hf-parquet"])
def test_a_stopped_run_goes_on(form: str, start: Callable[[str], Run]) -> None:
    run = start(form)

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.go(stop)
    assert 0 < len(found_in(run)) < IMAGES
    assert start(form).go().images == IMAGES
    assert found_in(run)["image_id"].is_unique


def test_a_broken_shard_is_a_row_and_a_changed_one_another_dataset(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TESTS)
    root = as_shards(tmp_path / "shards", pictures)
    broken = root / "test-0.tar"
    broken.write_bytes(broken.read_bytes()[:600])

    def run() -> Run:
        return Run(root, tmp_path / "out", dataset="webdataset", split="test")

    evaluation = run().go()
    rows = read_results(tmp_path / "out").set_index("image_id")
    assert (evaluation.images, evaluation.failed) == (7, 2)
    errors = rows.loc[rows["status"] == "error", "error"].to_dict()
    assert set(errors) == {"test-0", "test-0/000000"}
    assert "test-0.tar are lost: what comes after 000000.png" in errors["test-0"]
    as_shards(root, pictures)
    with pytest.raises(ResultsError, match="the dataset lists other images or labels"):
        run().go()


@pytest.mark.parametrize("form", FORMS)
def test_a_check_counts_each_form_alike(form: str, pictures: Pictures, tmp_path: Path) -> None:
    root = FORMS[form](tmp_path / form, pictures)
    layout = get_layout(form)
    report = check_dataset(layout.of_split("test") if form in ("webdataset", "hf-parquet") else layout, root)
    expected = check_dataset(get_layout("folder"), as_folder(tmp_path / "expected", pictures))
    assert (report.images, report.labelled, report.findings) == (IMAGES, 9, [])
    assert (report.sizes, report.codes, report.labels) == (expected.sizes, expected.codes, expected.labels)


def test_the_command_that_checks_takes_a_split(pictures: Pictures, tmp_path: Path) -> None:
    root = str(as_tables(tmp_path, pictures))
    runner = CliRunner()
    both = runner.invoke(app, ["datasets", "check", "hf-parquet", "--root", root])
    test = runner.invoke(app, ["datasets", "check", "hf-parquet", "--root", root, "--split", "test"])
    assert (both.exit_code, test.exit_code) == (0, 0)
    assert "images       24, 9 with a label" in both.output
    assert "images       12, 9 with a label" in test.output
