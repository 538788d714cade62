from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pixel_oracles import METHOD
from runs import TESTS, Run
from written_images import WrittenImages, random_pixels

from oodray import decode_mask
from oodray.datasets.layouts import get_layout
from oodray.job.attempts import AttemptLog
from oodray.job.decoder import Decoder
from oodray.job.finisher import Finisher
from oodray.job.pipeline import stages_of
from oodray.job.units import UnitDone
from oodray.job.worker import Worker
from oodray.models.loading import load_segmenter
from oodray.models.source import ModelSource
from oodray.results.folder import ResultsFolder

IMAGE = random_pixels(0)
CODES = np.random.default_rng(1).choice([0, 1, 9, 255], IMAGE.shape[:2]).astype(np.uint8)


def test_the_stages_fit_together(tmp_path: Path) -> None:
    write = WrittenImages(tmp_path)
    listed = [write("a", IMAGE, CODES), write("b", b"nothing", CODES), write("c", random_pixels(3), CODES)]
    decoder = Decoder(get_layout("ade-ood").label_codes)
    worker = Worker(load_segmenter(ModelSource("fakes:colours", search_path=str(TESTS))), METHOD)
    done = Finisher(METHOD, str(tmp_path))(worker(decoder(listed)))
    [error] = done.errors
    assert done == UnitDone(2, 1, [error])
    table = pq.read_table(str(ResultsFolder(tmp_path).part(0))).to_pylist()
    assert [row["status"] for row in table] == ["ok", "error", "ok"]
    assert error == f"b: {table[1]['error']}"
    for row in (table[0], table[2]):
        assert decode_mask(row["mask_png"]).shape == IMAGE.shape[:2]
        assert sum(cluster["pixels"] for cluster in row["clusters"]) == IMAGE.shape[0] * IMAGE.shape[1]
        assert all(row[f"seconds_{stage}"] > 0 for stage in ("decode", "segment", "cluster", "finish"))


def test_a_job_is_cut_into_the_units_of_its_manifest(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TESTS)
    run = Run(tiny_dataset, tmp_path / "out")
    units = run.prepare().left.by_unit()
    assert list(units) == list(range(10))
    listed = [image for images in units.values() for image in images]
    assert [image.image_id for image in listed] == run.plan.manifest["image_id"].to_pylist()


def test_the_stages_of_a_job_share_its_settings_its_journal_and_its_folder(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TESTS)
    run = Run(tiny_dataset, tmp_path / "out", k=3, threads=3)
    job, journal = run.prepare(), AttemptLog()
    stages = stages_of(job, journal, 7.0)
    assert (stages.settings, stages.finisher.settings, stages.threads) == (run.plan.method(), run.plan.method(), 3)
    for guard in (stages.guard, stages.decoder.guard, stages.finisher.guard):
        assert (guard.journal, guard.image_timeout) == (journal, 7.0)
    assert stages.finisher.out == str(tmp_path / "out")
    assert stages.finisher.identity == run.plan.identity()
    assert stages.finisher.tried_again == frozenset()
