"""Waves in an object store: every row is there once for oodray, whichever request is the last."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
import s3_server
from fake_store import FakeStore

from oodray.datasets.manifest import MANIFEST_SCHEMA
from oodray.errors import ResultsError
from oodray.records import table_of
from oodray.results import joining
from oodray.results.continuing import start_anew, start_or_continue, what_is_left
from oodray.results.folder import ResultsFolder
from oodray.results.names import Wave
from oodray.results.parts import add_to_part, write_part
from oodray.results.reading import finished_units, read_rows, read_unit
from oodray.results.rows import ERROR, OK, ResultRow
from oodray.results.status import read_status
from oodray.results.waves import Closing, close_waves, open_waves, remove_closed_parts
from oodray.storage import remote
from oodray.storage.place import storage_path

UNITS, IN_WAVE = 10, 4
NAMES = ["part-000000-000003.parquet", "part-000004-000007.parquet", "part-000008-000009.parquet"]


class Store:
    """A `FakeStore` that ends the work at one of its requests."""

    def __init__(self, folder: Path) -> None:
        self.fake = FakeStore(folder)
        self.until_killed: int | None = None
        noted = self.fake._noted

        def counted(request: str) -> None:
            if request in {"write", "delete"} and self.until_killed is not None:
                if self.until_killed == 0:
                    raise KilledError
                self.until_killed -= 1
            noted(request)

        self.fake._noted = counted  # type: ignore[method-assign]


class KilledError(BaseException):
    """Nothing that the package could handle."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store(tmp_path)
    monkeypatch.setattr(remote, "_file_system", lambda scheme, bucket: store.fake.system)
    # One request after the other, in this thread: so each of them can be the last.
    monkeypatch.setattr("oodray.storage.remote._answer", lambda request, bucket: request(store.fake.system))
    monkeypatch.setattr("oodray.storage.remote.RemotePlace._ask", lambda self, request, **_: request(store.fake.system))
    monkeypatch.setattr("oodray.results.joining.concurrently", one_by_one)
    monkeypatch.setattr("oodray.results.store_waves.concurrently", one_by_one)
    monkeypatch.setattr(joining, "UNITS_OF_A_WAVE", IN_WAVE)
    monkeypatch.setattr(joining, "BYTES_OF_A_GROUP", 0)
    return store


def one_by_one(work, items, in_store=False):  # type: ignore[no-untyped-def]
    return [work(item) for item in items]


def rows_of(unit: int) -> list[ResultRow]:
    """Two images, of which in the last unit one failed."""
    failed = unit == UNITS - 1
    return [
        ResultRow(
            unit=unit,
            image_id=f"{unit}-{index}",
            dataset="folder",
            image_uri=f"/{unit}/{index}",
            label_uri=None,
            status=ERROR if failed and index else OK,
            error="broken" if failed and index else None,
        )
        for index in range(2)
    ]


@pytest.fixture
def folder(store: Store) -> ResultsFolder:
    """A run of which all units are done, and have files of their own."""
    folder = ResultsFolder(storage_path("s3://bucket/out"))
    start_or_continue(folder, manifest(), identity={"manifest": ""}, description={"config": {}})
    for unit in range(UNITS):
        write_part(folder, unit, rows_of(unit))
    return folder


def manifest() -> pa.Table:
    rows = [row for unit in range(UNITS) for row in rows_of(unit)]
    return table_of(ResultRow, rows).select(MANIFEST_SCHEMA.names).cast(MANIFEST_SCHEMA)


ALL = [f"{unit}-{index}" for unit in range(UNITS) for index in range(2)]


def names(folder: ResultsFolder) -> list[str]:
    return sorted(path.name for path in folder.results.iterdir())


def ids(folder: ResultsFolder) -> list[str]:
    return [str(image_id) for image_id in read_rows(folder.parts(), ["image_id"])["image_id"].to_pylist()]


def test_files_become_few(folder: ResultsFolder) -> None:
    before = read_rows(folder.parts())
    status = read_status(folder)
    close_waves(folder)
    assert names(folder) == NAMES
    assert read_rows(folder.parts()).equals(before)
    assert finished_units(folder) == set(range(UNITS))
    assert read_unit(folder, 5)["image_id"].to_pylist() == ["5-0", "5-1"]
    assert (read_status(folder).ok, read_status(folder).errors) == (status.ok, status.errors)


def test_what_is_not_whole_stays_in_units(folder: ResultsFolder) -> None:
    folder.part(5).unlink()
    close_waves(folder)
    assert names(folder) == [NAMES[0], *(f"part-{unit:06}.parquet" for unit in (4, 6, 7)), NAMES[2]]
    assert finished_units(folder) == set(range(UNITS)) - {5}


@pytest.mark.parametrize("work", ["close", "open"])
def test_whichever_request_is_the_last_every_row_is_there_once(folder: ResultsFolder, store: Store, work: str) -> None:
    """All of them in turn: each time everything is done anew, until it is not killed any more."""
    before, last = read_rows(folder.parts()), 0
    while True:
        close_waves(folder) if work == "open" else open_waves(folder, manifest(), range(UNITS))
        assert names(folder) == NAMES if work == "open" else len(names(folder)) == UNITS
        store.until_killed = last
        try:
            close_waves(folder) if work == "close" else open_waves(folder, manifest(), range(UNITS))
        except KilledError:
            assert read_rows(folder.parts()).equals(before), last
            assert finished_units(folder) == set(range(UNITS)), last
        else:
            break
        finally:
            store.until_killed = None
        # The next session begins with this.
        start_or_continue(folder, manifest(), identity={"manifest": ""}, description={})
        assert read_rows(folder.parts()).equals(before), last
        last += 1
    assert last == UNITS + 3  # three files written and ten removed, or the other way round
    close_waves(folder)
    assert names(folder) == NAMES
    assert read_rows(folder.parts()).equals(before)


def test_an_image_is_tried_again_and_its_wave_alone_is_opened(folder: ResultsFolder) -> None:
    close_waves(folder)
    finished = finished_units(folder)
    left = what_is_left(folder, manifest(), finished, retry_errors=True)
    assert left.images["image_id"].to_pylist() == ["9-1"]
    open_waves(folder, manifest(), left.units)
    assert names(folder) == [*NAMES[:2], "part-000008.parquet", "part-000009.parquet"]
    from dataclasses import replace

    add_to_part(folder, 9, [replace(rows_of(9)[1], status=OK, error=None)])
    close_waves(folder)
    assert names(folder) == NAMES
    assert ids(folder) == ALL
    assert read_status(folder).failed == 0


def test_a_unit_that_an_orphan_writes_beside_its_closed_wave_does_not_count(folder: ResultsFolder) -> None:
    close_waves(folder)
    write_part(folder, 2, rows_of(2))
    assert ids(folder) == ALL
    assert folder.wave_of(2) == Wave(0, 3)
    remove_closed_parts(folder)
    assert names(folder) == NAMES


def test_who_listed_files_finds_their_rows_where_they_went(folder: ResultsFolder) -> None:
    of_units = folder.parts()
    close_waves(folder)
    assert read_rows(of_units, ["image_id"])["image_id"].to_pylist() == ALL
    of_waves = folder.parts()
    open_waves(folder, manifest(), [0, 4, 8])
    assert read_rows(of_waves, ["image_id"])["image_id"].to_pylist() == ALL
    with pytest.raises(ResultsError, match=r"part-000077\.parquet"):
        read_rows([folder.results / "part-000077.parquet"])


def test_beside_a_run_a_wave_is_closed_when_as_many_units_are_done(folder: ResultsFolder) -> None:
    with Closing(folder) as closing:
        for _ in range(IN_WAVE - 1):
            closing.unit_done()
        assert len(names(folder)) == UNITS
    assert names(folder) == NAMES


def test_to_start_anew_removes_waves_and_units(folder: ResultsFolder) -> None:
    close_waves(folder)
    write_part(folder, 2, rows_of(2))
    start_anew(folder)
    assert not names(folder)


def test_who_reads_a_real_store_while_waves_are_closed_finds_every_row_once(
    object_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "UNITS_OF_A_WAVE", IN_WAVE)
    with s3_server.FaultyProxy(object_store, share=0.0) as proxy:
        for name, value in proxy.environment().items():
            monkeypatch.setenv(name, value)
        remote._file_system.cache_clear()
        folder = ResultsFolder(storage_path("s3://bucket/small-waves"))
        start_or_continue(folder, manifest(), identity={"manifest": ""}, description={"config": {}})
        written, stopped = [0], threading.Event()

        def read() -> list[tuple[int, list[str]]]:
            """By look into the folder: units that had files before, and the rows that it found."""
            seen: list[tuple[int, list[str]]] = []
            while not stopped.is_set():
                before = written[0]
                seen.append((before, ids(folder)))
            return seen

        with ThreadPoolExecutor(1) as threads:
            reader = threads.submit(read)
            try:
                with Closing(folder) as closing:
                    for unit in range(UNITS):
                        write_part(folder, unit, rows_of(unit))
                        written[0] = unit + 1
                        closing.unit_done()
            finally:
                stopped.set()
            seen = reader.result()
        assert names(folder) == NAMES
        assert ids(folder) == ALL
        assert len(seen) > IN_WAVE
        for before, found in seen:
            assert len({*found}) == len(found)
            assert {*ALL[: 2 * before]} <= {*found}
    remote._file_system.cache_clear()
