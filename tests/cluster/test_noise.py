"""What Ray writes of its own accord, and where it goes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from processes import command_line, descendants
from ray._private import worker

from oodray.cluster import noise
from oodray.cluster.noise import Notes, messages_off_stdout, start_notes_off_stderr

TESTS = Path(__file__).parents[1]

DEADLY = """
import os, signal, time
import fakes


class Deadly(fakes.Colours):
    def segment(self, images):
        time.sleep(0.3)
        if any(image.shape[0] == 72 for image in images):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().segment(images)


class Slow(fakes.Colours):
    def segment(self, images):
        time.sleep(2)
        return super().segment(images)
"""
"""Networks: one ends its process at the images of one size."""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_is_written_while_ray_starts_is_shown_to_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    notes = Notes()
    with start_notes_off_stderr(notes):
        os.write(2, b"gcs_client.cc:210\n")
    os.write(2, b"shown\n")
    assert capfd.readouterr().err == "shown\n"
    assert (notes.text, notes.saved()) == ("", "")


def test_where_it_does_not_start_the_message_names_a_file_of_it(
    temporary: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    notes = Notes()

    def start() -> None:
        with start_notes_off_stderr(notes):
            os.write(2, b"gcs_client.cc:210 \xff\n")
            raise ConnectionError

    with pytest.raises(ConnectionError):
        start()
    assert capfd.readouterr().err == ""
    said = notes.saved()
    [file] = temporary.glob("oodray-ray-*.log")
    assert said == f". What Ray wrote about it is in {file}"
    assert file.read_text(encoding="utf-8").startswith("gcs_client.cc:210")


def test_the_thread_that_prints_messages_does_not_start() -> None:
    before = worker.listen_error_messages
    with messages_off_stdout():
        assert worker.listen_error_messages is not before
    assert worker.listen_error_messages is before


def test_a_process_of_rays_that_ended_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(noise, "LOOK_SECONDS", 0.0)
    stopped, dead = threading.Event(), [[], [("log_monitor", None)], [("raylet", None)]]
    monkeypatch.setattr(worker, "_global_node", SimpleNamespace(dead_processes=lambda: dead.pop(0), all_processes=[1]))
    noise._watch_processes(None, stopped)
    out, err = capfd.readouterr()
    assert (out, dead) == ("", [])
    assert err.startswith("error: Ray's process raylet has ended")
    assert "same command again" in err
    stopped.set()
    noise._watch_processes(None, stopped)
    assert capfd.readouterr() == ("", "")


def test_a_cluster_that_does_not_answer_any_more_is_spoken_of_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stopped, looks = threading.Event(), [0]
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def dead() -> list[object]:
            looks[0] += 1
            if looks[0] == 3:
                server.close()
            if looks[0] == 12:
                stopped.set()
            return []

        monkeypatch.setattr(noise, "LOOK_SECONDS", 0.01)
        monkeypatch.setattr(noise, "UNHEARD_SECONDS", 0.03)
        node = SimpleNamespace(dead_processes=dead, all_processes=[], gcs_address=address)
        monkeypatch.setattr(worker, "_global_node", node)
        noise._watch_processes(None, stopped)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"warning: the Ray cluster at {address} does not answer any more")


@pytest.mark.soak
@pytest.mark.timeout(280)
@pytest.mark.parametrize("network", ["Deadly", "Slow"])
def test_when_processes_die_stdout_has_nothing_of_rays(
    network: str, environment: dict[str, str], tiny_dataset: Path, tmp_path: Path
) -> None:
    """A worker that is killed by its network; and Ray's own raylet, after which there is no run any more."""
    (tmp_path / "deadly.py").write_text(DEADLY, encoding="utf-8")
    variables = {name: value for name, value in environment.items() if name != "RAY_ADDRESS"}
    where = ["--dataset", "ade-ood", "--root", str(tiny_dataset), "--out", "out", "--model", f"deadly:{network}"]
    running = subprocess.Popen(
        [sys.executable, "-m", "oodray.cli", "run", *where, "--tau", "1.5", "--threads", "1", "--executor", "ray"],
        cwd=tmp_path,
        env=variables | {"PYTHONPATH": f"{environment['PYTHONPATH']}:{TESTS}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if network == "Slow":
        while not [*(tmp_path / "out/results").glob("*/part-*")]:
            assert running.poll() is None, running.communicate()
            time.sleep(0.1)
        programs = {pid: command_line(pid).partition(" ")[0] for pid in descendants(running.pid)}
        [raylet] = [pid for pid, program in programs.items() if program.endswith("raylet/raylet")]
        os.kill(raylet, 9)
    out, err = running.communicate()
    assert "raylet)" not in out + err
    if network == "Slow":
        assert (running.returncode, out) == (1, "")
        assert "error: Ray's process raylet has ended" in err
    else:
        assert running.returncode == 0, err
        assert "the process died" in err
