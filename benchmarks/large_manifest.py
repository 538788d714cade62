"""What the driver takes for a million images, the images aside: `python -m benchmarks.large_manifest [ROWS]`.

The rows of the results are those of a stand-in, which are written as a run writes them, unit by unit.
"""

from __future__ import annotations

import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.csv

from oodray.datasets.layouts import get_layout
from oodray.datasets.manifest import build_manifest, manifest_digest, read_manifest
from oodray.job.pipeline import UNITS_OF_A_SLICE
from oodray.records import extended, table_of
from oodray.results.continuing import Left, start_or_continue
from oodray.results.folder import ResultsFolder, write_table
from oodray.results.reading import finished_units, read_rows
from oodray.results.rows import OK, ResultRow
from oodray.results.status import read_status
from oodray.results.waves import close_waves, open_waves, remove_closed_parts

Done = TypeVar("Done")

ROW_BYTES = 30_000
"""Of an image without labels."""


def step(what: str, work: Callable[[], Done]) -> Done:
    """Do some work, and print how long it took and the most memory that this process has had."""
    start, cpu = time.monotonic(), time.process_time()
    done = work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(
        f"{what:42} {time.monotonic() - start:7.1f} s, CPU {time.process_time() - cpu:6.1f} s, {peak:6,.0f} MiB",
        flush=True,
    )
    return done


def run(rows: int, computed: int) -> None:
    """Measure each step; of `computed` images there are results, of `ROW_BYTES` each."""
    root = Path(tempfile.mkdtemp())
    (root / "im").mkdir()
    (root / "im/0000000.jpg").touch()
    names = pa.array([f"im/{row:07}.jpg" for row in range(rows)])
    pa.csv.write_csv(pa.table({"image": names}), root / "list.csv")
    folder = ResultsFolder(root / "out")

    manifest = step("list and manifest", lambda: build_manifest(get_layout("list"), root / "list.csv"))
    print(f"{manifest.nbytes / 2**20:.0f} MiB of manifest in memory")
    step("digest", lambda: manifest_digest(manifest))
    step(
        "start, manifest written",
        lambda: start_or_continue(folder, manifest, {}, {"config": {"k": 8, "tau": 1.0, "ood_ratio": 0.3}}),
    )
    print(f"{folder.manifest.stat().st_size / 2**20:.0f} MiB of manifest on the disk")
    left = Left(manifest, frozenset())
    step("waves opened", lambda: open_waves(folder, manifest, left.units))
    units = step("all slices as objects, one at a time", lambda: sum(len(s) for s in left.slices(UNITS_OF_A_SLICE)))
    print(f"{units:,} units, {len(folder.waves())} waves")

    def compute() -> None:
        for images in left.slices(UNITS_OF_A_SLICE):
            for unit, listed in images.items():
                if listed[0].unit * len(listed) >= computed:
                    return
                result = [
                    extended(ResultRow, one, status=OK, mask_png=random.randbytes(ROW_BYTES), seconds_decode=0.0)
                    for one in listed
                ]
                write_table(table_of(ResultRow, result), folder.part(unit))

    step(f"{computed:,} rows written unit by unit", compute)
    step("waves closed", lambda: close_waves(folder))
    step("their parts removed", lambda: remove_closed_parts(folder))
    sizes = [path.stat().st_size / 1e6 for path in folder.parts()]
    print(f"{len(sizes)} files of {min(sizes):.0f} to {max(sizes):.0f} MB")
    step("finished units from footers", lambda: finished_units(folder))
    step("continue", lambda: start_or_continue(folder, read_manifest(folder.manifest), {}, {}))
    step("status", lambda: read_status(folder))
    step("two columns of all rows", lambda: read_rows(folder.parts(), ["image_id", "status"]))
    shutil.rmtree(root)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    run(count, count // 25)
