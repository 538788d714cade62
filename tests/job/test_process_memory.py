"""What a worker's process is set to, in processes of their own, as it stays with a process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# The first round grows the heap; later ones find it grown, if it was kept.
FAULTS_OF_ROUNDS = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from oodray.job.process_memory import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(64 * 2**20)
    block[::4096] = b"x" * (len(block) // 4096)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[2] == "in a thread":
    with ThreadPoolExecutor(1) as threads:
        print(*(threads.submit(faults).result() for _ in range(3)))
else:
    print(*(faults() for _ in range(3)))
"""


def python(code: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
@pytest.mark.parametrize("where", ["in the main thread", "in a thread"])
def test_memory_that_was_freed_is_used_again(where: str) -> None:
    pages = 64 * 2**20 // 4096
    assert all(int(faults) < pages / 100 for faults in python(FAULTS_OF_ROUNDS, "kept", where)[1:])
    # Else the system clears every page anew, of 4 KB or of 2 MB; without this the test above could not fail.
    assert all(int(faults) > pages / 600 for faults in python(FAULTS_OF_ROUNDS, "given back", where)[1:])


def test_the_choice_of_the_user_on_waiting_threads_stays() -> None:
    code = (
        "import os; from oodray.job.process_memory import set_up_process; {}set_up_process(); print(os.environ['{}'])"
    )
    name = "OMP_WAIT_POLICY"
    assert python(code.format("os.environ.pop('OMP_WAIT_POLICY', 0); ", name)) == ["passive"]
    assert python(code.format("os.environ['OMP_WAIT_POLICY'] = 'active'; ", name)) == ["active"]
