"""Files of units that become few: nobody who reads the folder at any moment misses a row, or sees one twice."""

from __future__ import annotations

import contextlib
import errno
import itertools
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pixel_oracles import failed_image, random_images, write_results
from places import on_disk

from oodray.analysis.evaluation import measure_run
from oodray.datasets.manifest import read_manifest
from oodray.errors import ResultsError, RunError
from oodray.records import from_arrow
from oodray.results import joining
from oodray.results.continuing import start_anew, start_or_continue, what_is_left
from oodray.results.folder import ResultsFolder
from oodray.results.joining import waves_of
from oodray.results.names import Wave
from oodray.results.parts import add_to_part, write_part
from oodray.results.reading import check_parts, finished_units, read_results, read_rows, read_unit
from oodray.results.rows import ResultRow
from oodray.results.status import read_status
from oodray.results.waves import Closing, close_waves, open_waves, remove_closed_parts

UNITS, IN_UNIT, IN_WAVE = 10, 2, 4
"""Units, images of each, and units of a wave: 0 to 3, 4 to 7, 8 and 9."""

NAMES = ["part-000000-000003.parquet", "part-000004-000007.parquet", "part-000008-000009.parquet"]


@pytest.fixture(autouse=True)
def _small_waves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "UNITS_OF_A_WAVE", IN_WAVE)
    monkeypatch.setattr(joining, "LABELLED_UNITS_OF_A_WAVE", IN_WAVE)
    monkeypatch.setattr(joining, "BYTES_OF_A_GROUP", 0)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> ResultsFolder:
    """A folder with a file for each unit, the second image of the last of which failed."""
    return write_units(tmp_path_factory.mktemp("written") / "out")


@pytest.fixture
def folder(written: ResultsFolder, tmp_path: Path) -> ResultsFolder:
    """A copy of it."""
    return ResultsFolder(shutil.copytree(on_disk(written.path), tmp_path / "out"))


def write_units(path: Path) -> ResultsFolder:
    images = random_images(0, UNITS * IN_UNIT - 1)
    images.append(failed_image(f"{UNITS * IN_UNIT - 1:03}"))
    return write_results(path, [images[start : start + IN_UNIT] for start in range(0, len(images), IN_UNIT)])


def opened(folder: ResultsFolder) -> ResultsFolder:
    manifest = read_manifest(folder.manifest)
    open_waves(folder, manifest, range(UNITS))
    return folder


def closed(folder: ResultsFolder) -> ResultsFolder:
    close_waves(opened(folder))
    return folder


def seen_by_pandas(folder: ResultsFolder) -> list[str]:
    return sorted(pd.read_parquet(str(folder.results), columns=["image_id"])["image_id"])


def names(folder: ResultsFolder) -> list[str]:
    """What is in `results/`, at any depth, hidden or not."""
    return sorted(str(path.relative_to(on_disk(folder.results))) for path in on_disk(folder.results).rglob("*"))


ALL = [f"{index:03}" for index in range(UNITS * IN_UNIT)]


class TestClosing:
    def test_the_files_of_units_become_few(self, written: ResultsFolder, folder: ResultsFolder) -> None:
        expected = read_rows(written.parts())
        opened(folder)
        assert [path.name for path in folder.parts()] == [path.name for path in written.parts()]
        assert read_rows(folder.parts()).equals(expected)
        assert seen_by_pandas(folder) == ALL
        close_waves(folder)
        assert [path.name for path in folder.parts()] == NAMES
        assert read_rows(folder.parts()).equals(expected)
        assert seen_by_pandas(folder) == ALL
        remove_closed_parts(folder)
        assert names(folder) == NAMES
        # And any other reader of Parquet takes them.
        found = [pq.ParquetFile(on_disk(folder.results / name)) for name in NAMES]
        assert [file.metadata.num_rows for file in found] == [8, 8, 4]
        assert [file.metadata.num_row_groups for file in found] == [4, 4, 2]
        assert pa.concat_tables([file.read() for file in found]).equals(expected)

    def test_it_is_closed_when_all_its_units_are_there(self, folder: ResultsFolder) -> None:
        opened(folder)
        folder.part(5).unlink()
        close_waves(folder)
        assert [folder.is_open(wave) for wave in folder.waves()] == [False, True, False]
        assert finished_units(folder) == set(range(UNITS)) - {5}
        assert seen_by_pandas(folder) == [name for name in ALL if name not in ("010", "011")]

    def test_and_opened_again_where_an_image_is_tried_again(
        self, written: ResultsFolder, folder: ResultsFolder
    ) -> None:
        manifest = read_manifest(folder.manifest)
        closed(folder)
        left = what_is_left(folder, manifest, finished_units(folder), retry_errors=True)
        assert left.images["image_id"].to_pylist() == [ALL[-1]]
        assert left.tried_again == {9}
        open_waves(folder, manifest, left.units)
        assert [folder.is_open(wave) for wave in folder.waves()] == [False, False, True]
        assert seen_by_pandas(folder) == ALL
        [row] = [row for row in records(folder, 9) if row.image_id == ALL[-1]]
        add_to_part(folder, 9, [row])
        close_waves(folder)
        assert read_rows(folder.parts()).equals(read_rows(written.parts()))

    def test_what_a_run_is_worth_and_how_far_it_is_stay_the_same(
        self, written: ResultsFolder, folder: ResultsFolder
    ) -> None:
        closed(folder)
        assert measure_run(folder, on_ray=False) == measure_run(written, on_ray=False)
        pd.testing.assert_frame_equal(read_results(folder.path), read_results(written.path))
        assert read_status(folder) == read_status(
            ResultsFolder(shutil.copytree(on_disk(written.path), on_disk(folder.path.parent) / "2"))
        )

    @pytest.mark.parametrize("unit", range(UNITS))
    def test_a_unit_is_read_alone(self, written: ResultsFolder, folder: ResultsFolder, unit: int) -> None:
        expected = read_rows([written.part(unit)], ["image_id", "status"])
        for made in (folder, opened(folder), closed(folder)):
            assert read_unit(made, unit, ["image_id", "status"]).equals(expected)
        assert folder.file_of(unit) == folder.results / NAMES[unit // IN_WAVE]

    def test_a_task_that_is_repeated_changes_nothing(self, written: ResultsFolder, folder: ResultsFolder) -> None:
        rows = records(folder, 3)
        closed(folder)
        before = names(folder)
        write_part(folder, 3, rows)
        add_to_part(folder, 3, rows)
        assert names(folder) == before
        assert read_rows(folder.parts()).equals(read_rows(written.parts()))

    def test_a_drive_that_is_full_is_still_an_error(
        self, folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        opened(folder)
        monkeypatch.setattr(pq, "write_table", fail)
        with pytest.raises(RunError, match=r"cannot write .*part-000003\.parquet: No space left on device"):
            write_part(folder, 3, [])

    def test_a_damaged_file_is_named_before_anything_is_computed(self, folder: ResultsFolder) -> None:
        manifest = read_manifest(folder.manifest)
        path = on_disk(closed(folder).results / NAMES[1])
        content = path.read_bytes()
        path.write_bytes(content[:-9])
        with pytest.raises(ResultsError, match=r"cannot read .*part-000004-000007\.parquet: .*Delete the file and run"):
            start_or_continue(folder, manifest, identity={}, description={})
        path.unlink()
        finished = start_or_continue(folder, manifest, identity={}, description={})
        assert finished == {0, 1, 2, 3, 8, 9}
        open_waves(folder, manifest, what_is_left(folder, manifest, finished).units)
        assert [folder.is_open(wave) for wave in folder.waves()] == [False, True, False]

    def test_a_file_with_rows_missing_is_named(self, folder: ResultsFolder) -> None:
        closed(folder)
        path = on_disk(folder.results / NAMES[0])
        table = pq.read_table(path)
        pq.write_table(table, path)
        with pytest.raises(ResultsError, match=r"its footer does not say which units it holds\. Delete the file"):
            finished_units(folder)
        shutil.copy(on_disk(folder.results / NAMES[1]), path)
        check_parts(folder, read_manifest(folder.manifest))  # the same number of rows; units are those of the footer
        assert finished_units(folder) == set(range(4, UNITS))
        manifest = read_manifest(folder.manifest)
        with pytest.raises(ResultsError, match=r"holds 8 images, and units 4 to 7 of this run have 7"):
            check_parts(folder, manifest.filter(pa.array([name != "009" for name in manifest["image_id"].to_pylist()])))

    def test_a_copy_along_links_is_gone_on_with(
        self, written: ResultsFolder, folder: ResultsFolder, tmp_path: Path
    ) -> None:
        opened(folder)
        folder.part(5).unlink()
        copy = ResultsFolder(shutil.copytree(on_disk(folder.path), tmp_path / "copy"))
        assert not any((copy.results / name).is_symlink() for name in NAMES)
        assert finished_units(copy) == set(range(UNITS)) - {5}
        write_part(copy, 5, records(written, 5))
        assert seen_by_pandas(copy) == ALL
        close_waves(copy)
        remove_closed_parts(copy)
        assert names(copy) == NAMES
        assert read_rows(copy.parts()).equals(read_rows(written.parts()))
        start_anew(ResultsFolder(shutil.copytree(on_disk(opened(copy).path), tmp_path / "another")))
        assert list((tmp_path / "another/results").iterdir()) == []

    def test_where_a_drive_has_no_links_units_keep_their_files(
        self, written: ResultsFolder, folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(Path, "symlink_to", refuse)
        before = names(folder)
        closed(folder)
        assert names(folder) == before

    def test_to_start_anew_removes_them(self, folder: ResultsFolder) -> None:
        closed(folder)
        opened(folder)
        (on_disk(folder.results) / "mine.txt").touch()
        start_anew(folder)
        assert (names(folder), folder.run.exists()) == (["mine.txt"], False)


def records(folder: ResultsFolder, unit: int) -> list[ResultRow]:
    table = read_unit(folder, unit)
    return from_arrow(ResultRow, table.combine_chunks().to_batches()[0].to_struct_array())


class TestWaves:
    def table(self, units: int, in_unit: int, label: str | None) -> pa.Table:
        rows = units * in_unit
        return pa.table(
            {"unit": pa.array(np.arange(rows) // in_unit), "label_uri": pa.array([label] * rows, pa.string())}
        )

    def test_a_million_images_are_some_hundred_files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()
        found = waves_of(self.table(125_000, 8, None))
        assert (len(found), found[0], found[-1]) == (245, Wave(0, 511), Wave(124_928, 124_999))
        assert all(after.first == before.last + 1 for before, after in itertools.pairwise(found))
        assert len(waves_of(self.table(125_000, 8, "a.png"))) == 977
        assert waves_of(self.table(64, 1, None)) == [Wave(0, 63)]

    @pytest.mark.parametrize("name", [wave.name for wave in (Wave(0, 3), Wave(999_999, 1_000_000))])
    def test_a_name_says_which_units(self, name: str) -> None:
        wave = Wave.of(name)
        assert wave is not None
        assert wave.name == name
        assert Wave.of(f"x{name}") is Wave.of(name.replace("-", "_")) is None


class TestBesideARun:
    def test_not_before_a_whole_wave_is_done(self, folder: ResultsFolder) -> None:
        """A run that is continued begins with waves that are whole, into which what was killed may still write."""
        opened(folder)
        with Closing(folder) as closing:
            for _ in range(IN_WAVE - 1):
                closing.unit_done()
            assert all(map(folder.is_open, folder.waves()))
            closing.unit_done()
        assert not any(map(folder.is_open, folder.waves()))

    def test_units_that_are_tried_again_keep_their_wave_open(self, folder: ResultsFolder) -> None:
        """They have files from the start; a wave that closes would be no place for what is computed anew."""
        closed(folder)
        open_waves(folder, read_manifest(folder.manifest), [UNITS - 1, 1])
        again = records(folder, UNITS - 1)
        with Closing(folder, {UNITS - 1, 1}) as closing:
            for _ in range(2 * IN_WAVE):
                closing.unit_done()
            assert closing._closing is not None
            closing._closing.result()
            assert [folder.is_open(wave) for wave in folder.waves()] == [True, False, True]
            add_to_part(folder, UNITS - 1, [replace(row, error=None, status="ok") for row in again])
        assert not any(map(folder.is_open, folder.waves()))
        assert {*read_rows(folder.parts(), ["status"])["status"].to_pylist()} == {"ok"}

    def test_what_cannot_be_added_to_a_closed_wave_is_no_secret(self, folder: ResultsFolder) -> None:
        closed(folder)
        rows = records(folder, 1)
        add_to_part(folder, 1, rows)  # a task that was repeated
        with pytest.raises(RunError):
            add_to_part(folder, 1, [replace(row, status="error", error="dark") for row in rows])

    def test_row_groups_of_large_maps_are_small(self, folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(joining, "BYTES_OF_A_GROUP", 1)
        closed(folder)
        sizes = [pq.ParquetFile(str(path)).metadata.num_row_groups for path in folder.parts()]
        assert sizes == [IN_WAVE, IN_WAVE, UNITS % IN_WAVE]

    def test_nothing_is_begun_after_an_error(self, folder: ResultsFolder) -> None:
        opened(folder)
        with pytest.raises(ZeroDivisionError), Closing(folder):
            raise ZeroDivisionError
        assert all(map(folder.is_open, folder.waves()))

    def test_what_cannot_be_closed_ends_the_run(self, folder: ResultsFolder) -> None:
        opened(folder)
        on_disk(folder.part(1)).write_bytes(b"noise")
        with pytest.raises(ResultsError, match=r"part-000001\.parquet"):
            units_done(Closing(folder), IN_WAVE)

    def test_a_reader_that_listed_the_parts_reads_them_from_the_file(
        self, written: ResultsFolder, folder: ResultsFolder
    ) -> None:
        listed = opened(folder).parts()
        close_waves(folder)
        remove_closed_parts(folder)
        assert read_rows(listed).equals(read_rows(written.parts()))


def units_done(closing: Closing, units: int) -> None:
    with closing:
        for _ in range(units):
            closing.unit_done()


CHURN = f"""
import itertools, sys
from oodray.datasets.manifest import read_manifest
from oodray.results import joining, waves
from oodray.results.folder import ResultsFolder

joining.UNITS_OF_A_WAVE = joining.LABELLED_UNITS_OF_A_WAVE = {IN_WAVE}
joining.BYTES_OF_A_GROUP = 0
folder = ResultsFolder(sys.argv[1])
manifest = read_manifest(folder.manifest)
print("at work", flush=True)
while True:
    waves.remove_closed_parts(folder)
    waves.open_waves(folder, manifest, range({UNITS}))
    waves.close_waves(folder)
"""
"""Opens and closes all waves without end."""


@contextlib.contextmanager
def at_work(folder: ResultsFolder) -> Iterator[subprocess.Popen[bytes]]:
    """A process that opens and closes the waves of a folder; it is killed at the end of the block."""
    with subprocess.Popen([sys.executable, "-c", CHURN, str(folder.path)], stdout=subprocess.PIPE) as churn:
        try:
            assert churn.stdout is not None
            churn.stdout.readline()
            yield churn
        finally:
            churn.kill()


def test_wherever_it_is_killed_every_row_is_there_once(
    folder: ResultsFolder, written: ResultsFolder, pytestconfig: pytest.Config
) -> None:
    """`make soak` kills it more often."""
    opened(folder)
    kills, seed = 3 if not pytestconfig.getoption("--soak") else 60, random.randrange(2**32)
    chance, whole, missed = random.Random(seed), 0, 0
    for _ in range(kills):
        with at_work(folder) as churn:
            until = time.monotonic() + chance.uniform(0.05, 0.6)
            while time.monotonic() < until:
                assert churn.poll() is None, seed
                assert sorted(map(str, read_rows(folder.parts(), ["image_id"])["image_id"].to_pylist())) == ALL, seed
                try:
                    found = seen_by_pandas(folder)
                except OSError:  # what pandas had listed was closed, or opened, before pandas came to it
                    missed += 1
                    continue
                assert found == ALL, seed
                whole += 1
        assert seen_by_pandas(folder) == ALL, seed
        assert finished_units(folder) == set(range(UNITS)), seed
        # The next session of a run begins with this.
        start_or_continue(folder, read_manifest(folder.manifest), identity={}, description={})
        assert seen_by_pandas(folder) == ALL, seed
    close_waves(folder)
    remove_closed_parts(folder)
    assert names(folder) == NAMES, seed
    assert read_rows(folder.parts()).equals(read_rows(written.parts())), seed
    sys.stdout.write(f"seed {seed}: pandas read {whole} times, and {missed} times had to be asked again\n")
