from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pixel_oracles import METHOD, random_images, write_results

from oodray.analysis.calibration import calibrate
from oodray.analysis.evaluation import evaluate_run
from oodray.analysis.files import CountedFiles
from oodray.analysis.sweep import make_request, sweep_run
from oodray.datasets.manifest import read_manifest
from oodray.errors import ResultsError
from oodray.job.units import SegmentedImage
from oodray.metrics.evaluators import LIKE
from oodray.results import joining, reading
from oodray.results.folder import ResultsFolder
from oodray.results.waves import close_waves, open_waves
from oodray.storage.place import Place


def ids(files: CountedFiles) -> list[list[str | None]]:
    return [table["image_id"].to_pylist() for table in files.tables(["image_id"])]


def test_the_first_of_several_rows_of_an_image_counts(tmp_path: Path) -> None:
    a, b, c = random_images(0, 3)
    files = CountedFiles.of(write_results(tmp_path, [[a, b, a], [b], [c, a]]))
    assert ids(files) == [["000", "001"], [], ["002"]]
    assert len(files.repeated) == 3
    assert ids(CountedFiles(files.parts)) == [["000", "001", "000"], ["001"], ["002", "000"]]


def test_a_chunk_leaves_out_what_a_file_before_it_has(tmp_path: Path) -> None:
    a, b, c = random_images(0, 3)
    files = CountedFiles.of(write_results(tmp_path, [[a], [b], [a], [c], [b]]))
    assert [ids(chunk) for chunk in files.chunks(2)] == [[["000"], ["001"]], [[], ["002"]], [[]]]


def test_one_file_is_read_at_a_time(tmp_path: Path) -> None:
    folder = write_results(tmp_path, [[row] for row in random_images(0, 2)])
    tables = CountedFiles(folder.parts()).tables(["image_id"])
    folder.part(1).unlink()
    assert next(tables).num_rows == 1
    with pytest.raises(ResultsError, match="part-000001"):
        next(tables)


def test_a_closed_wave_is_opened_once_for_all_its_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its footer takes as long to read as several images."""
    monkeypatch.setattr(joining, "BYTES_OF_A_GROUP", 0)
    folder = write_results(
        tmp_path, [[replace(row, image_id=f"{unit}")] for unit, row in enumerate(random_images(0, 4))]
    )
    open_waves(folder, read_manifest(folder.manifest), range(4))
    close_waves(folder)
    files = CountedFiles.of(folder)
    opened = []
    opens = reading._opened

    def counted(path: Place, *options: int) -> AbstractContextManager[pq.ParquetFile]:
        opened.append(path)
        return opens(path, *options)

    monkeypatch.setattr(reading, "_opened", counted)
    assert ids(files) == [["0"], ["1"], ["2"], ["3"]]
    assert opened == folder.parts()


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="holds no results yet"):
        CountedFiles.of(write_results(tmp_path, []))


def in_distribution(image: SegmentedImage) -> SegmentedImage:
    return replace(image, label=np.zeros(image.size, np.uint8))


@pytest.mark.parametrize(
    "work",
    [
        lambda folder: evaluate_run(folder, list(LIKE.values()), resamples=3),
        lambda folder: sweep_run(folder, make_request(folder, [METHOD.tau], [0.3], with_mask_then_logit=True)),
        lambda folder: calibrate(folder, 0.05),
    ],
    ids=["evaluate", "sweep", "calibrate"],
)
def test_the_folder_is_listed_once(
    tmp_path: Path, work: Callable[[ResultsFolder], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an object store every look into the folder is a request."""
    folder = write_results(tmp_path, [[in_distribution(row)] for row in random_images(0, 3)])
    listed = []
    parts = ResultsFolder.parts

    def counted(of: ResultsFolder) -> list[Place]:
        listed.append(of)
        return parts(of)

    monkeypatch.setattr(ResultsFolder, "parts", counted)
    work(folder)
    assert len(listed) == 1
