"""One image of a run is found without reading those beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from small_run import SmallRun

import oodray.results.one_image
import oodray.results.waves
from oodray.datasets.manifest import read_manifest
from oodray.errors import ResultsError
from oodray.results import joining
from oodray.results.folder import ResultsFolder
from oodray.results.kept_maps import encode_map
from oodray.results.maps import score_map
from oodray.results.one_image import read_image
from oodray.results.reading import few_rows, pieces, read_row, read_rows
from oodray.results.rows import KeptMap
from oodray.results.waves import close_waves, open_waves

IMAGES, SIZE = 40, 512


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ResultsFolder:
    """A closed wave, in which each image keeps a map of half a megabyte."""
    run = SmallRun(tmp_path_factory.mktemp("maps"))
    random = np.random.default_rng(3)
    for number in range(IMAGES):
        noise = random.integers(2000, 60000, (SIZE, SIZE)).astype(np.uint16)
        row = run.add(f"frames/{number:03d}")
        kept = KeptMap(name="msp", scale=None, data=encode_map(noise))
        run.rows[-1] = replace(row, width=SIZE, height=SIZE, maps=[kept])
    run.fail("frames/none", "broken")
    folder = run.write(config={"k": 3, "tau": 1.5, "ood_ratio": 0.25, "scores": ["msp"], "keep_maps": ["msp"]})
    open_waves(folder, read_manifest(folder.manifest), [])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(joining, "BYTES_OF_A_GROUP", 2**21)
        close_waves(folder)
    assert len(folder.parts()) == 1
    assert len(pieces(folder.parts())) == 11
    return folder


def test_a_row_is_that_of_its_image(folder: ResultsFolder) -> None:
    table = read_rows(folder.parts())
    for number in (0, 17, IMAGES - 1):
        image_id = f"frames/{number:03d}"
        assert read_row(folder, number, image_id, table.column_names).equals(table.slice(number, 1))
        assert read_image(folder, image_id, ["unit"]) == {"unit": number}
    assert read_row(folder, 0, "frames/1000", ["unit"]).num_rows == 0
    with pytest.raises(ResultsError, match="frames/none failed"):
        read_image(folder, "frames/none", ["unit"])
    with pytest.raises(ResultsError, match="has no image 'frames/04'"):
        read_image(folder, "frames/04", ["unit"])


def test_of_other_images_little_is_read(folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> pa.Table:
        raise AssertionError("the manifest is read whole")

    monkeypatch.setattr(oodray.results.one_image, "read_manifest", refuse)
    before = pa.default_memory_pool()
    pool = pa.system_memory_pool()
    assert pool.max_memory() == 0, "another test has used it, so that its peak says nothing here"
    pa.set_memory_pool(pool)
    try:
        assert score_map(folder, "frames/005", "msp").shape == (SIZE, SIZE)
        one = pool.max_memory()
        for table in few_rows(pieces(folder.parts())[0], ["image_id", "maps"]):
            assert table.num_rows <= 4
        few = pool.max_memory()
    finally:
        pa.set_memory_pool(before)
    assert one is not None
    assert few is not None
    assert one < 6 * 2**20, "all maps have 20 MiB"
    assert few < 12 * 2**20
