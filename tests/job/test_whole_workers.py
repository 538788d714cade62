"""Workers that do all stages: what they write is what the three stages write."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import TESTS, Run

from oodray.cluster.pool import Pool
from oodray.job.attempts import AttemptLog
from oodray.job.executors.ray_data import WholeActor, units_of_block
from oodray.job.pipeline import stages_of
from oodray.job.units import pack_listed, unpack_done
from oodray.results.waves import close_waves, open_waves


def test_several_units_of_a_block_become_a_file_each(
    clean: Run, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TESTS)
    run = Run(tiny_dataset, tmp_path / "out")
    job = run.prepare()
    open_waves(job.folder, job.manifest, job.left.units)
    worker = WholeActor(stages_of(job, AttemptLog(), 0.0))
    blocks = [pack_listed(images) for images in job.tables(4)]
    assert [block.num_rows for block in blocks] == [4, 4, 2]
    done = [unpack_done(worker(block)) for block in blocks]
    assert [[unit.ok for unit in block] for block in done] == [[1] * 4, [1] * 4, [1] * 2]
    # A block whose process died is done again: files that are there are written again, the same.
    worker(blocks[1])
    close_waves(job.folder)
    assert run.rows().equals(clean.rows())


def test_what_keeps_the_network_from_starting_is_raised(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TESTS)
    run = Run(tiny_dataset, tmp_path / "out", model="fakes:never_starts")
    worker = WholeActor(stages_of(run.prepare(), AttemptLog(), 0.0))
    with pytest.raises(Exception, match="the licence server is down"):
        worker(pack_listed(next(iter(run.prepare().tables(1)))))


@pytest.mark.parametrize(
    ("units", "whole", "size"), [(64, True, 1), (255, True, 1), (256, True, 2), (16384, True, 8), (16384, False, 1)]
)
def test_units_of_a_block(units: int, whole: bool, size: int) -> None:
    pool = Pool(fewest=2, most=2, cpus=1, gpus=0, whole=whole)
    assert units_of_block(units, pool) == size


@pytest.mark.soak
def test_in_ray_they_write_the_same(
    clean: Run, tiny_dataset: Path, tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oodray.cluster.shares import usable_cores

    monkeypatch.chdir(TESTS)
    monkeypatch.setattr("oodray.job.executors.ray_data.BLOCKS_OF_A_WORKER", 1)
    run = Run(tiny_dataset, tmp_path / "out", executor="ray", workers=usable_cores())
    run.go()
    assert run.rows().equals(clean.rows())
    assert run.folder.metrics_json.read_bytes() == clean.folder.metrics_json.read_bytes()
