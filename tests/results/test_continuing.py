"""What a results folder must be like for a run to go on in it, found out before Ray starts."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from pixel_oracles import failed_image, failed_row, random_images, write_results
from places import on_disk

from oodray.analysis.evaluation import evaluate_run
from oodray.datasets.manifest import read_manifest
from oodray.errors import ResultsError
from oodray.results.continuing import Left, other_versions, start_anew, start_or_continue, what_is_left
from oodray.results.folder import ResultsFolder
from oodray.results.parts import write_part
from oodray.results.reading import finished_units, read_rows
from oodray.storage.place import path_inside

Spoil = Callable[[ResultsFolder], object]


@pytest.fixture
def folder(tmp_path: Path) -> ResultsFolder:
    """Two units of three images, one of which failed."""
    first, second = random_images(0, 3), [*random_images(1, 2), failed_image("x")]
    second = [replace(image, image_id=f"{index:03}") for index, image in enumerate(second, start=3)]
    return write_results(tmp_path / "out", [first, second])


def go_on(folder: ResultsFolder, manifest: pa.Table) -> frozenset[int]:
    return start_or_continue(folder, manifest, identity={}, description={})


def test_a_run_that_was_begun_with_other_versions_is_told(folder: ResultsFolder, tmp_path: Path) -> None:
    begun = ResultsFolder(tmp_path / "new")
    start_or_continue(begun, read_manifest(folder.manifest), identity={}, description={"config": {}})
    assert other_versions(begun) is None
    content = begun.read_run()
    here = content["versions"]["numpy"]
    begun.write_run(content | {"versions": {"numpy": "1.0", "torch": None}, "oodray": "0.0.1"})
    warning = other_versions(begun)
    assert warning is not None
    assert f"numpy 1.0, now {here}" in warning
    assert "oodray 0.0.1, now" in warning
    assert "torch None, now" in warning
    assert "python" not in warning  # of which the run says nothing


def test_a_folder_as_it_was_left_is_not_touched(folder: ResultsFolder) -> None:
    manifest = read_manifest(folder.manifest)
    before = {path: path.stat().st_mtime_ns for path in on_disk(folder.path).rglob("*")}
    assert go_on(folder, manifest) == {0, 1}
    assert {path: path.stat().st_mtime_ns for path in on_disk(folder.path).rglob("*")} == before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("k", "k was 1, is 2"),
        ("method_version", "method_version was 1, is 2"),
        ("model_sha256", "the weights have another content"),
        ("features_sha256", "the network of the features has another content"),
        ("code_sha256", "the file that makes the network has another content"),
        ("manifest", "the dataset lists other images or labels (--append takes images that were added)"),
    ],
)
def test_what_has_changed_is_named_and_nothing_is_touched(folder: ResultsFolder, name: str, said: str) -> None:
    folder.write_run({"config": {}, "identity": {"same": 0, name: 1}})
    before = folder.run.read_bytes()
    said = re.escape(said)
    with pytest.raises(ResultsError, match=f"holds a run with other settings: {said}\\. Choose another --out, or"):
        start_or_continue(folder, read_manifest(folder.manifest), identity={"same": 0, name: 2}, description={})
    assert (folder.run.read_bytes(), len(folder.parts())) == (before, 2)


SPOILED_MANIFESTS: dict[str, Spoil] = {
    "cut short": lambda folder: on_disk(folder.manifest).write_bytes(folder.manifest.read_bytes()[:300]),
    "empty": lambda folder: on_disk(folder.manifest).write_bytes(b""),
    "gone": lambda folder: folder.manifest.unlink(),
    "of another run": lambda folder: shutil.copy(on_disk(folder.part(0)), on_disk(folder.manifest)),
}


@pytest.mark.parametrize("how", SPOILED_MANIFESTS)
def test_a_spoiled_manifest_is_written_again(folder: ResultsFolder, how: str) -> None:
    manifest, content = read_manifest(folder.manifest), folder.manifest.read_bytes()
    SPOILED_MANIFESTS[how](folder)
    go_on(folder, manifest)
    assert folder.manifest.read_bytes() == content


SPOILED_PARTS: dict[str, tuple[Spoil, str]] = {
    "cut short": (
        lambda folder: on_disk(folder.part(1)).write_bytes(folder.part(1).read_bytes()[:-9]),
        "Delete the file",
    ),
    "empty": (lambda folder: on_disk(folder.part(1)).write_bytes(b""), "Delete the file"),
    "no results": (
        lambda folder: shutil.copy(on_disk(folder.manifest), on_disk(folder.part(1))),
        "another version of oodray",
    ),
    "with images missing": (
        lambda folder: write_part(folder, 1, [failed_row("000", unit=1)]),
        "holds 1 images, and unit 1 of this run has 3: .* Delete the file",
    ),
}


@pytest.mark.parametrize("how", SPOILED_PARTS)
def test_a_spoiled_file_of_results_is_named_before_anything_is_computed(folder: ResultsFolder, how: str) -> None:
    spoil, problem = SPOILED_PARTS[how]
    manifest = read_manifest(folder.manifest)
    spoil(folder)
    with pytest.raises(ResultsError, match=f"part-000001.parquet.*{problem}"):
        go_on(folder, manifest)
    folder.part(1).unlink()
    go_on(folder, manifest)


@pytest.mark.parametrize("content", ["", '{"config": ', "[" * 100_000, "\0", '{"config": {}, "identity": []}', "[]"])
def test_a_spoiled_run_json_is_named_and_nothing_is_removed(folder: ResultsFolder, content: str) -> None:
    manifest = read_manifest(folder.manifest)
    on_disk(folder.run).write_text(content)
    problem = r"run\.json .*choose another (--out|folder)"
    with pytest.raises(ResultsError, match=problem):
        go_on(folder, manifest)
    with pytest.raises(ResultsError, match=problem):
        start_anew(folder)
    assert len(folder.parts()) == 2


class TestLeft:
    def left(self, folder: ResultsFolder, *, retry_errors: bool = False) -> Left:
        manifest = read_manifest(folder.manifest)
        return what_is_left(folder, manifest, frozenset(finished_units(folder)), retry_errors=retry_errors)

    def ids(self, left: Left) -> list[str]:
        return [str(image_id) for image_id in left.images["image_id"].to_pylist()]

    def test_nothing_where_all_units_have_a_file(self, folder: ResultsFolder) -> None:
        left = self.left(folder)
        assert (self.ids(left), left.by_unit(), sorted(left.finished)) == ([], {}, [0, 1])

    def test_all_images_of_a_unit_without_one(self, folder: ResultsFolder) -> None:
        folder.part(0).unlink()
        left = self.left(folder)
        assert self.ids(left) == ["000", "001", "002"]
        assert [(unit, [image.image_id for image in images]) for unit, images in left.by_unit().items()] == [
            (0, ["000", "001", "002"])
        ]
        assert (sorted(left.finished), sorted(left.tried_again)) == ([1], [])

    def test_failed_ones_alone_of_a_unit_that_has_one(self, folder: ResultsFolder) -> None:
        assert read_rows([folder.part(1)])["status"].to_pylist() == ["ok", "ok", "error"]
        left = self.left(folder, retry_errors=True)
        assert (self.ids(left), sorted(left.tried_again)) == (["005"], [1])
        folder.part(0).unlink()
        left = self.left(folder, retry_errors=True)
        # Only a unit with a file keeps rows when it is written.
        assert (self.ids(left), sorted(left.tried_again)) == (["000", "001", "002", "005"], [1])


def test_to_start_anew_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "out", [random_images(0, 2)])
    on_disk(folder.path / "notes.txt").write_text("mine")
    on_disk(folder.results / "mine.txt").write_text("mine")
    evaluate_run(folder)
    for name in (
        "components.parquet",
        "components_summary.parquet",
        "report.html",
        "report-files/0.webp",
        "sweep/k-5.png",
    ):
        (on_disk(folder.path) / name).parent.mkdir(exist_ok=True)
        (on_disk(folder.path) / name).write_text("of the run")
    start_anew(folder)
    left = sorted(str(path_inside(path, folder.path)) for path in on_disk(folder.path).rglob("*") if path.is_file())
    assert left == ["notes.txt", "results/mine.txt"]


def test_results_that_belong_to_no_run_are_not_removed(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "out", [random_images(0, 2)])
    folder.run.unlink()
    with pytest.raises(ResultsError, match="so they stay"):
        start_anew(folder)
    assert folder.parts()


def test_an_overwrite_that_was_cut_short_is_finished_by_the_next(
    folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, manifest = Path.unlink, read_manifest(folder.manifest)

    def cut_short(path: Path, missing_ok: bool = False) -> None:
        if path == folder.part(1):
            raise KeyboardInterrupt
        real(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", cut_short)
        with pytest.raises(KeyboardInterrupt):
            start_anew(folder)
    assert finished_units(folder) == {1}
    with pytest.raises(ResultsError, match="k was None, is 7"):
        start_or_continue(folder, manifest, identity={"k": 7}, description={})
    start_anew(folder)
    assert (set(finished_units(folder)), folder.run.exists()) == (set(), False)
