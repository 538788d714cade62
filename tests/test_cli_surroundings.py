"""What a scheduler or a shell may leave a command with: closed streams, a working folder that is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STREAMS = """
import os, sys
from oodray.cli import _open_closed_streams
_open_closed_streams()
taken = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
print("out")
print("err", file=sys.stderr)
assert sys.stdin.read() == ""
os.dup(2)
os.write(taken, str(taken).encode())
"""


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_lead_nowhere(closed: str, tmp_path: Path, environment: dict[str, str]) -> None:
    file = tmp_path / "file"
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", STREAMS, str(file)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0
    assert int(file.read_text()) > 2  # nothing that is printed goes into it
    assert done.stdout == ("" if ">&-" in closed.replace("2>&-", "") else "out\n")
    assert done.stderr == ("" if "2>&-" in closed else "err\n")


def test_a_working_folder_that_is_gone_is_named(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "gone").mkdir()
    script = 'cd gone && rmdir ../gone && exec "$@"'
    command = ["sh", "-c", script, "sh", sys.executable, "-m", "oodray", "datasets"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("error: the working folder is gone")


def test_open_streams_stay_what_they_are(environment: dict[str, str]) -> None:
    script = "import sys; from oodray.cli import _open_closed_streams as o; b = sys.stdout; o(); assert b is sys.stdout"
    subprocess.run([sys.executable, "-c", script], env=environment | {"A": os.devnull}, check=True)
