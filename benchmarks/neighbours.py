"""Nearest neighbours of a bank of features, beside scikit-learn and faiss: `python -m benchmarks.neighbours`.

Each way runs in a process of its own that holds bank and queries, so that its memory is known; the ways take turns.
faiss is used here alone: `pip install faiss-cpu`.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

BANK, FEATURES, QUERIES, K = 100_000, 640, 8_192, 3
THREADS = 2
REPEATS = 3
MARK = "## Nearest neighbours"
RESULTS = Path(__file__).parent / "RESULTS-SCORES.md"

Search = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Measured:
    """Seconds of every turn, those of the CPU, the peak of memory above what was held before, and the distances."""

    seconds: list[float]
    of_cpu: list[float]
    memory: int
    distances: NDArray[np.float32]


def oodray(bank: NDArray[np.float32]) -> Search:
    """Ours, on an index that does not copy the bank."""
    import torch

    from oodray.scores.fitted.search import Index, nearest

    torch.set_num_threads(THREADS)
    index = Index.of(torch.from_numpy(bank))
    return lambda queries: nearest(torch.from_numpy(queries), index, K)[0].numpy()


def faiss_flat(bank: NDArray[np.float32]) -> Search:
    """The exact index of faiss."""
    import faiss

    faiss.omp_set_num_threads(THREADS)
    index = faiss.IndexFlatL2(bank.shape[1])
    index.add(bank)
    return lambda queries: np.sqrt(index.search(queries, K)[0])


def sklearn_brute(bank: NDArray[np.float32]) -> Search:
    """Brute force of scikit-learn."""
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=K, algorithm="brute").fit(bank)
    return lambda queries: index.kneighbors(queries)[0]


WAYS = {"oodray": oodray, "faiss IndexFlatL2": faiss_flat, "scikit-learn brute": sklearn_brute}


def data() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A bank and queries: clusters whose spread falls from dimension to dimension, about a large mean, as features."""
    random = np.random.default_rng(0)
    spread = np.linspace(2, 0.05, FEATURES, dtype=np.float32)
    means = random.standard_normal((19, FEATURES), np.float32) * spread + 1
    turn = np.linalg.qr(random.standard_normal((FEATURES, FEATURES), np.float32))[0]

    def drawn(count: int) -> NDArray[np.float32]:
        noise = random.standard_normal((count, FEATURES), np.float32) * spread
        return np.ascontiguousarray((means[random.integers(19, size=count)] + noise) @ turn, np.float32)

    return drawn(BANK), drawn(QUERIES)


def serve(name: str, talk: Connection) -> None:
    """A process of one way: searches whenever it is asked to."""
    bank, queries = data()
    WAYS[name](bank[:100])(queries[:100])  # imports, and starts threads
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    search = WAYS[name](bank)
    while talk.recv():
        start, of_cpu = time.perf_counter(), time.process_time()
        distances = search(queries)
        taken = time.perf_counter() - start, time.process_time() - of_cpu
        talk.send((*taken, _status("VmHWM") - before, distances))


def _status(name: str) -> int:
    """Bytes that the kernel counts for this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def run() -> dict[str, Measured]:
    """All ways, in turn."""
    spawn = multiprocessing.get_context("spawn")
    talks = {}
    for name in WAYS:
        ours, theirs = spawn.Pipe()
        spawn.Process(target=serve, args=(name, theirs), daemon=True).start()
        talks[name] = ours
    answers: dict[str, list[Any]] = {name: [] for name in WAYS}
    for _ in range(REPEATS + 1):
        for name, talk in talks.items():
            talk.send(True)
            answers[name].append(talk.recv())
    for talk in talks.values():
        talk.send(False)
    # The first turn warms up.
    return {
        name: Measured(
            seconds=[turn[0] for turn in turns[1:]],
            of_cpu=[turn[1] for turn in turns[1:]],
            memory=max(turn[2] for turn in turns),
            distances=turns[-1][3],
        )
        for name, turns in answers.items()
    }


def report(found: dict[str, Measured]) -> str:
    """The results as a table."""
    bank_bytes = BANK * FEATURES * 4
    exact = found["scikit-learn brute"].distances
    lines = [
        f"{QUERIES:,} queries against a bank of {BANK:,} x {FEATURES} float32, k = {K}, {THREADS} threads, each way in "
        f"a process of its own, {REPEATS} turns in one run. Memory is the peak above the process that holds bank and "
        "queries; CPU is that of both threads; the difference is the largest one of a distance to scikit-learn's.",
        "",
        "| way | median | least | CPU, least | memory / bank | difference |",
        "|---|---|---|---|---|---|",
    ]
    for name, measured in found.items():
        difference = float(np.max(np.abs(measured.distances - exact)))
        lines.append(
            f"| {name} | {median(measured.seconds):.2f} s | {min(measured.seconds):.2f} s "
            f"| {min(measured.of_cpu):.2f} s "
            f"| {measured.memory / bank_bytes:.2f} | {difference:.1e} |"
        )
    lines += ["", f"Load at the end {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores."]
    return "\n".join(lines) + "\n"


def write_section(title: str, text: str) -> None:
    """Put a section into RESULTS-SCORES.md, in the place of the one of that title."""
    old = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    sections = [section for section in ("\n" + old).split("\n## ")[1:] if f"## {section.splitlines()[0]}" != title]
    programs = "`python -m benchmarks.neighbours` and `python -m benchmarks.score_cost`"
    head = f"# Benchmarks of scores\n\nWritten by {programs}.\n"
    parts = [*(f"## {section.strip()}" for section in sections), f"{title}\n\n{text.strip()}"]
    RESULTS.write_text(f"{head}\n" + "\n\n".join(sorted(parts)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    text = report(run())
    print(text)
    write_section(MARK, text)
