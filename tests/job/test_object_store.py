"""A run whose images and results lie in an object store that fails now and then."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import s3_server
from command_line import call
from processes import wait_until_gone
from pyarrow.fs import LocalFileSystem, S3FileSystem, copy_files

from oodray.results.folder import ResultsFolder
from oodray.results.reading import finished_units, read_rows
from oodray.storage import remote as storage
from oodray.storage.place import storage_path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

TESTS = Path(__file__).parents[1]
MARK = "OODRAY_RUN_IN_STORE"
"""The variable that all processes of the runs have."""


@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=pytest.mark.soak)])
def test_a_run_in_an_object_store_is_killed_continued_and_equals_one_on_disk(
    executor: str,
    object_store: str,
    undisturbed: Path,
    tiny_dataset: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = s3_server.CREDENTIALS
    direct = S3FileSystem(
        access_key=keys["AWS_ACCESS_KEY_ID"],
        secret_key=keys["AWS_SECRET_ACCESS_KEY"],
        region=keys["AWS_REGION"],
        scheme="http",
        endpoint_override=object_store,
    )
    copy_files(str(tiny_dataset), "bucket/tiny", LocalFileSystem(), direct)

    where = {"dataset": "ade-ood", "root": "s3://bucket/tiny", "out": f"s3://bucket/{executor}"}
    options = where | {"model": "fakes:slow", "tau": 1.5, "threads": 1}
    flat = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command = ["run", *flat, "--executor"]
    with s3_server.FaultyProxy(object_store, share=0.05) as proxy:
        for name, value in proxy.environment().items():
            monkeypatch.setenv(name, value)
        storage._file_system.cache_clear()
        variables = environment | proxy.environment() | {MARK: proxy.address}
        folder = ResultsFolder(where["out"])
        first = subprocess.Popen(
            [sys.executable, "-m", "oodray.cli", *command, executor],
            cwd=TESTS,
            env=variables,
            stderr=subprocess.PIPE,
            text=True,
        )
        while len(finished_units(folder)) < 2:
            assert first.poll() is None, first.communicate()[1]
            time.sleep(0.2)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        wait_until_gone(f"{MARK}={proxy.address}")
        assert 2 <= len(finished_units(folder)) < 10

        monkeypatch.chdir(TESTS)
        second = call(*command, "local")
        assert second.exit_code == 0, second.err
        assert "its work is continued" in second.err
        assert "10" in call("status", where["out"]).out
        found = read_rows(folder.parts())
        metrics = folder.metrics_json.read_bytes()
        assert not (folder.path / "lease.json").exists()
        assert proxy.faults["busy"] + proxy.faults["cut"] + proxy.faults["slow"] > 0
    storage._file_system.cache_clear()

    on_disk = ResultsFolder(undisturbed)
    names = [name for name in found.column_names if not name.startswith("seconds") and not name.endswith("_uri")]
    assert found.select(names).equals(read_rows(on_disk.parts(), names))
    assert found["image_uri"][0].as_py().startswith("s3://bucket/tiny/images/")
    assert metrics == on_disk.metrics_json.read_bytes()
    assert storage_path(where["out"]) == folder.path
